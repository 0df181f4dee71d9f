"""Find out which platforms need each package of a lock.

pip-compile chooses for the machine that it runs on, and writes no marker for a package that only
marked requirements bring: torch asks for CUDA's packages on Linux alone, but without a marker the
lock fits no Mac. Here all requirements are followed, from the .in file on, as each supported
platform and Python would follow them; packaging evaluates their markers. Promises that a marker
says what the packages say; a set of platforms that no marker stands for is None, never a guess.
"""

import re
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from platform import python_version
from typing import TYPE_CHECKING, NamedTuple

from repro.core import machines
from repro.core.bounded import read_whole
from repro.core.errors import UserError
from repro.environment.locks import canonical

if TYPE_CHECKING:  # a package that may be what is missing
    from packaging.requirements import Requirement

# What a package needs; None where that is not known.
Requires = Callable[[str], "list[Requirement] | None"]

_X86 = "Linux x86-64"
_ARM = "Linux aarch64"
_MAC = "macOS arm64"
# What markers ask for: sys_platform, platform_system, platform_machine.
PLATFORMS = {
    _X86: ("linux", "Linux", "x86_64"),
    _ARM: ("linux", "Linux", "aarch64"),
    _MAC: ("darwin", "Darwin", "arm64"),
}
# Of a package that not all need. A lock is made on Linux: none of its packages is for macOS alone.
_MARKERS = {
    frozenset({_X86, _ARM}): 'sys_platform == "linux"',
    frozenset({_X86}): 'sys_platform == "linux" and platform_machine == "x86_64"',
    frozenset({_ARM}): 'sys_platform == "linux" and platform_machine == "aarch64"',
}


class Machine(NamedTuple):
    """A platform and the minor version of a Python 3 on it, for which a lock is."""

    platform: str
    minor: int

    def environment(self) -> dict[str, str]:
        """Return what markers ask for on such a machine."""
        asked = ("sys_platform", "platform_system", "platform_machine")
        return {
            **dict(zip(asked, PLATFORMS[self.platform], strict=True)),
            "os_name": "posix",
            "implementation_name": "cpython",
            "platform_python_implementation": "CPython",
            "python_version": f"3.{self.minor}",
            "python_full_version": self._full_version(),
            "platform_release": "",
            "platform_version": "",
            "extra": "",
        }

    def _full_version(self) -> str:
        """Return this Python's version, as pip-compile takes it, or a late one of another minor."""
        here = self.minor == sys.version_info.minor
        return python_version() if here else f"3.{self.minor}.99"


@dataclass
class Needs:
    """The machines that need each package, one who asks for it, and where not all is known."""

    of: list[Machine]  # all that the lock is for
    machines: dict[str, set[Machine]] = field(default_factory=dict)
    asked_by: dict[str, str] = field(default_factory=dict)
    unknown: set[str] = field(default_factory=set)  # platforms

    def platforms(self, name: str) -> list[str]:
        """Return the platforms that need a package."""
        return platforms_of(self.machines.get(name, ()))

    def marker(self, name: str, present: str) -> str | None:
        """Return the marker that a package has to have; None where there is none that fits.

        One that is there and holds wherever the package is needed stays: the author's .in file may
        say more than the packages do.
        """
        from packaging.markers import InvalidMarker, Marker

        machines = self.machines.get(name, set())
        with suppress(InvalidMarker):  # an empty one too; the lock's reader says so
            marker = Marker(present)
            if all(marker.evaluate(machine.environment()) for machine in machines):
                return present
        platforms = self.platforms(name)
        return "" if platforms == platforms_of(self.of) else _MARKERS.get(frozenset(platforms))


def platforms_of(machines: Iterable[Machine]) -> list[str]:
    """Return the platforms of some machines, each once."""
    found = {machine.platform for machine in machines}
    return [platform for platform in PLATFORMS if platform in found]


def find_needs(wanted: "list[Requirement]", requires: Requires, machines: list[Machine]) -> Needs:
    """Follow requirements as each of these machines would."""
    needs = Needs(machines)
    for machine in machines:
        for name, by in _follow(wanted, requires, machine.environment()).items():
            needs.machines.setdefault(name, set()).add(machine)
            needs.asked_by.setdefault(name, by)
            if requires(name) is None:
                needs.unknown.add(machine.platform)
    return needs


def _follow(
    wanted: "list[Requirement]", requires: Requires, environment: dict[str, str]
) -> dict[str, str]:
    """Return the packages that a machine needs, and who asks for each."""
    asked_by: dict[str, str] = {}
    extras: dict[str, set[str]] = {}
    waiting = [(asked, "the .in file", {""}) for asked in wanted]
    for asked, by, of_extras in waiting:  # grows on the way
        environments = [{**environment, "extra": extra} for extra in of_extras]
        if asked.marker and not any(asked.marker.evaluate(each) for each in environments):
            continue
        name = canonical(asked.name)
        wanted_extras = {"", *(canonical(extra) for extra in asked.extras)}
        if wanted_extras <= extras.get(name, set()):
            continue
        asked_by.setdefault(name, by)
        extras.setdefault(name, set()).update(wanted_extras)
        waiting += [(needed, name, extras[name]) for needed in requires(name) or ()]
    return asked_by


def this_platform() -> str | None:
    """Return the name of this machine's platform; None where no lock is made for it."""
    machine = machines.this_machine()
    here = (machine.system, machine.kernel, machine.architecture)
    return next((name for name, values in PLATFORMS.items() if values == here), None)


def machines_of(root: Path, lock: Path) -> list[Machine]:
    """Return the machines that a lock is for; UserError for a platform that is none of ours.

    pyproject.toml names the Pythons, and the platforms where they are not all. A lock fits the
    Python that it was compiled on, and newer ones.
    """
    project = root / "pyproject.toml"
    text = read_whole(project).decode(errors="replace") if project.is_file() else ""
    platforms = list(PLATFORMS)
    if chosen := re.search(r'(?m)^platforms = "(.*)"', text):
        platforms = [name.strip() for name in chosen[1].split(",")]
    if not PLATFORMS.keys() >= set(platforms):
        expected = f"expected some of {', '.join(PLATFORMS)}"
        raise UserError(f"pyproject.toml: found the platforms {', '.join(platforms)}, {expected}")
    span = re.search(r'requires-python = ">=3\.(\d+),<3\.(\d+)"', text)
    made = re.search(rb"pip-compile with Python 3\.(\d+)", read_whole(lock))
    here = sys.version_info.minor
    first, end = (int(span[1]), int(span[2])) if span else (here, here + 1)
    minors = range(max(first, int(made[1]) if made else first), end)
    return [Machine(platform, minor) for platform in platforms for minor in minors]


def installed_requires() -> Requires:
    """Return what says what a package needs, of those that are installed."""
    from packaging.requirements import Requirement

    known: dict[str, list[Requirement] | None] = {}

    def requires(name: str) -> "list[Requirement] | None":
        if name not in known:
            try:
                known[name] = [Requirement(text) for text in metadata.requires(name) or ()]
            except Exception:  # not installed, or its METADATA is damaged, which has its own line
                known[name] = None
        return known[name]

    return requires
