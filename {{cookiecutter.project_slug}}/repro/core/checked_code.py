"""Import the project's code as it stands in its files: compiled files count by the source's hash.

By itself Python takes a compiled file for current by the source's time, in seconds, and its size. A
file that is edited twice in a second, or put back with its old time, would run its old version,
while the conditions hold the digest of the new one. Promises that no compiled file of the project
that is known by its time is ever run, and that those which are written are known by their hash.
Packages of the environment are left alone: the doctor compares those.
"""

import importlib
import marshal
import os
import signal
import sys
from collections.abc import Mapping
from hashlib import sha256
from importlib.machinery import (
    EXTENSION_SUFFIXES,
    SOURCE_SUFFIXES,
    ExtensionFileLoader,
    FileFinder,
    SourceFileLoader,
)
from importlib.util import MAGIC_NUMBER, cache_from_source, source_hash
from pathlib import Path
from typing import NoReturn

_CHECKED = (3).to_bytes(4, "little")  # PEP 552: known by its hash, which is to be compared
_HEADER = 16  # bytes: magic number, flags, hash

_read: dict[str, bytes] = {}  # the hash of each source as it was imported, by its path
_imported: dict[str, str] = {}  # its SHA-256


def check_by_hash(root: Path) -> None:
    """Import what lies in `root` by its hash from now on, and what was imported already once more.

    A command that began with an old version of a file is started anew.
    """
    plain = FileFinder.path_hook(
        (ExtensionFileLoader, EXTENSION_SUFFIXES), (_Loader, SOURCE_SUFFIXES)
    )

    def find_in_project(folder: str) -> object:
        if not _is_ours(root, folder):
            raise ImportError("not of the project", path=folder)
        return plain(folder)

    sys.path_hooks.insert(0, find_in_project)  # type: ignore[arg-type]
    for folder in [*sys.path_importer_cache]:
        if _is_ours(root, folder):
            del sys.path_importer_cache[folder]
    importlib.invalidate_caches()
    modules = [*sys.modules.values()]
    origins = {getattr(getattr(module, "__spec__", None), "origin", None) for module in modules}
    for origin in sorted(filter(None, origins)):
        if origin.endswith(".py") and _is_ours(root, origin):
            _check_imported(origin)


def imported_otherwise(root: Path, digests: Mapping[str, str]) -> list[str]:
    """Return the files below `root` that this process imported with another SHA-256 than these."""
    found = {name: _imported.get(str(root / name)) for name in digests}
    return [name for name, digest in found.items() if digest and digest != digests[name]]


def imported_files() -> dict[str, str]:
    """Return the SHA-256 of each file of the project that this process has imported, by path."""
    return {**_imported}


def _is_ours(root: Path, path: str) -> bool:
    place = Path(os.path.abspath(path))
    if not place.is_relative_to(root) or "site-packages" in place.parts:
        return False
    return not place.is_relative_to(sys.prefix)  # .venv lies in the project


class _Loader(SourceFileLoader):
    """Load a source; of compiled files it sees those that have the hash of the source."""

    def get_data(self, path: str) -> bytes:
        data = super().get_data(path)
        if path == self.path:
            _note(path, data)
        elif path.endswith(".pyc") and not self._is_of_source(data):
            raise OSError(f"{path} is not of {self.path}")  # Python does without
        return data

    def set_data(self, path: str, data: bytes, *, _mode: int = 0o666) -> None:  # type: ignore[override]
        """Write a compiled file with the hash of the source that was read, not with its time."""
        if path.endswith(".pyc"):
            data = data[:4] + _CHECKED + _read[self.path] + data[_HEADER:]
        super().set_data(path, data, _mode=_mode)

    def _is_of_source(self, data: bytes) -> bool:
        digest = source_hash(self.get_data(self.path))
        return data[:_HEADER] == MAGIC_NUMBER + _CHECKED + digest


def _check_imported(source: str) -> None:
    """Make the compiled file of a module, imported before, one with a hash, if it is right."""
    compiled = cache_from_source(source)
    try:
        data = Path(compiled).read_bytes()
        text = Path(source).read_bytes()
    except OSError:  # there is none, and Python has read the source
        return
    _note(source, text)
    if data[:_HEADER] == MAGIC_NUMBER + _CHECKED + _read[source]:
        return
    code = compile(text, source, "exec", dont_inherit=True)
    if _was_run(data, source) and _code_of(data) != code:
        _begin_again(source, Path(compiled))
    if not sys.dont_write_bytecode:
        header = MAGIC_NUMBER + _CHECKED + _read[source]
        _Loader("", source).set_data(compiled, header + marshal.dumps(code))


def _note(source: str, text: bytes) -> None:
    _read[source] = source_hash(text)
    _imported[source] = sha256(text).hexdigest()


def _was_run(data: bytes, source: str) -> bool:
    """Tell whether Python took a compiled file for current, by the source's time or unseen."""
    state = os.stat(source)
    time_and_size = int(state.st_mtime) & 0xFFFFFFFF | (state.st_size & 0xFFFFFFFF) << 32
    by_time = bytes(4) + time_and_size.to_bytes(8, "little")
    unseen = (1).to_bytes(4, "little")
    return data[:4] == MAGIC_NUMBER and (data[4:_HEADER] == by_time or data[4:8] == unseen)


def _code_of(data: bytes) -> object:
    """Return the code in a compiled file; None for a damaged one."""
    try:
        return marshal.loads(data[_HEADER:])
    except (ValueError, EOFError, TypeError):
        return None


def _begin_again(source: str, compiled: Path) -> NoReturn:
    """Start the command anew without the compiled file that it has just run by mistake."""
    try:
        compiled.unlink(missing_ok=True)
    except OSError as error:
        reason = f"of another version of {source} and cannot be deleted ({error.strerror})"
        print(f"error: {compiled} is {reason}: delete it", file=sys.stderr)
        sys.exit(2)
    if sys.argv[:1] != ["-m"]:  # a notebook, or a test
        raise ImportError(f"{source}: an old version was imported, and is deleted: start anew")
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # as in environment/profile.py
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
