"""Let a command know whether one that it has started has said itself why it failed.

Exit code 2 alone does not tell: a program of the author's own may end so without a word. So who
starts a command gives it a pipe, and `run_command` writes into that once it has printed its lines.
A process that does not get the pipe, such as one below a launcher, tells nothing.
"""

from __future__ import annotations  # `make image-digest` runs with older Pythons, too

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress

_VARIABLE = "REPRO_SAID"  # descriptor, device and inode of the pipe


class Hearing:
    """A pipe for a command that is about to be started."""

    def __init__(self, reading: int, writing: int) -> None:
        self._reading = reading
        self.descriptor = writing

    def variables(self, environ: Mapping[str, str]) -> dict[str, str]:
        """Return the variables of the command, which tell it of the pipe."""
        return {**environ, _VARIABLE: _described(self.descriptor)}

    @property
    def was_said(self) -> bool:
        """Whether the command, which has ended, has printed why."""
        try:
            return bool(os.read(self._reading, 1))
        except BlockingIOError:  # nothing was written
            return False


@contextmanager
def hearing() -> Iterator[Hearing]:
    """Open the pipe for the time of a command."""
    reading, writing = os.pipe()
    try:
        os.set_blocking(reading, False)
        yield Hearing(reading, writing)
    finally:
        os.close(reading)
        os.close(writing)


def tell_that_it_was_said() -> None:
    """Tell the command that has started this one, if any, that the fault's lines are printed."""
    told = os.environ.get(_VARIABLE, "")
    with suppress(ValueError, OSError, OverflowError):
        descriptor = int(told.partition(" ")[0])
        # By device and inode: the number alone may be that of any other file of this process.
        if _described(descriptor) == told:
            os.write(descriptor, b"1")


def _described(descriptor: int) -> str:
    state = os.fstat(descriptor)
    return f"{descriptor} {state.st_dev} {state.st_ino}"
