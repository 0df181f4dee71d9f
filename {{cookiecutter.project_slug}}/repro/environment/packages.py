"""Whether what is installed is what the project says: lock, packages, their files, what leaks in.

Promises to name, a line each: a package that is not as locked; a file of a package that is not the
one that was installed, by its digest in the package's RECORD; a compiled file that is not what its
source compiles to; a file that no package brought (`.pth` and sitecustomize run at each start); a
RECORD that changed after `make setup`; packages from outside the environment; and what locks.py
finds. Nothing is written, and no package is imported but packaging, to compare versions, and rich,
for the bar: either may be what is missing.

The digests of the RECORDs are in the environment, where bootstrap.py writes them after the
hash-checked installation, and not in the repository: another Python has other wheels, and RECORDs.
So accidents and careless edits are found. Not found: who rewrites files, RECORDs and digests
together, and a change of Python's own library, which comes from the machine.
"""

import csv
import hashlib
import json
import marshal
import os
import re
import signal
import site
import sys
import sysconfig
import warnings
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import nullcontext
from dataclasses import dataclass
from importlib.util import MAGIC_NUMBER, cache_from_source, source_from_cache, source_hash
from itertools import takewhile
from pathlib import Path
from types import CodeType
from typing import Any

from repro.core.errors import UserError
from repro.core.hashing import sha256_file
from repro.environment.locks import LOCKS, NOTE, Pins, canonical, read_lock, requirements, settings

RECORDS, STAMP = "repro-records.json", "repro-setup.json"  # as in bootstrap.py
TOOLS = ("pip", "setuptools", "wheel")  # an environment may bring its own
AT_START = ("sitecustomize", "usercustomize")
ANEW = "delete the environment and run make setup"

_DIGEST = re.compile(r"sha(256|384|512)=[\w-]+")


@dataclass(frozen=True)
class Task:
    """A file to compare: by its digest, else by its size, else as a compiled file."""

    path: str
    digest: str = ""
    size: str = ""


def doctor(root: Path, quick: bool = False, lock_only: bool = False) -> int:
    """Print what is wrong, a line each, then how much was looked at; 1 if something is, else 0."""
    lines, looked_at = examine(root, quick, lock_only)
    for line in lines:
        print(line)
    faults = sum(not line.startswith(NOTE) for line in lines)
    verdict = f"{faults} fault{'s' * (faults > 1)}" if faults else "nothing is wrong"
    print(f"{verdict}: {looked_at}")
    return 1 if faults else 0


def examine(root: Path, quick: bool = False, lock_only: bool = False) -> tuple[list[str], str]:
    """What is wrong, and notes, a line each; and how much was looked at, in words."""
    if sys.prefix == sys.base_prefix and not Path(sys.prefix, "conda-meta").is_dir():
        raise UserError(f"{sys.executable} is in no environment: run make setup, then make doctor")
    if not (root / LOCKS[0]).is_file():
        raise UserError(f"{root / LOCKS[0]} is missing: restore it, or run make lock")
    folder = Path(sysconfig.get_path("purelib"))
    pins: dict[str, Pins] = {}
    lines = []
    for lock in LOCKS:
        pins[lock], found = read_lock(root / lock)
        lines += found
    distributions = sorted(folder.glob("*.dist-info"))
    lines += [*requirements(root, pins), *settings(root), *packages(root, pins, distributions)]
    looked_at = f"{len(set().union(*pins.values()))} locked packages"
    if not lock_only:
        tasks, found = read_records(distributions)
        lines += [*records(distributions), *outside(root, folder), *found]
        lines += [*strays(folder, {task.path for task in tasks}), *compare(tasks, quick)]
        how = "by existence and size" if quick else "by their digests"
        looked_at += f", {len(distributions)} installed ones, {len(tasks)} files {how}"
    return lines, looked_at


def packages(root: Path, pins: dict[str, Pins], distributions: list[Path]) -> Iterator[str]:
    """Each locked package is installed in its version, and nothing else is."""
    stamp, damage = _read_json(Path(sys.prefix, STAMP))
    yield from damage
    for lock, digest in zip(LOCKS, stamp.get("locks", ()), strict=False):
        if (root / lock).is_file() and sha256_file(root / lock) != digest:
            yield f"{lock} is not the one that the environment was made from: run make setup"
    installed: dict[str, str] = {}
    for folder in distributions:
        name, version = _name_and_version(folder)
        if not name or not version:
            yield f"{_short(folder)} has no METADATA with name and version: {ANEW}"
            continue
        if name in installed:
            yield f"{_short(folder)}: {name} is installed as {installed[name]} too: {ANEW}"
        installed[name] = version
    for name, pin in sorted({**pins[LOCKS[1]], **pins[LOCKS[0]]}.items()):
        found = installed.get(name)
        # The image and conda get no tools for development, and bring a pip of their own.
        required = name in pins[LOCKS[0]] or stamp
        if not found and not pin.marker and required:
            yield f"{pin.place}: {name} {pin.version} is locked and not installed: {ANEW}"
        other = found and pin.version not in (found, found.partition("+")[0])
        if other and (required or name not in TOOLS):
            yield f"{pin.place}: {name} {pin.version} is locked, {found} is installed: {ANEW}"
    for name in sorted(installed.keys() - pins[LOCKS[0]].keys() - pins[LOCKS[1]].keys()):
        if name not in TOOLS:
            yield f"{name} {installed[name]} is installed and in no lock: {ANEW}"


def records(distributions: list[Path]) -> Iterator[str]:
    """Each RECORD is the one that make setup saw."""
    path = Path(sys.prefix, RECORDS)
    digests, damage = _read_json(path)
    yield from damage
    if not path.is_file():
        yield f"{NOTE}{path} is missing (not set up by make setup): edited RECORDs are not found"
    elif not damage:
        for record in (folder / "RECORD" for folder in distributions):
            digest = digests.get(record.parent.name)
            if record.is_file() and sha256_file(record) != digest:
                yield f"{_short(record)} {'changed' if digest else 'came'} after make setup: {ANEW}"


def read_records(distributions: list[Path]) -> tuple[list[Task], list[str]]:
    """The files of all packages, and the faults of the RECORDs that list them."""
    tasks, faults = [], []
    for record in (folder / "RECORD" for folder in distributions):
        if not record.is_file():
            faults.append(f"{_short(record)} is missing: {ANEW}")
            continue
        text = record.read_text(encoding="utf-8", errors="surrogateescape")
        for number, line in enumerate(text.rstrip("\n").split("\n"), 1):
            row = next(csv.reader([line]), [])  # each by itself: a lost quote eats no other line
            name, digest, size = row if len(row) == 3 else ("", "", "")
            path = os.path.normpath(record.parent.parent / name)
            bare = name.endswith(".pyc") or path == str(record)
            if not name or not (bare or (_DIGEST.fullmatch(digest) and size.isdigit())):
                faults.append(f"{_short(record)}:{number} has no path, digest and size: {ANEW}")
            elif not bare:
                tasks.append(Task(path, digest, size))
            else:
                tasks.append(Task(path))
    return tasks, faults


def strays(folder: Path, listed: set[str]) -> Iterator[str]:
    """Files and folders of the environment that no RECORD lists; of a folder only its name."""
    owned = {str(parent) for path in listed for parent in Path(path).parents}
    for place, folders, files in os.walk(folder):
        for name in sorted(folders):
            path = os.path.join(place, name)
            if os.path.islink(path) or (path not in owned and name != "__pycache__"):
                folders.remove(name)
                yield f"{_short(path)} is a folder of no package: {ANEW}"
        for name in sorted(files):
            path = os.path.join(place, name)
            if path not in listed and _source(path) not in listed:
                runs = name.endswith(".pth") or name.partition(".")[0] in AT_START
                does = ", and Python runs it at each start" if runs else ""
                yield f"{_short(path)} is a file of no package{does}: {ANEW}"


def compare(tasks: list[Task], quick: bool) -> Iterator[str]:
    """Compare files with their RECORDs, and compiled ones with their sources, on all processors."""
    if quick:
        yield from filter(None, (check(Task(t.path, size=t.size)) for t in tasks if t.size))
        return
    # RECORD does not list what was compiled later, as in the image.
    sources = (task.path for task in tasks if task.path.endswith(".py"))
    compiled = (Task(cache_from_source(path, optimization="")) for path in sources)
    tasks = list(dict.fromkeys([*tasks, *compiled]))
    try:
        from repro.core.progress import progress
    except ImportError:  # rich may be what is missing
        bar: Any = nullcontext(lambda units: None)
    else:
        bar = progress("reading", len(tasks))
    try:
        with ProcessPoolExecutor(initializer=_start) as pool, bar as advance:
            for line in pool.map(check, tasks, chunksize=32):
                advance(1)
                if line:
                    yield line
    except BrokenProcessPool as error:
        raise UserError("a process that read files was killed (memory?): try --quick") from error


def check(task: Task) -> str:
    """What is wrong with a file, or nothing."""
    try:
        if task.digest:
            algorithm, _, expected = task.digest.partition("=")
            with open(task.path, "rb") as file:
                digest = hashlib.file_digest(file, algorithm).digest()
            if urlsafe_b64encode(digest).rstrip(b"=").decode() != expected:
                return f"{_short(task.path)} is not the file that was installed: {ANEW}"
        elif task.size:
            if (size := os.stat(task.path).st_size) != int(task.size):
                return f"{_short(task.path)} has {size} bytes, RECORD has {task.size}: {ANEW}"
        elif task.path.endswith(f".{sys.implementation.cache_tag}.pyc"):
            return _check_compiled(task.path)
    except (OSError, ValueError) as error:  # ValueError: a path that cannot be one
        reason = getattr(error, "strerror", None) or "unreadable"
        return f"{_short(task.path)}: {reason}: {ANEW}"
    return ""


def _check_compiled(path: str) -> str:
    """Whether the source gives this compiled file: for Python looks at the source's date only.

    Compared in marshal's version 2, where equal code is equal bytes (in later versions the bytes
    depend on what else the compiling process held). It leaves out what an instruction keeps from
    being run, so these bytes are looked for as they stand. Missing ones are no fault: Python does
    without.
    """
    source = _source(path)
    if not os.path.isfile(path) or not os.path.isfile(source):
        return ""  # a missing source has a line of its own
    data, text, status = Path(path).read_bytes(), Path(source).read_bytes(), os.stat(source)
    flags = int.from_bytes(data[4:8], "little")
    date = int(status.st_mtime) & 0xFFFFFFFF | (len(text) & 0xFFFFFFFF) << 32
    key = source_hash(text) if flags & 1 else date.to_bytes(8, "little")
    if data[:4] != MAGIC_NUMBER or flags > 3 or data[8:16] != key:
        return f"{_short(path)} is of another source or Python, by its header: {ANEW}"
    try:
        code = marshal.loads(data[16:])
        again = compile(text, code.co_filename, "exec", dont_inherit=True, optimize=0)
        same = marshal.dumps(code, 2) == marshal.dumps(again, 2) and _has_code(data, again)
    except Exception:  # damaged, or its source is, which has a line of its own
        same = False
    return "" if same else f"{_short(path)} is not what its source compiles to: {ANEW}"


def _has_code(data: bytes, code: CodeType) -> bool:
    """Whether a compiled file has the instructions of `code` and all within, in their order."""
    place, waiting = 16, [code]
    while waiting:
        code = waiting.pop(0)
        waiting[:0] = [each for each in code.co_consts if isinstance(each, CodeType)]
        found = data.find(code.co_code, place)
        if found < 0:
            return False
        place = found + len(code.co_code)
    return True


def outside(root: Path, folder: Path) -> Iterator[str]:
    """What can be imported beside the environment, Python's own library and the project."""
    library = Path(sysconfig.get_path("stdlib")).resolve()
    archive = library.parent / "python{}{}.zip".format(*sys.version_info)
    known = {library, library / "lib-dynload", archive, folder.resolve(), root.resolve()}
    variable = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    for entry in dict.fromkeys(sys.path):
        path = Path(entry)
        if path.resolve() in known or not path.exists():
            continue
        if entry == site.getusersitepackages():
            yield f"{entry} is the user's, and packages come from it: set PYTHONNOUSERSITE=1"
        elif names := _importable(path):
            remedy = "unset PYTHONPATH" if entry in variable else ANEW
            yield f"{entry} is outside the environment, and has {', '.join(names[:3])}: {remedy}"


def shadows(root: Path, folder: Path) -> Iterator[str]:
    """What would be imported instead of the environment's packages: it comes before them."""
    own = {name.partition(".")[0] for name in _importable(folder)} - {"__pycache__"}
    for entry in takewhile(lambda entry: Path(entry).resolve() != folder.resolve(), sys.path):
        path = Path(entry)
        if not path.exists() or path.resolve().is_relative_to(sysconfig.get_path("stdlib")):
            continue
        names = [name for name in _importable(path) if name.partition(".")[0] in own]
        names = [n for n in names if not (path / n).is_dir() or [*path.glob(f"{n}/__init__.*")]]
        if names:
            words = f"is imported before the environment, and has {', '.join(names[:3])}"
            yield f"{path} {words}: unset PYTHONPATH, or rename it"


def _importable(path: Path) -> list[str]:
    if path.is_file():
        return [path.name]  # an archive
    found = (p for p in path.iterdir() if p.suffix in (".py", ".so", ".pyc") or p.is_dir())
    return sorted(p.name for p in found if p.stem.partition(".")[0].isidentifier())


def _source(path: str) -> str:
    """The source of a compiled file, else nothing."""
    try:
        return source_from_cache(path) if path.endswith(".pyc") else ""
    except ValueError:  # beside its source, not in __pycache__: Python would import it
        return ""


def _start() -> None:
    """In each process: Ctrl-C is for the first one, and sources' warnings are not ours."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    warnings.simplefilter("ignore")


def _name_and_version(folder: Path) -> tuple[str, str]:
    """Of a distribution, from its METADATA, which may be damaged; empty where they are missing."""
    path = folder / "METADATA"
    text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    found = dict(re.findall(r"(?m)^(Name|Version): *(\S+)", text.partition("\n\n")[0]))
    return canonical(found.get("Name", "")), found.get("Version", "")


def _read_json(path: Path) -> tuple[dict[str, Any], list[str]]:
    """The object in a file, nothing if it is missing; and what is wrong with it."""
    try:
        found = json.loads(path.read_bytes()) if path.is_file() else {}
    except ValueError:
        found = None
    return (found, []) if isinstance(found, dict) else ({}, [f"{path} is damaged: {ANEW}"])


def _short(path: str | Path) -> str:
    """A path as a person looks for it: below the environment, without unprintable characters."""
    text = os.path.relpath(path, sys.prefix) if str(path).startswith(sys.prefix) else str(path)
    return text.encode("utf-8", "backslashreplace").decode()
