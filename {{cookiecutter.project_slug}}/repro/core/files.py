"""Read and write whole files: a reader sees the old bytes or the new ones, never half of them."""

import errno
import fcntl
import glob
import json
import math
import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TypeAlias

from repro.core.bounded import read_json_file, refuse_unreadable
from repro.core.errors import UserError

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"
JsonObject: TypeAlias = dict[str, "Json"]

_PARTIAL = ".partial"


def parse_object(path: Path) -> JsonObject | None:
    """Read the JSON object that is all of a file; None if the file is missing or holds none."""
    try:
        value = read_json_file(path)
    except (OSError, UserError):
        return None
    return value if isinstance(value, dict) else None


def read_object(path: Path) -> JsonObject:
    """Read the JSON object that is all of a file; empty if the file is missing or holds none."""
    return parse_object(path) or {}


def json_text(value: JsonObject) -> str:
    """Return the JSON text that a command prints; JSON has no NaN: it is "NaN", a string.

    In the same way infinity is "Infinity" or "-Infinity". `float` reads all three.
    """
    return json.dumps(_without_nan(value), indent=1, allow_nan=False)


def _without_nan(value: Json) -> Json:
    if isinstance(value, dict):
        return {name: _without_nan(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return json.dumps(value)
    return value


def write_json(path: Path, value: object) -> None:
    """Write a JSON value; the same value gives the same bytes.

    UserError for one that this kit would not read again.
    """
    text = json.dumps(value, indent=1, sort_keys=True) + "\n"
    refuse_unreadable(str(path), text, value)
    write_file(path, text.encode())


def write_file(path: Path, data: bytes) -> None:
    """Write a file as a whole or not at all: another job may read it meanwhile."""
    with replacing(path) as temporary:
        temporary.write_bytes(data)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield an empty file beside `path`, which takes its place when the block ends well.

    After an error, a full disk or Ctrl-C `path` is what it was, and nothing else is left. Only a
    process that is killed leaves its partial file: `partial_files` finds it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    prefix = f".{path.name}."
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=prefix, suffix=_PARTIAL)
    os.close(descriptor)
    temporary = Path(name)
    try:
        yield temporary
        with suppress(OSError):  # a disk without modes refuses it
            temporary.chmod(0o644)  # mkstemp makes it private
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def holding_lock(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder, made if need be; wait while another process has it.

    Machines that share the file system are kept apart, too: a file `.lock` is locked, which goes
    with the lock. A folder's own lock would be one of this machine alone on NFS. A file system
    without locks keeps nobody apart.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as closing:
        with suppress(OSError):  # also where the file is another user's
            while not _lock(folder / ".lock", closing):
                folder.mkdir(parents=True, exist_ok=True)
        yield


def _lock(path: Path, closing: ExitStack) -> bool:
    """Lock a file until `closing` ends, and remove it then; False if it was removed meanwhile."""
    try:
        # NFS locks for writing only what is open for writing.
        file = closing.enter_context(path.open("ab"))
        fcntl.lockf(file, fcntl.LOCK_EX)
        if not os.path.samestat(os.fstat(file.fileno()), path.stat()):
            return False
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ESTALE):  # with its folder, or from elsewhere
            return False
        raise
    closing.callback(path.unlink, missing_ok=True)
    return True


def partial_files(path: Path) -> list[Path]:
    """Return the unfinished files beside `path`: of a writer at work, or of one that was killed."""
    return list(path.parent.glob(f".{glob.escape(path.name)}.*{_PARTIAL}"))
