"""Compare the installed files with what each package's RECORD says of them.

Promises to name each file that is not the one that was installed, by its digest; each compiled file
that is not what its source compiles to; each file that no package brought; and a RECORD that
changed after `make setup`.

The digests of the RECORDs are in the environment, where bootstrap.py writes them after the
hash-checked installation, and not in the repository: another Python has other wheels, and RECORDs.
So accidents and careless edits are found. Not found: who rewrites files, RECORDs and digests
together, and a change of Python's own library, which comes from the machine.
"""

import csv
import hashlib
import os
import re
import signal
import sys
import warnings
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from importlib.util import cache_from_source
from pathlib import Path

from repro.core.bounded import read_whole
from repro.core.errors import UserError
from repro.core.files import JsonObject, parse_object
from repro.core.hashing import sha256_file
from repro.core.progress import progress
from repro.environment.compiled import compiled_fault, source_of
from repro.environment.locks import NOTE

RECORDS = "repro-records.json"  # as in bootstrap.py
AT_START = ("sitecustomize", "usercustomize")
ANEW = "delete the environment and run make setup"

_DIGEST = re.compile(r"sha(256|384|512)=[\w-]+")


@dataclass(frozen=True)
class InstalledFile:
    """A file to compare: by its digest, else by its size, else as a compiled file."""

    path: str
    digest: str = ""
    size: str = ""


def record_faults(distributions: list[Path]) -> Iterator[str]:
    """Name each RECORD that is not the one that `make setup` saw."""
    path = Path(sys.prefix, RECORDS)
    if not path.is_file():
        yield f"{NOTE}{path} is missing (not set up by make setup): edited RECORDs are not found"
        return
    digests, faults = read_own(path)
    yield from faults
    if faults:
        return
    for record in (folder / "RECORD" for folder in distributions):
        digest = digests.get(record.parent.name)
        if record.is_file() and sha256_file(record) != digest:
            change = "changed" if digest else "came"
            yield f"{shortened(record)} {change} after make setup: {ANEW}"


def read_own(path: Path) -> tuple[JsonObject, list[str]]:
    """Read a JSON object that `make setup` wrote, empty if it is missing; and its faults."""
    content = parse_object(path)
    damaged = content is None and path.is_file()
    return content or {}, [f"{path} is damaged: {ANEW}"] if damaged else []


def read_records(distributions: list[Path]) -> tuple[list[InstalledFile], list[str]]:
    """Return the files of all packages, and the faults of the RECORDs that list them."""
    listed: list[InstalledFile] = []
    faults: list[str] = []
    for record in (folder / "RECORD" for folder in distributions):
        if not record.is_file():
            faults.append(f"{shortened(record)} is missing: {ANEW}")
            continue
        text = read_whole(record).decode(errors="surrogateescape")
        for number, line in enumerate(text.rstrip("\n").split("\n"), 1):
            expected = _listed_file(record, line)
            if expected:
                listed.append(expected)
            else:
                place = f"{shortened(record)}:{number}"
                faults.append(f"{place} has no path, digest and size: {ANEW}")
    return listed, faults


def _listed_file(record: Path, line: str) -> InstalledFile | None:
    """Return what a line of a RECORD asks to compare; None if the line is damaged."""
    row = next(csv.reader([line]), [])  # each by itself: a lost quote eats no other line
    if len(row) != 3 or not row[0]:
        return None
    name, digest, size = row
    path = os.path.normpath(record.parent.parent / name)
    if name.endswith(".pyc") or path == str(record):  # their digests are not listed
        return InstalledFile(path)
    if not _DIGEST.fullmatch(digest) or not size.isdigit():
        return None
    return InstalledFile(path, digest, size)


def strays(folder: Path, listed: set[str]) -> Iterator[str]:
    """Name files and folders of the environment that no RECORD lists; of a folder only its name."""
    owned = {str(parent) for path in listed for parent in Path(path).parents}
    for place, folders, files in os.walk(folder):
        for name in sorted(folders):
            path = os.path.join(place, name)
            if os.path.islink(path) or (path not in owned and name != "__pycache__"):
                folders.remove(name)
                yield f"{shortened(path)} is a folder of no package: {ANEW}"
        for name in sorted(files):
            path = os.path.join(place, name)
            if path not in listed and source_of(path) not in listed:
                runs = name.endswith(".pth") or name.partition(".")[0] in AT_START
                does = ", and Python runs it at each start" if runs else ""
                yield f"{shortened(path)} is a file of no package{does}: {ANEW}"


def compare_files(listed: list[InstalledFile], quick: bool) -> Iterator[str]:
    """Compare files with their RECORDs, and compiled ones with their sources, on all processors."""
    if quick:
        sizes = [InstalledFile(each.path, size=each.size) for each in listed if each.size]
        yield from filter(None, map(file_fault, sizes))
        return
    # RECORD does not list what was compiled later, as in the image.
    sources = (expected.path for expected in listed if expected.path.endswith(".py"))
    compiled = (InstalledFile(cache_from_source(path, optimization="")) for path in sources)
    each_once = list(dict.fromkeys([*listed, *compiled]))
    try:
        with (
            ProcessPoolExecutor(initializer=_start_worker) as pool,
            progress("reading", len(each_once)) as advance,
        ):
            for fault in pool.map(file_fault, each_once, chunksize=32):
                advance(1)
                if fault:
                    yield fault
    except BrokenProcessPool as error:
        raise UserError("a process that read files was killed (memory?): try --quick") from error


def file_fault(expected: InstalledFile) -> str:
    """Say what is wrong with a file; nothing if it is as it was installed."""
    try:
        fault = _difference(expected)
    except (OSError, ValueError) as error:  # ValueError: a path that cannot be one
        reason = getattr(error, "strerror", None) or "unreadable"
        return f"{shortened(expected.path)}: {reason}: {ANEW}"
    return f"{shortened(expected.path)} {fault}: {ANEW}" if fault else ""


def _difference(expected: InstalledFile) -> str:
    """Say how a file differs from what is expected; nothing if it does not."""
    if expected.digest:
        algorithm, _, wanted = expected.digest.partition("=")
        with open(expected.path, "rb") as file:
            digest = hashlib.file_digest(file, algorithm).digest()
        same = urlsafe_b64encode(digest).rstrip(b"=").decode() == wanted
        return "" if same else "is not the file that was installed"
    if expected.size:
        size = os.stat(expected.path).st_size
        return "" if size == int(expected.size) else f"has {size} bytes, RECORD has {expected.size}"
    if expected.path.endswith(f".{sys.implementation.cache_tag}.pyc"):
        return compiled_fault(expected.path)
    return ""


def _start_worker() -> None:
    """Leave Ctrl-C to the first process, and keep quiet about warnings of the sources."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    warnings.simplefilter("ignore")


def shortened(path: str | Path) -> str:
    """Return a path as a person looks for it: below the environment, and printable."""
    text = os.path.relpath(path, sys.prefix) if str(path).startswith(sys.prefix) else str(path)
    return text.encode("utf-8", "backslashreplace").decode()
