"""Say what a container of the project's image does not keep, and whose its folders are.

The Dockerfile sets REPRO_IN_IMAGE. Outside of the image nothing here says anything.
"""

from __future__ import annotations  # `make image-digest` runs with older Pythons, too

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from repro.core.special_files import resolved

MARK = "REPRO_IN_IMAGE"
# What Docker and podman call a volume that nobody has named: `--rm` removes it.
_ANONYMOUS = re.compile(r"/[0-9a-f]{64}/_data$")
_OF_A_POD = "/kubernetes.io~empty-dir/"  # goes with its pod
_IN_MEMORY = ("tmpfs", "ramfs")
_MOUNTS = Path("/proc/self/mountinfo")


class _Mount(NamedTuple):
    """A line of mountinfo, see proc(5): what is mounted `at` a folder."""

    root: str  # the folder in its own file system
    at: Path
    options: str
    kind: str


def is_ours() -> bool:
    """Tell whether this is a container of the project's image."""
    return bool(os.environ.get(MARK))


def fault_of_keeping(folder: Path) -> str | None:
    """Say that a folder goes with this container, and how it stays; None if it stays."""
    if not is_ours():
        return None
    mount = _mount_of(folder.absolute())
    if mount is None:
        return None
    if mount.at == Path("/"):
        where = "is of this container alone"
    elif _ANONYMOUS.search(mount.root):
        where = "is a volume without a name, which goes with this container"
    elif mount.kind in _IN_MEMORY or _OF_A_POD in mount.root:
        where = "is in memory, or of this pod alone"
    else:
        return None
    return f"{folder} {where}: runs are kept only with a mount or a named volume: {_command()}"


def fault_of_writing(folder: Path) -> str | None:
    """Say why this container cannot write to a folder, and what to do; None if it can."""
    there = next(place for place in (folder, *folder.parents) if place.exists())
    if not is_ours() or os.access(there, os.W_OK):
        return None
    mount = _mount_of(there.absolute())
    if mount and "ro" in mount.options.split(","):
        if mount.at == Path("/"):
            return f"{there} is read-only in this container: mount a folder there: {_command()}"
        return f"{there} is mounted read-only: leave out its :ro (or readonly)"
    return f"{there} cannot be written to{_of_another(there)}"


def remedy_of_permission(path: object) -> str:
    """Return what follows "Permission denied" about a path; empty outside of the image."""
    if not is_ours() or not isinstance(path, (str, bytes, os.PathLike)):
        return ""
    name = Path(os.fsdecode(path))
    there = next((place for place in (name, *name.parents) if place.exists()), Path("/"))
    return _of_another(there)


def _of_another(folder: Path) -> str:
    """Say whose a folder is, and how the container gets that user."""
    owner = folder.stat()
    said = f": it is of user {owner.st_uid}:{owner.st_gid}, and this container is {os.geteuid()}"
    if owner.st_uid == 0:  # docker makes a folder that is not there yet
        return f'{said}: give it to yourself (sudo chown "$(id -u):$(id -g)"), then {_command()}'
    return f"{said}: start it with --user {owner.st_uid}:{owner.st_gid}"


def _command() -> str:
    return (
        'mkdir -p runs data; docker run --rm --user "$(id -u):$(id -g)" --volume '
        '"$PWD/runs:/work/runs" --volume "$PWD/data:/work/data" IMAGE (or make image-run)'
    )


def _mount_of(folder: Path) -> _Mount | None:
    """Return what is mounted where a folder lies; None where the kernel does not tell."""
    real = resolved(folder)
    holding = [mount for mount in _mounts() if mount.at in (real, *real.parents)]
    # The last one of the deepest: it lies over the others.
    return max(reversed(holding), key=lambda mount: len(mount.at.parts), default=None)


def _mounts() -> Iterator[_Mount]:
    try:
        lines = _MOUNTS.read_text("utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return
    for line in lines:
        before, _, after = line.partition(" - ")
        fields = before.split(" ")
        if len(fields) > 5 and after:
            at = Path(_plain(fields[4]))
            yield _Mount(_plain(fields[3]), at, fields[5], after.split(" ")[0])


def _plain(field: str) -> str:
    """Undo the kernel's escapes of spaces and the like."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), field)
