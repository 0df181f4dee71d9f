"""Write the markers into a lock that pip-compile has made: the second half of `make lock`.

Promises that every package of the lock has its marker, or that the lock is not written: what no
marker can say is named, a line for each package. What a package needs is read by pip, from the same
index that the lock is made from.
"""

import re
import subprocess
import sys
import tempfile
from argparse import ArgumentParser
from collections.abc import Iterator
from pathlib import Path

from repro.core.bounded import LARGEST, read_text
from repro.core.errors import UserError
from repro.core.files import read_object, write_file
from repro.environment.lock_platforms import (
    Machine,
    Needs,
    find_needs,
    machines_of,
    platforms_of,
    this_platform,
)
from repro.environment.locks import Pins, canonical, read_lock
from repro.environment.requirements import InFile, read_requirements

# Those of pip-compile's options that say where packages come from: pip has them, too.
_SOURCES = (
    ("-i", "--index-url"),
    ("-f", "--find-links"),
    ("--extra-index-url",),
    ("--trusted-host",),
    ("--cert",),
)


def mark_lock(root: Path, name: str, options: list[str]) -> None:
    """Write NAME.lock from NAME.unmarked, which pip-compile made of NAME.in with `options`.

    UserError where a package cannot be placed; then the lock is what it was.
    """
    unmarked = root / f"{name}.unmarked"
    wanted = read_requirements(root / f"{name}.in")
    if wanted.faults:
        raise UserError([*wanted.faults, f"{name}.lock is not changed"])
    text = read_text(unmarked, LARGEST)
    pins = read_lock(unmarked).pins
    needs = _needs(pins, wanted, machines_of(root, unmarked), options)
    faults = [*_missing(name, pins, needs), *_unplaced(pins, needs)]
    if not faults:
        text = with_markers(text, pins, needs)
        unmarked.write_bytes(text.encode())
        faults = read_lock(unmarked).faults
    if faults:
        raise UserError([*faults, f"{name}.lock is not changed"])
    write_file(root / f"{name}.lock", text.encode())
    unmarked.unlink()


def _needs(pins: Pins, wanted: InFile, machines: list[Machine], options: list[str]) -> Needs:
    """Find out which machines need the packages; nothing is known of those that are no pins."""
    from packaging.requirements import Requirement

    texts = _read_metadata([f"{name}=={pin.version}" for name, pin in pins.items()], options)
    known = {name: [Requirement(text) for text in needed] for name, needed in texts.items()}
    return find_needs(wanted.requirements, known.get, machines)


def _read_metadata(packages: list[str], options: list[str]) -> dict[str, list[str]]:
    """Ask pip what each of these packages needs; nothing is installed."""
    with tempfile.TemporaryDirectory() as folder:
        asked = Path(folder, "asked.txt")
        asked.write_text("\n".join(packages))
        report = Path(folder, "report.json")
        command = [sys.executable, "-I", "-m", "pip", "install", "--quiet", "--dry-run"]
        command += ["--ignore-installed", "--no-deps", "--disable-pip-version-check"]
        command += [f"--report={report}", f"--requirement={asked}", *_sources(options)]
        if subprocess.run(command).returncode:
            raise UserError("pip cannot read what the packages need (see above): run make lock")
        installed = read_object(report).get("install")
    needs = {}
    for package in installed if isinstance(installed, list) else ():
        about = package.get("metadata") if isinstance(package, dict) else None
        needed = about.get("requires_dist") if isinstance(about, dict) else None
        if isinstance(about, dict):
            texts = needed if isinstance(needed, list) else []
            needs[canonical(str(about.get("name")))] = [str(text) for text in texts]
    return needs


def _sources(options: list[str]) -> list[str]:
    """Return those of pip-compile's options that say where packages come from."""
    parser = ArgumentParser(add_help=False, allow_abbrev=False)
    for names in _SOURCES:
        parser.add_argument(*names, action="append", default=[])
    found, _ = parser.parse_known_args(options)
    return [
        f"--{name.replace('_', '-')}={value}"
        for name, values in vars(found).items()
        for value in values
    ]


def _missing(lock: str, pins: Pins, needs: Needs) -> Iterator[str]:
    """Name what pip-compile left out, because this machine does not need it."""
    here = this_platform() or "this machine"
    for name in sorted(needs.machines.keys() - pins.keys()):
        platforms = needs.platforms(name)
        need = f"{needs.asked_by[name]} needs {name} on {', '.join(platforms)}"
        others = [other for other in platforms_of(needs.of) if other not in platforms]
        remedy = f"add {name} to {lock}.in"
        if others:
            remedy += f' (or platforms = "{", ".join(others)}" to [tool.repro] in pyproject.toml)'
        yield f"{need}, and pip-compile chose for {here}: {remedy}"


def _unplaced(pins: Pins, needs: Needs) -> Iterator[str]:
    """Name what no marker of ours places."""
    for name, pin in pins.items():
        if needs.marker(name, pin.marker) is None:
            platforms = (
                ", ".join(needs.platforms(name)) or f"none of {', '.join(platforms_of(needs.of))}"
            )
            expected = "expected all, or those of Linux: take another package"
            yield f"{pin.place}: {name} is needed on {platforms}, {expected}"


def with_markers(text: str, pins: Pins, needs: Needs) -> str:
    """Return a lock's text with each package's marker between its version and its hashes."""

    def marked(found: re.Match[str]) -> str:
        name = canonical(found["name"])
        marker = needs.marker(name, pins[name].marker)
        return f"{found['pin']} ; {marker} \\" if marker else f"{found['pin']} \\"

    return re.sub(r"(?m)^(?P<pin>(?P<name>[\w.-]+)==[^\s;]+)( *;[^\\\n]*)? \\$", marked, text)
