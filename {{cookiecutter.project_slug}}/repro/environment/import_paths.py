"""Find what can be imported from outside the environment, or comes before its packages.

Both come in by sys.path: PYTHONPATH, the user's own packages, a `.pth` file, the folder that a
program was started in. Promises to name the place, the first modules in it and the remedy, without
importing anything. `folder` is where the environment's packages lie (sysconfig's purelib).
"""

import os
import site
import sys
import sysconfig
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path

from repro.core.text import listed
from repro.environment.installed_files import ANEW

_MODULES = (".py", ".so", ".pyc")


def _real(path: str | Path) -> Path:
    """Return a path without links; one that leads back to itself is nothing to be imported."""
    return Path(os.path.realpath(path))


def outside(root: Path, folder: Path) -> Iterator[str]:
    """Name what can be imported beside the environment, Python's own library and the project."""
    library = _real(sysconfig.get_path("stdlib"))
    archive = library.parent / "python{}{}.zip".format(*sys.version_info)
    known = {library, library / "lib-dynload", archive, _real(folder), _real(root)}
    variable = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    for place in dict.fromkeys(sys.path):
        path = Path(place)
        if _real(path) in known or not path.exists():
            continue
        if place == site.getusersitepackages():
            yield f"{place} is the user's, and packages come from it: set PYTHONNOUSERSITE=1"
        elif names := _importable(path):
            remedy = "unset PYTHONPATH" if place in variable else ANEW
            yield f"{place} is outside the environment, and has {listed(names)}: {remedy}"


def shadows(root: Path, folder: Path) -> Iterator[str]:
    """Name what would be imported instead of the environment's packages: it comes before them."""
    packages = {name.partition(".")[0] for name in _importable(folder)} - {"__pycache__"}
    for place in takewhile(lambda place: _real(place) != _real(folder), sys.path):
        path = Path(place)
        if not path.exists() or _real(path).is_relative_to(sysconfig.get_path("stdlib")):
            continue
        names = [
            name
            for name in _importable(path)
            if name.partition(".")[0] in packages and not _is_bare_folder(path / name)
        ]
        if names:
            before = f"is imported before the environment, and has {listed(names)}"
            yield f"{path} {before}: unset PYTHONPATH, or rename it"


def _is_bare_folder(path: Path) -> bool:
    """Whether this is a folder without an `__init__`, which hides no package."""
    return path.is_dir() and not any(path.glob("__init__.*"))


def _importable(path: Path) -> list[str]:
    """Return the names of what can be imported from a folder or an archive of sys.path."""
    if path.is_file():
        return [path.name]  # an archive
    names = [below.name for below in path.iterdir() if below.suffix in _MODULES or below.is_dir()]
    return sorted(name for name in names if _is_module_name(name))


def _is_module_name(name: str) -> bool:
    return Path(name).stem.partition(".")[0].isidentifier()
