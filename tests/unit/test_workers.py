"""Data workers that a limit of the machine stops: one line in seconds, and no worker is left."""

import multiprocessing
import os
import resource
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from repro.core.errors import UserError
from repro.training.loading import batches_of_steps
from repro.training.sampling import Schedule
from repro.training.workers import refuse_long_folder
from torch.utils.data import TensorDataset

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")  # on few CPUs

HERE = os.getpid()
LONGEST = 75  # bytes of a TMPDIR, below which a socket's name has 107
REFUSALS = {
    "too many files": (OSError(24, "Too many open files"), "ulimit -n"),
    "too many processes": (OSError(11, "Resource temporarily unavailable"), "ulimit -u"),
    "no memory": (OSError(12, "Cannot allocate memory"), "of memory"),
    "no semaphores": (OSError(38, "Function not implemented"), "num_workers=0 needs none"),
    "no room": (OSError(28, "No space left on device"), "--shm-size"),
}


def batches(workers: int = 3, collate: Any = torch.stack) -> list[Any]:
    """All batches of a small training, by that many workers."""
    samples = TensorDataset(torch.arange(32.0))
    plain = collate is torch.stack
    made = batches_of_steps(
        samples,
        Schedule(32, 4, 42),
        range(8),
        num_workers=workers,
        collate=(lambda given: torch.stack([one[0] for one in given])) if plain else collate,
    )
    return [shard for batch in made for shard in batch.shards]


@pytest.fixture(autouse=True)
def _nobody_is_left() -> Iterator[None]:
    yield
    assert not multiprocessing.active_children()


@contextmanager
def open_files(more: int) -> Iterator[None]:
    """Let this process open so many files more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(map(int, os.listdir("/proc/self/fd")))
    filling = [os.open(os.devnull, os.O_RDONLY)]
    while filling[-1] <= highest:  # the gaps
        filling.append(os.dup(filling[0]))
    resource.setrlimit(resource.RLIMIT_NOFILE, (filling[-1] + 1 + more, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for number in filling:
            os.close(number)


@pytest.mark.parametrize("more", [1, 5, 9, 13, 17, 21])
def test_too_few_open_files_for_workers_are_one_line(more: int) -> None:
    expected = batches(workers=0)
    with open_files(more):
        try:
            found = batches()
        except UserError as error:
            (line,) = error.lines
            assert "Too many open files" in line or "ancdata" in line
            assert "ulimit -n" in line
            return
    assert more > 9
    assert all(map(torch.equal, found, expected))


@pytest.mark.parametrize("kind", REFUSALS)
@pytest.mark.parametrize("started", [0, 2])
def test_workers_that_cannot_all_start_are_ended_and_told(
    kind: str, started: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    fault, remedy = REFUSALS[kind]
    forks = iter([False] * started + [True] * 99)
    fork = os.fork

    def refused() -> int:
        if next(forks):
            raise fault
        return fork()

    monkeypatch.setattr(os, "fork", refused)
    with pytest.raises(UserError, match="the 3 data workers cannot all start") as caught:
        batches()
    (line,) = caught.value.lines
    assert remedy in line


@pytest.mark.parametrize("where", ["here", "in the workers"])
def test_workers_without_a_thread_to_send_with_are_told(
    where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = threading.Thread.start

    def refused(self: threading.Thread) -> None:
        if (os.getpid() == HERE) == (where == "here"):
            raise RuntimeError("can't start new thread")
        start(self)

    monkeypatch.setattr(threading.Thread, "start", refused)
    with pytest.raises(UserError, match="can't start new thread; raise the limit of processes"):
        batches()


def test_a_sample_that_cannot_be_sent_is_told() -> None:
    """Python prints the fault, forgets the batch, and the training waits for it for ever."""
    with pytest.raises(UserError, match=r"cannot send its batch: .*pickle.*num_workers=0"):
        batches(collate=lambda samples: lambda: samples)


def folder_of(length: int, below: Path) -> str:
    folder = below / ("x" * (length - len(str(below)) - 1))
    folder.mkdir()
    return str(folder)


def test_a_temporary_folder_with_too_long_a_name_is_told_at_the_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as below:
        monkeypatch.setattr(tempfile, "tempdir", folder_of(LONGEST, Path(below)))
        refuse_long_folder(3)
        assert len(batches()) == 8  # as long as it may be
        monkeypatch.setattr(tempfile, "tempdir", folder_of(LONGEST + 1, Path(below)))
        refuse_long_folder(0)
        with pytest.raises(UserError, match=f"has 76 bytes: .* expected {LONGEST} at the most"):
            refuse_long_folder(3)
        with pytest.raises(UserError, match="AF_UNIX path too long; set TMPDIR to a shorter"):
            batches()  # also where nobody has looked


def test_python_ends_workers_that_nobody_has_ended() -> None:
    """They ignore SIGTERM, with which Python would end them, and it waits for them."""
    made = batches_of_steps(
        TensorDataset(torch.arange(32.0)), Schedule(32, 4, 42), range(8), num_workers=2
    )
    next(made)
    for worker in multiprocessing.active_children():
        with suppress(RuntimeError):  # torch's handler of SIGCHLD tells of it at any moment
            worker.terminate()
        for _ in range(100):
            with suppress(RuntimeError):
                worker.join(0.1)
                if worker.exitcode is not None:
                    break
        assert worker.exitcode == -9
    with pytest.raises((RuntimeError, UserError)):
        list(made)
