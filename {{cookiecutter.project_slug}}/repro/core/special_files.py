"""Name what lies in the place of a file and is none: a named pipe, a socket, a device.

Opening or reading one of them may wait for ever. Whoever reads what somebody else has put there
asks here first, and gives the user a line instead. A link counts as what it leads to.
"""

from __future__ import annotations  # `make image-digest` runs with older Pythons, too

import stat
from pathlib import Path

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
