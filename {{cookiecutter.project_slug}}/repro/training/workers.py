"""Start the data workers, and end them whatever happens.

Under Linux a worker is a fork of the training process. Under macOS it is a process that starts anew
(Python's own default there, because a fork breaks libraries of the system): it imports the
project's code once more and gets the data set by pickle. Samples have the same bits either way.

A limit of the machine (open files, processes, shared memory, the length of a socket's name) stops a
worker from starting, or from sending what it has made. Python and torch then wait for ever: for the
batch, or at the end for a worker that ignores SIGTERM. Here such a fault is one line, in seconds.
"""

import os
import pickle
import re
import signal
import tempfile
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.context import ForkContext, ForkProcess, SpawnContext, SpawnProcess
from multiprocessing.process import BaseProcess
from multiprocessing.queues import Queue
from multiprocessing.reduction import ForkingPickler
from typing import Any, NamedTuple, NoReturn

import torch
from torch._utils import ExceptionWrapper
from torch.utils.data._utils import signal_handling

from repro.core import machines
from repro.core.checked_code import imported_files
from repro.core.errors import UserError
from repro.training.determinism import chosen_determinism, set_determinism

# A worker passes tensors through a socket. The kernel gives its path 108 bytes, macOS 104, one of
# which ends it (unix(7)); below TMPDIR Python names it as here, with eight letters for each X.
_LONGEST_SOCKET = 107
_LONGEST_SOCKET_OF_MACOS = 103
_SOCKET = "/pymp-XXXXXXXX/listener-XXXXXXXX"

_MODULES = (
    "a data worker is a process of its own here, which gets data set and collate by pickle: make "
    "them of a module's classes and functions, without lambdas and open files, or take "
    "num_workers=0"
)
# Of an object that no name leads to, Python says from 3.12 or 3.13 on that it cannot get it.
_OF_PICKLE = "pickle|Can't get local"
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
    _OF_PICKLE: "make samples of tensors, arrays, numbers and text, or take num_workers=0",
    "Pin memory thread": _FEWER,
}


def refuse_long_folder(workers: int) -> None:
    """Raise UserError if the temporary folder's name is too long for data workers."""
    folder = tempfile.gettempdir()
    is_macos = machines.this_machine().is_macos
    longest = (_LONGEST_SOCKET_OF_MACOS if is_macos else _LONGEST_SOCKET) - len(_SOCKET)
    if workers and len(os.fsencode(folder)) > longest:
        raise UserError(
            f"TMPDIR={folder} has {len(os.fsencode(folder))} bytes: data workers name sockets in "
            f"it, so expected {longest} at the most; set TMPDIR to a shorter folder, such as /tmp, "
            "or take num_workers=0"
        )


class Workers:
    """What torch's loader starts its workers with: `context` makes their processes and queues."""

    def __init__(self) -> None:
        self.started: list[BaseProcess] = []
        self.are_forks = not machines.this_machine().is_macos
        self.context = (_Forking if self.are_forks else _Spawning)(self.started)

    def end(self) -> None:
        """End all workers now, also those that are stuck in a sample."""
        for worker in self.started:
            worker.kill()
        for worker in self.started:
            worker.join()

    def beginning(self) -> "Beginning":
        """Return what a worker does first: nothing in a fork, which has all from its parent."""
        if self.are_forks:
            return Beginning(None, None, {})
        return Beginning(chosen_determinism(), torch.get_default_dtype(), imported_files())


class Beginning(NamedTuple):
    """What a worker that starts anew has to share with the training process, which made this.

    `determinism`: mode and precision; `dtype`: torch's default one; `imported`: the SHA-256 of the
    project's files, which somebody may have edited meanwhile. None and {} change nothing.
    """

    determinism: tuple[str, str] | None
    dtype: torch.dtype | None
    imported: dict[str, str]

    def share(self) -> None:
        """Put it in force in this worker; UserError if it imported other code."""
        if self.determinism:
            set_determinism(*self.determinism)
        if self.dtype:
            torch.set_default_dtype(self.dtype)
        for path, digest in imported_files().items():
            if self.imported.get(path, digest) != digest:
                raise UserError(
                    f"{path} was edited while the training runs, and a data worker that starts now "
                    "would run it: train again, or resume"
                )


class _Keeping:
    """The part of a context that is ours: it knows its processes, and its queues never wait."""

    kind: type["_Kept"]

    def __init__(self, started: list[BaseProcess]) -> None:
        self.started = started

    def Process(self, *args: Any, **kwargs: Any) -> BaseProcess:
        """Make a process that Python ends by SIGKILL, because a worker ignores SIGTERM."""
        process: Any = self.kind(*args, **kwargs)
        process.others = self.started
        return process  # type: ignore[no-any-return]

    def Queue(self, maxsize: int = 0) -> "Queue[Any]":
        """Make a queue that sends the fault where it cannot send a batch."""
        return _Batches(maxsize, ctx=self)


class _Kept:
    others: list[BaseProcess]

    def start(self) -> None:
        others = self.__dict__.pop("others")  # they are not for the worker
        super().start()  # type: ignore[misc]
        others.append(self)
        popen: Any = self._popen  # type: ignore[attr-defined]
        popen.terminate = popen.kill  # Python's own end calls it, and then waits


class _Fork(_Kept, ForkProcess):
    pass


class _Spawn(_Kept, SpawnProcess):
    def start(self) -> None:
        """Start it with these blocked: it would end by them, with a traceback of its own."""
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
        try:
            super().start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


class _Forking(_Keeping, ForkContext):  # type: ignore[misc]
    kind = _Fork


class _Spawning(_Keeping, SpawnContext):  # type: ignore[misc]
    kind = _Spawn


class _Batches(Queue):  # type: ignore[type-arg]
    """A queue of (number, batch), of which a worker's other end is never left to wait."""

    def put(self, obj: Any, block: bool = True, timeout: float | None = None) -> None:
        try:
            super().put(obj, block, timeout)
        except RuntimeError as error:  # no thread can be started
            if os.getpid() == self._opid:  # type: ignore[attr-defined]  # who made the queue
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
        with warnings.catch_warnings():  # torch warns of a fault that is raised as well
            warnings.filterwarnings("ignore", message="Got pickle error")
            yield
    except (OSError, RuntimeError, pickle.PicklingError, AttributeError, TypeError) as error:
        is_of_pickle = bool(re.search(_OF_PICKLE, str(error)))
        for frame, _ in traceback.walk_tb(error.__traceback__):
            _give_up(frame.f_locals.get("self"))
        if isinstance(error, AttributeError | TypeError) and not is_of_pickle:
            raise
        what = f"the {workers} data workers cannot all start"
        if is_of_pickle:
            raise UserError(f"{what}: {_last_line(error)}; {_MODULES}") from error
        _refuse(what, error)


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
