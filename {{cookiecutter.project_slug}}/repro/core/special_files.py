"""Name what lies in the place of a file and is none: a named pipe, a device, a link to itself.

Opening or reading one of them may wait for ever. Whoever reads what somebody else has put there
asks here first, and gives the user a line instead. A link counts as what it leads to.
"""

from __future__ import annotations  # `make image-digest` runs with older Pythons, too

import errno
import os
import stat
from pathlib import Path

from repro.core.errors import UserError

_NO_FILES = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def fault_of_kind(path: Path) -> str | None:
    """Say that a path is a named pipe, a socket or a device; None if not, or if it is not there."""
    try:
        kind = _NO_FILES.get(stat.S_IFMT(path.stat().st_mode))
    except OSError:
        return None
    return f"{path} is {kind}: expected a file; move it away" if kind else None


def resolved(path: Path) -> Path:
    """Return a path without links; UserError for one that comes back to itself.

    Path.resolve raises a RuntimeError for it, or nothing, as the version of Python will have it.
    """
    real = Path(os.path.realpath(path))
    try:
        real.stat()
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise UserError(
                f"{path}: a link on the way leads back to itself: expected one that ends at a file "
                "or a folder; remove it"
            ) from error
    return real
