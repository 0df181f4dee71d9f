"""Know when torchrun or Slurm starts a training again by itself, and when that has to end.

Promises that such a start does not train on where SIGTERM has ended the training in good order, and
that a step which fails in two starts, one after the other, ends the job with a line that names it.
Otherwise a fault that comes again would be repeated until no restart is left. Who starts a training
by hand begins a new count. The count is a hidden file in the run's folder, as the lock is: it is
there while a training goes on, or has failed.
"""

import json
import os
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

from repro.core.errors import UserError
from repro.core.files import read_object
from repro.core.launch import may_start_again, starts_before, stop_restarts
from repro.core.layout import ATTEMPTS, INTERRUPTED, run_of
from repro.core.redaction import redact_text
from repro.runs.configuration import RunSettings
from repro.training.parallel import Processes

_LONGEST = 300  # characters of a reason
_ROOM = 2048  # bytes of the file, so that what is written over another record covers it
_UNKNOWN = "no error was seen: a process was killed, or its node failed"


class _Record(NamedTuple):
    """After how many steps a start ended, and why; `before`: the steps of the start before it."""

    reached: int
    before: int | None
    why: str


class Restarts:
    """What came of earlier starts of a training, the same in all processes.

    `start`: the checkpoint that it goes on from, if there is one. UserError if it is not to go on.
    `was_asked`: whether torchrun starts a training again that SIGTERM has ended in good order.
    """

    def __init__(
        self, root: Path, config: RunSettings, start: Path | None, processes: Processes
    ) -> None:
        folder = run_of(start) if start else None
        if config.run_dir:
            folder = root / config.run_dir
        torchrun, slurm = starts_before()
        # Agents on several nodes count differently, so it is enough that one has started again.
        by_torchrun, by_any = processes.total([torchrun > 0, torchrun + slurm > 0])
        self.is_restart = by_any > 0
        is_first = processes.rank == 0
        marked = is_first and folder is not None and (folder / INTERRUPTED).exists()
        self.was_asked = by_torchrun > 0 and processes.total([marked])[0] > 0
        if folder and self.is_restart and not self.was_asked:
            fault = _fault_of(folder) if is_first else ""
            fault = json.loads(processes.texts(json.dumps(fault))[0])
            if fault:
                stop_restarts()
                raise UserError(fault)

    def attempt(self, folder: Path, step: int) -> "Attempt":
        """Return what counts this start, which goes on after `step` steps."""
        old = _read(folder) if self.is_restart else None
        return Attempt(folder / ATTEMPTS, step, old.reached if old else None)


class Attempt:
    """Keeps in a file how far a start has come, as long as the block lasts.

    The file is removed when the training ends as it should or by SIGTERM. Nothing is kept where
    nobody would start the training again.
    """

    def __init__(self, path: Path, step: int, before: int | None) -> None:
        self._path = path
        self._before = before
        self._reached = step
        self._file: int | None = None

    def __enter__(self) -> Callable[[int], None]:
        self._path.unlink(missing_ok=True)
        if may_start_again():
            self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT, 0o666)
            self.reach(self._reached)
        return self.reach

    def reach(self, step: int) -> None:
        """Note that a step is done: microseconds, and nothing waits for the disk."""
        self._reached = step
        self._write("")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        if self._file is None:
            return
        if isinstance(error, GeneratorExit):  # the loop is closed because of another error
            error = error.__context__
        if error is None or isinstance(error, KeyboardInterrupt):
            self._path.unlink(missing_ok=True)
        else:
            self._write(redact_text(" ".join(str(error).split()))[:_LONGEST])
        os.close(self._file)
        self._file = None

    def _write(self, why: str) -> None:
        if self._file is not None:
            text = json.dumps(_Record(self._reached, self._before, why)._asdict())
            os.pwrite(self._file, text.encode().ljust(_ROOM), 0)


def _read(folder: Path) -> _Record | None:
    """Return what the start before this one has left; None if it ended in good order."""
    found = read_object(folder / ATTEMPTS)
    reached = found.get("reached")
    before = found.get("before")
    if not isinstance(reached, int):
        return None
    return _Record(reached, before if isinstance(before, int) else None, str(found.get("why", "")))


def _fault_of(folder: Path) -> str:
    """Say that the same step has failed twice; nothing if it has not."""
    last = _read(folder)
    if last is None or last.reached != last.before:
        return ""
    return (
        f"{folder}: step {last.reached + 1} failed in two starts, one after the other "
        f"({last.why or _UNKNOWN}): it is not tried a third time; mend it, and start the training "
        "again yourself, with resume=auto"
    )
