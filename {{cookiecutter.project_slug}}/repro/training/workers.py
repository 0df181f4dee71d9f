"""Start the data workers, and end them whatever happens.

A limit of the machine (open files, processes, shared memory, the length of a socket's name) stops a
worker from starting, or from sending what it has made. Python and torch then wait for ever: for the
batch, or at the end for a worker that ignores SIGTERM. Here such a fault is one line, in seconds.
"""

import multiprocessing
import os
import re
import tempfile
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.context import ForkContext
from multiprocessing.process import BaseProcess
from multiprocessing.queues import Queue
from multiprocessing.reduction import ForkingPickler
from typing import Any, NoReturn

from torch._utils import ExceptionWrapper
from torch.utils.data._utils import signal_handling

from repro.core.errors import UserError

# A worker passes tensors through a socket. The kernel gives its path 108 bytes, one of which ends
# it (unix(7)); below TMPDIR Python names it as here, with eight letters for each X.
_LONGEST_SOCKET = 107
_SOCKET = "/pymp-XXXXXXXX/listener-XXXXXXXX"

_FEWER = "take fewer num_workers (num_workers=0 needs none)"
# What to do about what stops a worker, by patterns of messages of Python, torch and the kernel.
_REMEDIES = {
    "AF_UNIX path too long": "set TMPDIR to a shorter folder, such as /tmp",
    "Too many open files|ancdata": f"raise the limit of open files (ulimit -n), or {_FEWER}",
    "start new thread|Resource temporarily|allocate memory": (
        f"raise the limit of processes (ulimit -u) or of memory, or {_FEWER}"
    ),
    r"shared memory|torch_\d+|No space left": (
        f"make room in /dev/shm and in TMPDIR (in Docker a larger --shm-size), or {_FEWER}"
    ),
    "pickle": "make samples of tensors, arrays, numbers and text, or take num_workers=0",
    "Pin memory thread": _FEWER,
}


def refuse_long_folder(workers: int) -> None:
    """Raise UserError if the temporary folder's name is too long for data workers."""
    folder = tempfile.gettempdir()
    longest = _LONGEST_SOCKET - len(_SOCKET)
    if workers and len(os.fsencode(folder)) > longest:
        raise UserError(
            f"TMPDIR={folder} has {len(os.fsencode(folder))} bytes: data workers name sockets in "
            f"it, so expected {longest} at the most; set TMPDIR to a shorter folder, such as /tmp, "
            "or take num_workers=0"
        )


class Workers(ForkContext):
    """What torch's loader starts its workers with: see `Process` and `Queue`."""

    def __init__(self) -> None:
        self.started: list[BaseProcess] = []

    def Process(self, *args: Any, **kwargs: Any) -> BaseProcess:  # type: ignore[override]
        """Make a process that Python ends by SIGKILL, because a worker ignores SIGTERM."""
        process = _Worker(*args, **kwargs)
        process.others = self.started
        return process

    def Queue(self, maxsize: int = 0) -> "Queue[Any]":
        """Make a queue that sends the fault where it cannot send a batch."""
        return _Batches(maxsize, ctx=self)

    def end(self) -> None:
        """End all workers now, also those that are stuck in a sample."""
        for worker in self.started:
            worker.kill()
        for worker in self.started:
            worker.join()


class _Worker(multiprocessing.context.ForkProcess):
    others: list[BaseProcess]

    def start(self) -> None:
        super().start()
        self.others.append(self)
        popen: Any = self._popen  # type: ignore[attr-defined]
        popen.terminate = popen.kill  # Python's own end calls it, and then waits


class _Batches(Queue):  # type: ignore[type-arg]
    """A queue of (number, batch), of which a worker's other end is never left to wait."""

    def __init__(self, maxsize: int, ctx: Workers) -> None:
        super().__init__(maxsize, ctx=ctx)
        self._owner = os.getpid()

    def put(self, obj: Any, block: bool = True, timeout: float | None = None) -> None:
        try:
            super().put(obj, block, timeout)
        except RuntimeError as error:  # no thread can be started
            if os.getpid() == self._owner:
                raise
            # Without the thread, in its place: `put` has counted one more already.
            with self._wlock:  # type: ignore[attr-defined]
                self._writer.send_bytes(ForkingPickler.dumps(_instead(obj, error)))  # type: ignore[attr-defined]

    def _on_queue_feeder_error(self, e: Exception, obj: Any) -> None:
        """Take the place of Python's, which prints the fault and forgets the batch."""
        if not isinstance(obj, tuple):  # the way to the training is broken: torch sees the end
            os._exit(1)
        super().put(_instead(obj, e))


def _instead(made: Any, error: Exception) -> tuple[int, ExceptionWrapper]:
    """Return what is sent instead of a batch that a worker has made and cannot send."""
    fault = UserError(_told(f"a data worker cannot send its batch: {error}", str(error)))
    return made[0], ExceptionWrapper((UserError, fault, None), where="in a data worker")


@contextmanager
def faults_of_starting(workers: int) -> Iterator[None]:
    """Raise UserError if the workers cannot all start."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        for frame, _ in traceback.walk_tb(error.__traceback__):
            _give_up(frame.f_locals.get("self"))
        _refuse(f"the {workers} data workers cannot all start", error)


def _give_up(half_made: Any) -> None:
    """Take a loader's iterator that was not made to its end for one that has ended."""
    if not hasattr(half_made, "_shutdown_workers"):
        return
    half_made._shutdown = True  # or its end would fail, with a traceback of its own
    if getattr(half_made, "_worker_pids_set", False):
        # Or torch would say of each worker that is ended that it was killed.
        signal_handling._remove_worker_pids(id(half_made))  # type: ignore[attr-defined]
        half_made._worker_pids_set = False


@contextmanager
def faults_of_sending() -> Iterator[None]:
    """Raise UserError if what the workers send cannot be received, or could not be shared."""
    try:
        yield
    except OSError as error:
        _refuse("the batches of data workers do not arrive", error)
    except RuntimeError as error:  # an author's own is none of these, and keeps its traceback
        if not any(re.search(pattern, _last_line(error)) for pattern in _REMEDIES):
            raise
        _refuse("the batches of data workers do not arrive", error)


def _refuse(what: str, error: Exception) -> NoReturn:
    reason = _last_line(error)
    raise UserError(_told(f"{what}: {reason}", reason)) from error


def _told(what: str, reason: str) -> str:
    """Return the line of a fault, with the remedy."""
    remedies = (remedy for pattern, remedy in _REMEDIES.items() if re.search(pattern, reason))
    return f"{what}; {next(remedies, _FEWER)}"


def _last_line(error: Exception) -> str:
    """Return the fault itself: that of a worker comes with its traceback before it."""
    lines = str(error).split(" Please increase the limit")[0].strip().splitlines()
    return lines[-1] if lines else type(error).__name__
