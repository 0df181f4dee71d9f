"""Read the locks, and check whether the files agree that say what is installed: Dockerfile, ...

Promises to name, by file and line: an entry of a lock without a version or a well-formed SHA-256,
or with a marker that cannot be read; a variable of the portable profile that Dockerfile,
environment.yml or Makefile set to something else; Pythons that do not fit together. A file that is
not there (the image has not all of them) is a note.
"""

import re
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from repro.core import machines
from repro.core.bounded import read_whole
from repro.environment.markers import is_needed
from repro.environment.profile import MARKER, PROFILES

LOCK = "requirements.lock"
TRACKER_LOCK = "requirements-tracker.lock"  # a project without a tracker has none
LOCKS = (LOCK, TRACKER_LOCK, "requirements-dev.lock")
NOTE = "note: "  # starts a line that is no fault

_PIN = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)(?:\[[^]]*\])?==([^\s;*\\]+)\s*(;[^\\]*)?(\\?)")
_HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}\s*(\\?)")
# How each file sets a variable.
_VARIABLES = {
    "Dockerfile": r'(?:ENV | +)(\w+)="([^"]*)".*',
    "environment.yml": r'  (\w+): "([^"]*)"',
    "Makefile": r"export (\w+) \??= (.*)",
}
# How each file says which Python it brings; an image says it by its Ubuntu, too.
_PYTHONS = {
    "Dockerfile": r"ARG BASE_IMAGE=.*(?:python:|ubuntu:?)(3\.\d+|\d\d\.\d\d).*",
    "environment.yml": r"  - python=(3\.\d+).*",
}
_UBUNTU = {"22.04": "3.10", "24.04": "3.12"}

Pins = dict[str, "Pin"]  # by name


@dataclass(frozen=True)
class Pin:
    """The version that a lock gives a package, and who needs it: `marker`, and whether we do."""

    place: str
    version: str
    marker: str = ""
    is_needed: bool = True  # on this machine


class Lock(NamedTuple):
    """What a lock pins, for other platforms too, and what is wrong with its lines."""

    pins: Pins
    faults: list[str]

    @property
    def needed(self) -> Pins:
        """What this machine needs of it."""
        return {name: pin for name, pin in self.pins.items() if pin.is_needed}


def read_lock(path: Path) -> Lock:
    """Read a lock: its pins, and a line for each entry without a version or a SHA-256."""
    pins: Pins = {}
    hashed: set[str] = set()
    faults: list[str] = []
    here = machines.this_machine()
    name = ""
    goes_on = False  # the line before ended with a backslash
    for number, line in numbered_lines(path):
        place = f"{path.name}:{number}"
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        pin = _PIN.fullmatch(text)
        digest = _HASH.fullmatch(text)
        if pin and not goes_on:
            name = canonical(pin[1])
            goes_on = bool(pin[4])
            if name in pins:
                faults.append(f"{place}: {name} is in {pins[name].place} already: run make lock")
            marker = (pin[3] or "").strip("; \t")
            pins[name], fault = _read_pin(place, pin[2], marker, here)
            faults += fault
        elif digest and goes_on:
            hashed.add(name)
            goes_on = bool(digest[1])
        else:
            wanted = "--hash=sha256: and 64 digits 0-9a-f" if goes_on else "NAME==VERSION"
            faults.append(f"{place}: found {text!r}, expected {wanted}: run make lock")
            hashed.add(name)  # the line above says it
            goes_on = text.endswith("\\")
    bare = [name for name in pins if name not in hashed]
    faults += [f"{pins[name].place}: {name} has no --hash: run make lock" for name in bare]
    return Lock(pins, faults)


def _read_pin(
    place: str, version: str, marker: str, here: machines.ThisMachine
) -> tuple[Pin, list[str]]:
    """Return a pin, as needed where its marker cannot be read, and then a line that says so."""
    try:
        return Pin(place, version, marker, is_needed(marker, here)), []
    except ValueError as error:
        fault = f"{place}: found the marker {marker!r}, {error}: change it in the .in file"
        return Pin(place, version, marker), [f"{fault}, run make lock"]


def locks_of(root: Path) -> list[str]:
    """Return the names of the locks that a project has, or should have."""
    return [lock for lock in LOCKS if lock != TRACKER_LOCK or (root / lock).is_file()]


def not_as_locked(lock: Path) -> dict[str, str]:
    """Name packages whose installed version is not the lock's: {"numpy": "2.5.2 (lock: 2.4.6)"}.

    What the lock has for other platforms is no difference.
    """
    versions = installed_versions()
    others = {}
    for name, pin in read_lock(lock).needed.items():
        installed = versions.get(name, "not installed")
        if not is_version(installed, pin.version):
            others[name] = f"{installed} (lock: {pin.version})"
    return others


def installed_versions() -> dict[str, str]:
    """Return the version of each package that can be imported, by its canonical name."""
    versions: dict[str, str] = {}
    for distribution in metadata.distributions():
        text = ""
        with suppress(UnicodeDecodeError):  # damaged, as one without a name is
            text = distribution.read_text("METADATA") or distribution.read_text("PKG-INFO") or ""
        name, version = name_and_version(text)
        if name and version:  # a broken installation has none
            versions.setdefault(name, version)  # the first one on sys.path is imported
    return versions


def name_and_version(text: str) -> tuple[str, str]:
    """Return what METADATA says, empty where it is damaged.

    importlib.metadata would parse the description, too: 5 times as long, at each training.
    """
    header = text.partition("\n\n")[0]
    fields = dict(re.findall(r"(?m)^(Name|Version): *(\S+)", header))
    return canonical(fields.get("Name", "")), fields.get("Version", "")


def is_version(installed: str, locked: str) -> bool:
    """Whether a package has its locked version, which may leave out a local part such as +cu130."""
    return locked in (installed, installed.partition("+")[0])


def profile_faults(root: Path) -> Iterator[str]:
    """Name variables of the portable profile, and Pythons, on which the files disagree."""
    pythons = {}
    for file, pattern in _VARIABLES.items():
        lines = numbered_lines(root / file)
        if not lines:
            yield f"{NOTE}{file} is not here, so it was not compared"
            continue
        yield from _faults_of_variables(file, pattern, lines)
        for number, line in lines:
            if match := re.fullmatch(_PYTHONS.get(file, "(?!)"), line):
                pythons[f"{file}:{number}"] = _UBUNTU.get(match[1], match[1])
    if len(set(pythons.values())) > 1:
        said = ", ".join(f"{place} has Python {python}" for place, python in pythons.items())
        yield f"{said}: make them agree"
    text = "\n".join(line for _, line in numbered_lines(root / "pyproject.toml"))
    span = re.search(r'requires-python = ">=3\.(\d+),<3\.(\d+)"', text)
    pythons[sys.executable] = "{}.{}".format(*sys.version_info)
    for place, python in pythons.items():
        minor = int(python.partition(".")[2])
        if span and not int(span[1]) <= minor < int(span[2]):
            yield f"{place}: found Python {python}, pyproject.toml has {span[0]}: make them agree"


def _faults_of_variables(file: str, pattern: str, lines: list[tuple[int, str]]) -> Iterator[str]:
    """Name what a file sets to something else than the table, and what it must set and does not.

    conda sets the same on every kind of machine, so environment.yml needs what each profile has.
    """
    table = {**PROFILES["portable"], MARKER: "portable"}
    missing = dict(PROFILES["native"] if file == "environment.yml" else table)
    for number, line in lines:
        match = re.fullmatch(pattern, line)
        if not match or match[1] not in table:
            continue
        name, value = match.groups()
        if value == table[name]:
            missing.pop(name, None)
        elif name != MARKER or value not in PROFILES:  # the other profiles are for other machines
            missing.pop(name, None)
            yield _disagrees(f"{file}:{number}", name, value, table[name])
    for name, wanted in missing.items():
        yield _disagrees(file, name, "missing", wanted)


def _disagrees(place: str, name: str, value: str, wanted: str) -> str:
    return f"{place}: {name} is {value}, repro/environment/profile.py has {wanted}: make them agree"


def numbered_lines(path: Path) -> list[tuple[int, str]]:
    """Read a file's lines with their numbers; none if it is missing, as some are in the image."""
    text = read_whole(path).decode(errors="replace") if path.is_file() else ""
    return list(enumerate(text.splitlines(), 1))


def canonical(name: str) -> str:
    """Return a package's name as PEP 503 normalizes it."""
    return re.sub(r"[-_.]+", "-", name).lower()
