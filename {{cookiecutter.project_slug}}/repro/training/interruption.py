"""Ending early in good order: SIGTERM asks for it, a checkpoint and a marker file answer.

A cluster sends SIGTERM some time before it kills. The step that runs is finished, a checkpoint is
written, and the command ends with exit code 75 (EX_TEMPFAIL of sysexits.h: try again). torchrun
turns that code into 1, so the file `interrupted` in the run's folder says it, too; resuming removes
it.
"""

import signal
from pathlib import Path
from types import FrameType

EXIT_CODE = 75
MARKER = "interrupted"


class Interruption:
    """From now on SIGTERM only sets `asked`."""

    def __init__(self) -> None:
        self.asked = False
        signal.signal(signal.SIGTERM, self._ask)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.asked = True


def mark(run: Path, step: int) -> None:
    """Leave the marker file."""
    (run / MARKER).write_text(f"SIGTERM after step {step}: go on with resume=auto\n")
