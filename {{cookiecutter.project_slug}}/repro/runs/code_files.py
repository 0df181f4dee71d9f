"""List the files of a project's code, which are conditions of its bits.

What nothing imports or reads is none: caches, environments, what editors leave beside a file, and
other checkouts of the project's own repository.
"""

import os
import re
from itertools import chain
from pathlib import Path

from repro.core.errors import refuse
from repro.core.layout import CODE, DATA, RESULTS, RUNS, TESTS
from repro.core.redaction import is_secret_file
from repro.core.special_files import fault_of_kind
from repro.core.stand_ins import OF_THE_DESKTOP
from repro.runs.checkouts import is_worktree

_NO_CODE = (TESTS, RUNS, DATA, RESULTS)
_OF_AN_ENVIRONMENT = ("pyvenv.cfg", "conda-meta")  # of venv and of conda
# What editors, merges and patches leave beside a file: nothing reads it.
_LEFT_BEHIND = re.compile(r".*~|#.*#|.*\.(orig|rej|bak|swp|swo)", re.IGNORECASE)


def code_files(root: Path) -> list[str]:
    """List all files of CODE, and Python files elsewhere in the project that training may import.

    The list is sorted. Caches, hidden files, environments, copies that editors and patches leave,
    and other checkouts of the same repository (git worktree) are left out; and bootstrap.py, which
    only makes environments. So are files of secrets: the digest of a short one can be guessed, and
    images have none of them. OSError for a folder of CODE that cannot be read, UserError for what
    is no file: a named pipe, a socket, a device.
    """
    paths: list[Path] = []

    def refuse_unreadable(error: OSError) -> None:
        if _is_of_code(Path(error.filename).relative_to(root)):
            raise error  # elsewhere it is no code: nothing can be imported from there

    linked = [root / name for name in CODE if (root / name).is_symlink()]
    walks = (os.walk(place, onerror=refuse_unreadable) for place in (root, *linked))
    for place, folders, files in chain.from_iterable(walks):
        here = Path(place).relative_to(root)
        folders[:] = [name for name in folders if _may_hold_code(root, here / name)]
        if here.name == "__pycache__":
            continue
        for name in files:
            is_no_code = _is_left_behind(name) or is_secret_file((here / name).as_posix())
            if not is_no_code and (_is_of_code(here) or name.endswith(".py")):
                paths.append(here / name)
    refuse([fault for path in sorted(paths) if (fault := fault_of_kind(root / path))])
    paths = [path for path in paths if (root / path).is_file() and path != Path("bootstrap.py")]
    return sorted(path.as_posix() for path in paths)


def _is_of_code(path: Path) -> bool:
    return path.parts[:1] in [(name,) for name in CODE]


def _may_hold_code(root: Path, folder: Path) -> bool:
    if folder.name[0] == "." or str(folder) in _NO_CODE or is_worktree(root, folder):
        return False
    # Path.exists would raise for a folder that may not be looked into, such as lost+found.
    return not any(os.path.exists(root / folder / mark) for mark in _OF_AN_ENVIRONMENT)


def _is_left_behind(name: str) -> bool:
    is_of_desktop = name[0] == "." or name.lower() in OF_THE_DESKTOP
    return is_of_desktop or _LEFT_BEHIND.fullmatch(name) is not None
