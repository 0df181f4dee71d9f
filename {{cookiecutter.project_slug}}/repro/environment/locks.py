"""Whether the files agree that say what is installed: requirements.in, locks, Dockerfile, ...

Promises to name, by file and line: an entry of a lock without a version or a well-formed SHA-256;
what requirements.in asks for and the lock does not give, and the reverse; a variable of the
portable profile that Dockerfile, environment.yml or Makefile set to something else; Pythons that do
not fit together. A file that is not there (the image has not all of them) is a note. packaging
compares the versions.
"""

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from repro.environment.profile import MARKER, PROFILES

LOCKS = ("requirements.lock", "requirements-dev.lock")
NOTE = "note: "  # starts a line that is no fault

_PIN = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)(?:\[[^]]*\])?==([^\s;*\\]+)\s*(;[^\\]*)?(\\?)")
_HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}\s*(\\?)")
# How each file sets a variable.
_SETTINGS = {
    "Dockerfile": r'(?:ENV | +)(\w+)="([^"]*)".*',
    "environment.yml": r'  (\w+): "([^"]*)"',
    "Makefile": r"export (\w+) \?= (.*)",
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
    """A lock's word on a package; a marker may say that some Pythons do without it."""

    place: str
    version: str
    marker: str


def read_lock(path: Path) -> tuple[Pins, list[str]]:
    """The pins of a lock, and its faults: each entry has a version and a SHA-256."""
    pins: Pins = {}
    hashed, faults = set(), []
    name, goes_on = "", False
    for number, line in _lines(path):
        place, text = f"{path.name}:{number}", line.strip()
        if not text or text.startswith("#"):
            continue
        pin, digest = _PIN.fullmatch(text), _HASH.fullmatch(text)
        if pin and not goes_on:
            name, goes_on = canonical(pin[1]), bool(pin[4])
            if name in pins:
                faults.append(f"{place}: {name} is in {pins[name].place} already: run make lock")
            pins[name] = Pin(place, pin[2], pin[3] or "")
        elif digest and goes_on:
            hashed.add(name)
            goes_on = bool(digest[1])
        else:
            wanted = "--hash=sha256: and 64 digits 0-9a-f" if goes_on else "NAME==VERSION"
            faults.append(f"{place}: found {text!r}, expected {wanted}: run make lock")
            hashed.add(name)  # the line above says it
            goes_on = text.endswith("\\")
    bare = [name for name in pins if name not in hashed]
    return pins, faults + [f"{pins[n].place}: {n} has no --hash: run make lock" for n in bare]


def requirements(root: Path, pins: dict[str, Pins]) -> Iterator[str]:
    """What the .in files ask for is locked, at a version that they allow, and nothing else is."""
    try:
        from packaging.requirements import InvalidRequirement, Requirement
    except ImportError:
        yield "packaging is not installed, so requirements.in was not compared: run make setup"
        return
    for lock, locked in pins.items():
        path, wanted, known = (root / lock).with_suffix(".in"), [], True
        for number, line in _lines(path):
            text, place = re.sub(r"(^|\s)#.*", "", line).strip(), f"{path.name}:{number}"
            if not text or text.startswith("-"):
                known &= re.match("-r|-e|--re|--ed", text) is None  # more is asked for elsewhere
                continue
            try:
                asked = Requirement(text)
            except InvalidRequirement:
                known = False
                yield f"{place}: found {text!r}, expected a package such as numpy or numpy>=2"
                continue
            wanted.append(asked)
            pin = locked.get(canonical(asked.name))
            if not pin and (not asked.marker or asked.marker.evaluate()):
                yield f"{place}: {asked.name} is not in {lock}: run make lock"
            if pin and not asked.specifier.contains(pin.version, prereleases=True):
                yield f"{place}: {text} does not allow {pin.version} ({pin.place}): run make lock"
        for name in unasked(locked, wanted) if wanted and known else ():
            words = f"{path.name} does not ask for {name}, nor does a package"
            yield f"{locked[name].place}: {words}: run make lock"


def unasked(locked: Pins, wanted: list[Any]) -> list[str]:
    """What a lock has beside the packages of `wanted` and what the installed ones need.

    Nothing where one of those is not installed: what it needs is not known then. Of a marker only
    the extra counts, for one lock serves several Pythons.
    """
    seen: dict[str, set[str]] = {}  # names and their extras
    for asked in wanted:  # grows on the way
        name, extras = canonical(asked.name), set(map(canonical, asked.extras))
        if name in seen and extras <= seen[name]:
            continue
        seen.setdefault(name, set()).update(extras)
        try:
            for each in map(type(asked), metadata.requires(name) or ()):
                only = re.findall(r"""extra == ["']([^"']+)""", str(each.marker or ""))
                if not only or extras & set(map(canonical, only)):
                    wanted.append(each)
        except Exception:  # not installed, or its METADATA is damaged, which has a line of its own
            if not asked.marker and not (name in locked and locked[name].marker):
                return []
    return sorted(locked.keys() - seen.keys())


def settings(root: Path) -> Iterator[str]:
    """The portable profile is the same in every file that sets it, and so is Python's version."""
    pythons = {}
    for file, pattern in _SETTINGS.items():
        lines = list(_lines(root / file))
        if not lines:
            yield f"{NOTE}{file} is not here, so it was not compared"
            continue
        found = {m[1]: (n, m[2]) for n, line in lines if (m := re.fullmatch(pattern, line))}
        for name, value in {**PROFILES["portable"], MARKER: "portable"}.items():
            number, here = found.get(name, (0, "missing"))
            place = f"{file}:{number}" if number else file
            if here != value:
                wanted = f"repro/environment/profile.py has {value}"
                yield f"{place}: {name} is {here}, {wanted}: make them agree"
        for number, line in lines:
            if match := re.fullmatch(_PYTHONS.get(file, "(?!)"), line):
                pythons[f"{file}:{number}"] = _UBUNTU.get(match[1], match[1])
    said = ", ".join(f"{place} has Python {version}" for place, version in pythons.items())
    if len(set(pythons.values())) > 1:
        yield f"{said}: make them agree"
    text = "\n".join(line for _, line in _lines(root / "pyproject.toml"))
    span = re.search(r'requires-python = ">=3\.(\d+),<3\.(\d+)"', text)
    for place, python in {**pythons, sys.executable: "{}.{}".format(*sys.version_info)}.items():
        if span and not int(span[1]) <= int(python.partition(".")[2]) < int(span[2]):
            yield f"{place}: found Python {python}, pyproject.toml has {span[0]}: make them agree"


def _lines(path: Path) -> list[tuple[int, str]]:
    """A file's lines with their numbers; none if it is missing (the image has not all of them)."""
    text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    return list(enumerate(text.splitlines(), 1))


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


LOCK = "requirements.lock"


def not_as_locked(lock: Path) -> dict[str, str]:
    """Packages whose installed version is not the lock's, e.g. {"numpy": "2.5.2 (lock: 2.4.6)"}."""
    found = {}
    for name, locked in re.findall(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)", lock.read_text(), re.M):
        try:
            installed = version(name)
        except PackageNotFoundError:
            installed = "not installed"
        if locked not in (installed, installed.partition("+")[0]):
            found[name] = f"{installed} (lock: {locked})"
    return found
