"""Let the processes of one command tell each other what they hashed: each file is read once.

`record` and `verify` start the author's commands one after the other, and each of these needs the
digests of all data and code. What one of them has found, the next one takes from a memory that has
no name and ends with the command: nobody finds it on the disk, and no later command trusts it. The
subprocesses inherit its descriptor. Where it is not passed on, as by a launcher, a process reads
the files itself.
"""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, NamedTuple

_VARIABLE = "REPRO_READ_ONCE"  # descriptor, device and inode of the memory of the command above


class Inheritance(NamedTuple):
    """What a subprocess gets: descriptors, and all variables; None stands for those of this one."""

    descriptors: tuple[int, ...]
    variables: dict[str, str] | None


_own: list[int] = []  # the descriptor of this command's memory, while it reads each file once


@contextmanager
def reading_once() -> Iterator[None]:
    """Let all that the block starts read each file once; an inner block shares the memory."""
    if _own:
        yield
        return
    with _new_memory() as memory:
        _own.append(memory.fileno())
        try:
            yield
        finally:
            _own.clear()


def _new_memory() -> IO[bytes]:
    """Open a file without a name: in memory under Linux, elsewhere one of the temporary folder."""
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("repro"), "w+b")
    return tempfile.TemporaryFile()


def inheritance() -> Inheritance:
    """Return what a subprocess of this command needs, to share its memory."""
    if not _own:
        return Inheritance((), None)
    (descriptor,) = _own
    return Inheritance((descriptor,), {**os.environ, _VARIABLE: _described(descriptor)})


def reads_once() -> bool:
    """Tell whether this process is, or belongs to, a command that reads each file once."""
    return bool(_own) or _VARIABLE in os.environ


def shared_memory() -> int | None:
    """Return the descriptor of the memory; None without one, or if it was not passed on."""
    if _own:
        return _own[0]
    told = os.environ.get(_VARIABLE, "")
    try:
        descriptor = int(told.partition(" ")[0])
        # By device and inode: the number alone may be that of any other file of this process.
        return descriptor if _described(descriptor) == told else None
    except (ValueError, OSError, OverflowError):
        return None


def _described(descriptor: int) -> str:
    state = os.fstat(descriptor)
    return f"{descriptor} {state.st_dev} {state.st_ino}"


def told_before(descriptor: int) -> str:
    """Return all that processes of this command have told."""
    parts = []
    place = 0
    while part := os.pread(descriptor, 1 << 20, place):
        parts.append(part)
        place += len(part)
    return b"".join(parts).decode()


def tell(descriptor: int, text: str) -> None:
    """Add a text to what the processes of this command tell each other."""
    data = text.encode()
    place = os.fstat(descriptor).st_size
    while data:
        written = os.pwrite(descriptor, data, place)
        data = data[written:]
        place += written
