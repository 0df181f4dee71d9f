"""Data workers that start anew, as on a Mac: the same samples as forked ones and as none.

The machine is faked (tests/faked_machine.py has the words); the processes are real ones of Linux.
"""

import multiprocessing
import random
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from faked_machine import MAC
from repro.core import machines
from repro.core.errors import UserError
from repro.training.determinism import flags, set_determinism
from repro.training.loading import batches_of_steps
from repro.training.sampling import Schedule
from repro.training.workers import (
    Beginning,
    Workers,
    faults_of_starting,
    refuse_long_folder,
)
from torch.utils.data import Dataset

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")  # on few CPUs


SIGNALS = {signal.SIGINT, signal.SIGTERM}  # Ctrl-C, and what a cluster sends


class Drawing(Dataset[Any]):
    """Samples that draw from all generators, and tell how they were made."""

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        drawn = [random.random(), np.random.rand()]  # the global one
        drawn += [float(torch.rand(1)), float(torch.randn(1))]
        told = flags()
        state = [torch.get_num_threads(), told["deterministic_algorithms"]]
        state += [torch.finfo(torch.get_default_dtype()).bits]
        state += [multiprocessing.current_process().name != "MainProcess"]
        return torch.tensor([index, *drawn]), torch.tensor(state)


class Blocked(Dataset[Any]):
    """Whether a worker leaves it to the training process to end in good order."""

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.tensor(signal.pthread_sigmask(signal.SIG_BLOCK, ()) >= SIGNALS)


@pytest.fixture
def on_a_mac(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machines, "this_machine", lambda: MAC)


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    dtype = torch.get_default_dtype()
    yield
    torch.set_default_dtype(dtype)
    assert not multiprocessing.active_children()


def batches(dataset: Dataset[Any], workers: int) -> list[Any]:
    size = len(dataset)  # type: ignore[arg-type]
    schedule = Schedule(size, 2, 42)
    made = batches_of_steps(dataset, schedule, range(size // 2), num_workers=workers)
    return [shard for batch in made for shard in batch.shards]


def test_workers_that_start_anew_make_the_same_samples(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    set_determinism("strict")
    torch.set_default_dtype(torch.float64)
    expected = batches(Drawing(), 0)
    assert Workers().context.get_start_method() == "fork"
    forked = batches(Drawing(), 2)
    monkeypatch.setattr(machines, "this_machine", lambda: MAC)
    assert Workers().context.get_start_method() == "spawn"
    anew = batches(Drawing(), 2)
    for (here, how_here), (there, how_there) in zip(expected * 2, forked + anew, strict=True):
        assert torch.equal(here, there)
        assert here.dtype == torch.float64
        assert torch.equal(how_here[:, :3], how_there[:, :3])  # threads, flags, default dtype
        assert how_there[:, 3].all()  # made in a worker
        assert not how_here[:, 3].any()


@pytest.mark.usefixtures("on_a_mac")
def test_signals_are_left_to_the_training_process() -> None:
    assert batches(Blocked(), 1)[0].all()
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, ()) & SIGNALS


@pytest.mark.usefixtures("on_a_mac")
@pytest.mark.parametrize("what", ["a local class", "an open file"])
def test_what_cannot_be_sent_to_such_a_worker_is_one_line(what: str) -> None:
    class Local(Drawing):
        pass

    dataset: Any = Local() if what == "a local class" else Drawing()
    with tempfile.TemporaryFile() as file:
        dataset.file = file
        with pytest.raises(UserError, match="the 2 data workers cannot all start") as caught:
            batches(dataset, 2)
    (line,) = caught.value.lines
    assert "pickle" in line
    assert "take num_workers=0" in line
    assert not multiprocessing.active_children()


def test_code_that_was_edited_meanwhile_is_refused_by_such_a_worker() -> None:
    """It imports the code when it starts, and the conditions have the digests of what was there."""
    imported = Path(machines.__file__)
    from repro.core import checked_code

    before = checked_code._imported.copy()
    checked_code._imported[str(imported)] = "now"
    try:
        Beginning(None, None, {str(imported): "now", "/another": "file"}).share()
        with pytest.raises(UserError, match=r"machines\.py was edited while the training runs"):
            Beginning(None, None, {str(imported): "then"}).share()
    finally:
        checked_code._imported.clear()
        checked_code._imported.update(before)


@pytest.mark.usefixtures("on_a_mac")
def test_a_name_of_a_socket_has_fewer_bytes_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/" + "x" * 70)
    refuse_long_folder(1)
    monkeypatch.setattr(tempfile, "tempdir", "/" + "x" * 71)
    with pytest.raises(UserError, match=r"has 72 bytes: .* expected 71 at the most"):
        refuse_long_folder(1)


def test_an_object_without_a_name_is_a_line_in_every_python() -> None:
    """3.11 says that it cannot pickle it, later ones that they cannot get it."""
    for words in ("Can't pickle local object 'f.<locals>.Own'", "Can't get local object 'f.Own'"):
        told = pytest.raises(UserError, match="without lambdas and open files")
        with told, faults_of_starting(2):
            raise AttributeError(words)
    # A fault of somebody's code stays one.
    with pytest.raises(AttributeError, match="no attribute"), faults_of_starting(2):
        raise AttributeError("module has no attribute own")
