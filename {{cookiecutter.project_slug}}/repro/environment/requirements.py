"""Compare the .in files with their locks: what is asked for, what is locked, and for whom.

Promises to name, by file and line: what a .in file asks for and its lock does not give, or gives in
another version; what a lock has that nothing asks for; and, where all of it is installed, a package
whose marker says other platforms than the packages do. packaging reads the requirements.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from repro.core.special_files import resolved
from repro.environment.lock_platforms import (
    find_needs,
    installed_requires,
    machines_of,
    this_platform,
)
from repro.environment.locks import Pins, canonical, numbered_lines

if TYPE_CHECKING:  # a package that may be what is missing
    from packaging.requirements import Requirement


class Asked(NamedTuple):
    """A line of a .in file that asks for a package."""

    place: str
    text: str
    requirement: "Requirement"


class InFile(NamedTuple):
    """What a .in file asks for, and its faults: with one, more may be asked for."""

    asked: list[Asked]
    faults: list[str]

    @property
    def requirements(self) -> "list[Requirement]":
        """The requirements alone."""
        return [asked.requirement for asked in self.asked]


def requirement_faults(root: Path, pins: dict[str, Pins]) -> Iterator[str]:
    """Name each difference between the .in files and their locks' pins."""
    if not any((root / lock).with_suffix(".in").is_file() for lock in pins):
        return  # the image has the locks alone
    try:
        import packaging.requirements  # noqa: F401
    except ImportError:
        yield "packaging is not installed, so requirements.in was not compared: run make setup"
        return
    for lock, locked in pins.items():
        path = root / lock
        wanted = read_requirements(path.with_suffix(".in"))
        yield from wanted.faults
        for asked in wanted.asked:
            yield from _faults_of_request(asked, lock, locked)
        if wanted.asked and not wanted.faults and path.is_file():
            yield from _faults_of_needs(root, path, locked, wanted)


def read_requirements(path: Path, seen: tuple[Path, ...] = ()) -> InFile:
    """Read a .in file, and those that it names with -r; its constraints ask for nothing."""
    from packaging.requirements import InvalidRequirement, Requirement

    found = InFile([], [])
    for number, line in numbered_lines(path):
        place = f"{path.name}:{number}"
        text = re.sub(r"(^|\s)#.*", "", line).strip()
        more = re.fullmatch(r"(?:-r|--requirement)[ =]*(.+)", text)
        if more:
            named = resolved(path.parent / more[1])
            if not named.is_file():
                found.faults.append(f"{place}: found no file {more[1]}")
            elif named not in (*seen, resolved(path)):
                inside = read_requirements(named, (*seen, resolved(path)))
                found.asked.extend(inside.asked)
                found.faults.extend(inside.faults)
        elif text and not re.match("-(?!e|-editable)", text):
            try:
                found.asked.append(Asked(place, text, Requirement(text)))
            except InvalidRequirement:
                fault = f"found {text!r}, expected a package such as numpy or numpy>=2"
                found.faults.append(f"{place}: {fault}")
    return found


def _faults_of_request(asked: Asked, lock: str, locked: Pins) -> Iterator[str]:
    requirement = asked.requirement
    pin = locked.get(canonical(requirement.name))
    if not pin:
        if not requirement.marker or requirement.marker.evaluate():
            yield f"{asked.place}: {requirement.name} is not in {lock}: run make lock"
    elif not requirement.specifier.contains(pin.version, prereleases=True):
        allowed = f"{asked.text} does not allow {pin.version} ({pin.place})"
        yield f"{asked.place}: {allowed}: run make lock"


def _faults_of_needs(root: Path, lock: Path, locked: Pins, wanted: InFile) -> Iterator[str]:
    """Name what nothing asks for, and then markers that say other platforms than the packages.

    Neither where a package is not installed: what it needs is not known then. A Mac has none of
    those that are for Linux, so there markers are not compared.
    """
    needs = find_needs(wanted.requirements, installed_requires(), machines_of(root, lock))
    here = this_platform()
    if here is None or here in needs.unknown:
        return
    for name, pin in sorted(locked.items()):
        if name not in needs.machines:
            if pin.is_needed:
                fault = f"{lock.with_suffix('.in').name} does not ask for {name}"
                yield f"{pin.place}: {fault}, nor does a package: run make lock"
        elif not needs.unknown and needs.marker(name, pin.marker) != pin.marker:
            platforms = ", ".join(needs.platforms(name))
            marker = f"the marker {pin.marker!r}" if pin.marker else "no marker"
            yield f"{pin.place}: {name} has {marker}, needed on {platforms}: run make lock"
