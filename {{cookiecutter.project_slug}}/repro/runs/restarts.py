"""Know when torchrun or Slurm starts a training again by itself, and when that has to end.

Promises that such a start does not train on where SIGTERM has ended the training in good order, and
that a step which fails in two starts, one after the other, ends the job with a line that names it.
Otherwise a fault that comes again would be repeated until no restart is left. Who starts a training
by hand begins a new count. What is kept for this are hidden files in the run's folder, as the lock
is: they are there while a training goes on, or has failed.
"""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

from repro.core.errors import UserError, reason_of
from repro.core.files import read_object, write_json
from repro.core.launch import may_start_again, starts_before, stop_restarts
from repro.core.layout import ATTEMPTS, FAILURE, INTERRUPTED, run_of
from repro.core.redaction import redact_text
from repro.runs.configuration import RunSettings
from repro.training.lost_processes import is_of_another_process
from repro.training.processes import Processes

_LONGEST = 300  # characters of a reason
_ROOM = 80  # bytes of the file: what is written over another number of steps covers it
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
        self._folder = folder
        self._before: int | None = None  # the steps of the start before this one
        marked = is_first and folder is not None and (folder / INTERRUPTED).exists()
        self.was_asked = by_torchrun > 0 and processes.total([marked])[0] > 0
        if folder and self.is_restart and not self.was_asked:
            fault = _fault_of(folder) if is_first else ""
            fault = json.loads(processes.texts(json.dumps(fault))[0])
            if fault:
                stop_restarts(processes.wait)
                processes.close()
                if not is_first:  # it would say the same, for torchrun's signal ends none now
                    sys.exit(2)
                raise UserError(fault)

    def begin(self, folder: Path) -> None:
        """Take what earlier starts left in the run's folder; comes before any process can fail."""
        old = _read(folder) if self.is_restart else None
        self._before = old.reached if old else None
        _remove(folder)

    def attempt(self, step: int, folder: Path | None = None) -> "Attempt":
        """Return what counts this start, which goes on after `step` steps.

        `folder`: of the run, which process 0 has opened.
        """
        if folder is None:
            return Attempt(self._folder, step)
        return Counted(folder, step, self._before)


class Attempt:
    """Keeps the error that ends a start, if it is this process's own; what a process does.

    Nothing is kept where nobody would start the training again.
    """

    def __init__(self, folder: Path | None, step: int) -> None:
        self._folder = folder if may_start_again() else None
        self._reached = step

    def __enter__(self) -> Callable[[int], None]:
        return self.reach

    def reach(self, step: int) -> None:
        """Note that a step is done."""
        self._reached = step

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        if isinstance(error, GeneratorExit):  # the loop is closed because of another error
            error = error.__context__
        self.end(error)

    def end(self, error: BaseException | None) -> None:
        """Keep an error; not the one that another process has ended, nor that the user has."""
        if error is None or self._folder is None or is_of_another_process(error):
            return
        if not isinstance(error, KeyboardInterrupt) and self._folder.is_dir():
            why = redact_text(reason_of(error))[:_LONGEST]
            write_json(self._folder / FAILURE, {"reached": self._reached, "why": why})


class Counted(Attempt):
    """The same in process 0, which keeps how far a start has come, whatever may end it.

    Both files are removed when the training ends as it should, by SIGTERM or by Ctrl-C.
    """

    def __init__(self, folder: Path, step: int, before: int | None) -> None:
        super().__init__(folder, step)
        self._before = before
        self._run = folder
        self._file: int | None = None

    def __enter__(self) -> Callable[[int], None]:
        if self._folder:
            self._file = os.open(self._folder / ATTEMPTS, os.O_WRONLY | os.O_CREAT, 0o666)
        self.reach(self._reached)
        return self.reach

    def reach(self, step: int) -> None:
        """Note that a step is done: microseconds, and nothing waits for the disk."""
        super().reach(step)
        if self._file is not None:
            text = json.dumps({"reached": step, "before": self._before})
            os.pwrite(self._file, text.encode().ljust(_ROOM), 0)

    def end(self, error: BaseException | None) -> None:
        super().end(error)
        if self._file is not None:
            os.close(self._file)
            self._file = None
        if error is None or isinstance(error, KeyboardInterrupt):
            _remove(self._run)


def _remove(folder: Path) -> None:
    for name in (ATTEMPTS, FAILURE):
        (folder / name).unlink(missing_ok=True)


def _read(folder: Path) -> _Record | None:
    """Return what the start before this one has left; None if it ended in good order.

    Process 0 may have been a step behind the process that failed.
    """
    counted = read_object(folder / ATTEMPTS)
    failure = read_object(folder / FAILURE)
    reached = failure.get("reached", counted.get("reached"))
    before = counted.get("before")
    if not isinstance(reached, int) or not counted:
        return None
    why = str(failure.get("why", "")) or _UNKNOWN
    return _Record(reached, before if isinstance(before, int) else None, why)


def _fault_of(folder: Path) -> str:
    """Say that the same step has failed twice; nothing if it has not."""
    last = _read(folder)
    if last is None or last.reached != last.before:
        return ""
    return (
        f"{folder}: step {last.reached + 1} failed in two starts, one after the other "
        f"({last.why}): it is not tried a third time; mend it, and start the training "
        "again yourself, with resume=auto"
    )
