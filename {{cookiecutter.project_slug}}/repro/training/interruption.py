"""End a training early and in good order when SIGTERM asks for it.

A cluster sends SIGTERM some time before it kills. The step that runs is finished, a checkpoint is
written, and the command ends with exit code 75 (EX_TEMPFAIL of sysexits.h: try again). torchrun
turns that code into 1, so a marker file in the run's folder (layout.INTERRUPTED) says it, too;
resuming removes it.
"""

import signal
from pathlib import Path
from types import FrameType

from repro.core.layout import INTERRUPTED
from repro.core.stopping import TRY_AGAIN

EXIT_CODE = TRY_AGAIN


class Interruption:
    """Let SIGTERM, from now on, only set `asked`."""

    def __init__(self) -> None:
        self.asked = False
        signal.signal(signal.SIGTERM, self._ask)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.asked = True


def mark(run: Path, step: int) -> None:
    """Leave the marker file in a run's folder."""
    (run / INTERRUPTED).write_text(f"SIGTERM after step {step}: go on with resume=auto\n")
