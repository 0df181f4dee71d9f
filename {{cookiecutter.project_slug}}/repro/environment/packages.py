"""Check whether what is installed is what the project says: lock, packages, files, what leaks in.

Promises to name, a line each: a package that is not as locked; what `installed_files` finds in the
files of the packages; packages from outside the environment; and what `locks` finds. Nothing is
written, and no package is imported but packaging, to compare versions, and rich, for the bar:
either may be what is missing.
"""

import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from repro.core.bounded import read_whole
from repro.core.errors import UserError
from repro.core.hashing import sha256_file
from repro.environment.import_paths import outside
from repro.environment.installed_files import (
    ANEW,
    compare_files,
    read_own,
    read_records,
    record_faults,
    shortened,
    strays,
)
from repro.environment.locks import (
    LOCK,
    NOTE,
    TRACKER_LOCK,
    Pin,
    Pins,
    is_version,
    locks_of,
    name_and_version,
    profile_faults,
    read_lock,
)
from repro.environment.requirements import requirement_faults

STAMP = "repro-setup.json"  # as in bootstrap.py
TOOLS = ("pip", "setuptools", "wheel")  # an environment may bring its own


class Examination(NamedTuple):
    """What is wrong, and notes, a line each; and how much was looked at, in words."""

    lines: list[str]
    looked_at: str

    @property
    def faults(self) -> list[str]:
        """The lines that say what is wrong: not the notes."""
        return [line for line in self.lines if not line.startswith(NOTE)]


def doctor(root: Path, quick: bool = False, lock_only: bool = False) -> int:
    """Print what is wrong, a line each, then how much was looked at; 1 if something is, else 0."""
    examined = examine(root, quick, lock_only)
    for line in examined.lines:
        print(line)
    faults = len(examined.faults)
    if not faults:
        print(f"nothing is wrong: {examined.looked_at}")
        return 0
    print(f"{faults} fault{'s' if faults > 1 else ''}: {examined.looked_at}")
    return 1


def examine(root: Path, quick: bool = False, lock_only: bool = False) -> Examination:
    """Compare the environment with the locks; `quick` by sizes, `lock_only` without its files."""
    if sys.prefix == sys.base_prefix and not Path(sys.prefix, "conda-meta").is_dir():
        raise UserError(f"{sys.executable} is in no environment: run make setup, then make doctor")
    if not (root / LOCK).is_file():
        raise UserError(f"{root / LOCK} is missing: restore it, or run make lock")
    folder = Path(sysconfig.get_path("purelib"))
    distributions = sorted(folder.glob("*.dist-info"))
    locks = {lock: read_lock(root / lock) for lock in locks_of(root)}
    pins = {name: lock.pins for name, lock in locks.items()}
    needed = {name: lock.needed for name, lock in locks.items()}
    lines = [fault for lock in locks.values() for fault in lock.faults]
    lines += [*requirement_faults(root, pins), *profile_faults(root)]
    lines += package_faults(root, pins, distributions)
    looked_at = f"{len(set().union(*needed.values()))} locked packages"
    if not lock_only:
        tasks, damaged = read_records(distributions)
        lines += [*record_faults(distributions), *outside(root, folder), *damaged]
        lines += [*strays(folder, {task.path for task in tasks}), *compare_files(tasks, quick)]
        how = "by existence and size" if quick else "by their digests"
        looked_at += f", {len(distributions)} installed ones, {len(tasks)} files {how}"
    return Examination(lines, looked_at)


def package_faults(root: Path, pins: dict[str, Pins], distributions: list[Path]) -> list[str]:
    """Name each locked package that is not installed in its version, and each one in no lock.

    One that the locks have for other platforms only is as good as in none.
    """
    stamp, faults = read_own(Path(sys.prefix, STAMP))
    digests = stamp.get("locks")
    names = locks_of(root)
    for lock, digest in zip(names, digests if isinstance(digests, list) else (), strict=False):
        if (root / lock).is_file() and sha256_file(root / lock) != digest:
            faults.append(
                f"{lock} is not the one that the environment was made from: run make setup"
            )
    installed, damaged = _installed_versions(distributions)
    faults += damaged
    known: Pins = {}
    for lock in reversed(names):  # requirements.lock is the first one: its pins are shown
        known.update({name: pin for name, pin in pins[lock].items() if pin.is_needed})
    for name, pin in sorted(known.items()):
        # The image and conda get no tools for development, and bring a pip of their own.
        required = name in pins[LOCK] or name in pins.get(TRACKER_LOCK, {}) or bool(stamp)
        faults += _faults_of_pin(name, pin, installed.get(name), required)
    elsewhere = set().union(*pins.values())
    for name in sorted(installed.keys() - known.keys() - {*TOOLS}):
        why = "locked for other platforms only" if name in elsewhere else "in no lock"
        faults.append(f"{name} {installed[name]} is installed and {why}: {ANEW}")
    return faults


def _faults_of_pin(name: str, pin: Pin, installed: str | None, required: bool) -> Iterator[str]:
    locked = f"{pin.place}: {name} {pin.version} is locked"
    if not installed:
        if required:
            yield f"{locked} and not installed: {ANEW}"
    elif not is_version(installed, pin.version) and (required or name not in TOOLS):
        yield f"{locked}, {installed} is installed: {ANEW}"


def _installed_versions(distributions: list[Path]) -> tuple[dict[str, str], list[str]]:
    """Return the version of each package in the environment, and what is damaged or doubled."""
    installed: dict[str, str] = {}
    faults = []
    for folder in distributions:
        path = folder / "METADATA"
        text = read_whole(path).decode(errors="replace") if path.is_file() else ""
        name, version = name_and_version(text)
        if not name or not version:
            faults.append(f"{shortened(folder)} has no METADATA with name and version: {ANEW}")
            continue
        if name in installed:
            twice = f"{name} is installed as {installed[name]} too"
            faults.append(f"{shortened(folder)}: {twice}: {ANEW}")
        installed[name] = version
    return installed, faults
