"""Tell which file systems change a file's time of change with every change of its bytes.

Only those are trusted that are known to do so, on this machine alone. Not trusted, each for a
reason: tmpfs (a write through a mapping changes no time: measured), FAT (no such time), network
file systems (another machine's clock and its view of a file), FUSE and what is shared with a
virtual machine (whatever the program behind it says), overlay (as its upper layer, which cannot be
seen from inside a container).
"""

import os
import re
from pathlib import Path

_TRUSTED = {"ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs"}
_MOUNTS = Path("/proc/self/mountinfo")
_BOOT = Path("/proc/sys/kernel/random/boot_id")


def untrusted_kind(path: Path) -> str:
    """Return the kind of the file system that a file lies on; "" for one that is trusted."""
    kind = _kind(os.path.realpath(path))
    return "" if kind in _TRUSTED else kind


def _kind(path: str) -> str:
    """Return the kind of the file system, by the longest mount point that the path begins with."""
    try:
        lines = _MOUNTS.read_text("utf-8", "surrogateescape").splitlines()
    except OSError:
        return "a file system of unknown kind"
    best = ("", "a file system of unknown kind")
    for line in lines:
        mount, _, about = line.partition(" - ")
        point = re.sub(r"\\(\d{3})", lambda code: chr(int(code[1], 8)), mount.split()[4])
        is_above = path == point or path.startswith(point.rstrip("/") + "/")
        if is_above and len(point) >= len(best[0]):  # of two at one place the later one is on top
            best = (point, about.split()[0])
    return best[1]


def boot_id() -> str:
    """Return what identifies this start of the machine; "" where that is not known."""
    try:
        return _BOOT.read_text("ascii").strip()
    except (OSError, ValueError):
        return ""
