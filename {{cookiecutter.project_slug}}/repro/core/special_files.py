"""Name what lies in the place of a file and is none, instead of waiting for it for ever."""

from __future__ import annotations  # `make image-digest` runs with older Pythons, too

import stat
from pathlib import Path

# What looks like a file in a listing and is none: to open it may wait for ever, to read never end.
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
