"""Samples of a step that an author chooses: the same after a resume, each fault in one line."""

import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from repro.core.errors import UserError
from repro.runs.plan import Plan, Wanted
from repro.training.loading import batches_of_steps
from repro.training.own_schedules import OwnBatches, OwnSteps
from repro.training.sampling import SampleKey, StepSchedule
from repro.training.seeding import seed_generators
from torch.utils.data import Dataset, TensorDataset

SAMPLES = TensorDataset(torch.arange(8.0))


class Noisy(Dataset[Any]):
    """Samples that draw random numbers."""

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> Any:
        return index + torch.rand(1)


def of_like_lengths(seed: int, epoch: int) -> list[list[int]]:
    """Three batches of unequal sizes, in an order that is drawn for the epoch."""
    batches = [[0, 1, 2], [3, 4], [5, 6, 7, 7]]
    return [batches[place] for place in torch.randperm(3)]


def windows(seed: int, step: int) -> list[int]:
    """A window that is drawn for the step; the last sample comes twice."""
    start = int(torch.randint(5, ()))
    return [start, start + 1, start + 2, start + 2]


OWN: dict[str, StepSchedule] = {
    "batches": OwnBatches(of_like_lengths, 7),
    "batch": OwnSteps(windows, 7),
}


@pytest.mark.parametrize("name", OWN)
@pytest.mark.parametrize("workers", [0, 2])
def test_a_start_in_the_middle_gives_the_same_samples(name: str, workers: int) -> None:
    """Also their random numbers; the generators were anywhere before."""
    whole = [*batches_of_steps(Noisy(), OWN[name], range(9))]
    torch.rand(3)
    again = [*batches_of_steps(Noisy(), OWN[name], range(4, 9), num_workers=workers)]
    assert len(again) == 5
    for one, other in zip(whole[4:], again, strict=True):
        assert torch.equal(one.indices, other.indices)
        assert torch.equal(one.shards[0], other.shards[0])


def test_steps_and_epochs_have_draws_of_their_own() -> None:
    orders = {str([key.sample for key in OWN["batches"].keys(3 * e)]) for e in range(9)}
    assert len(orders) == 3  # each of the three batches comes first in some epoch
    assert len({OWN["batch"].keys(step)[0].sample for step in range(20)}) == 5
    assert OwnBatches(of_like_lengths, 7).keys(4) == OWN["batches"].keys(4)
    others = [OwnSteps(windows, 8).keys(step)[0].sample for step in range(20)]
    assert others != [OWN["batch"].keys(step)[0].sample for step in range(20)]


DRAWING: dict[str, Callable[[], Any]] = {
    "random": lambda: random.randrange(8),
    "numpy": lambda: np.random.randint(8),
    "torch": lambda: torch.randint(8, ()),
}


@pytest.mark.parametrize("generator", DRAWING)
def test_an_author_may_draw_from_any_generator(generator: str) -> None:
    def drawn(seed: int, step: int) -> list[int]:
        return [DRAWING[generator]() for _ in range(6)]

    def of_epoch(seed: int, epoch: int) -> list[list[int]]:
        return [drawn(seed, epoch), [0]]

    for make in (lambda: OwnSteps(drawn, 1), lambda: OwnBatches(of_epoch, 1)):
        first = [make().keys(step) for step in range(6)]
        seed_generators(5)
        again = [fresh(make()).keys(step) for step in reversed(range(6))]
        assert again == first[::-1]
        assert len({str(keys) for keys in first}) > 1


def fresh(schedule: Any) -> Any:
    """The same schedule by a function that no cache knows."""
    if isinstance(schedule, OwnSteps):
        return OwnSteps(lambda seed, step: schedule.batch(seed, step), schedule.seed)
    return OwnBatches(lambda seed, epoch: schedule.batches(seed, epoch), schedule.seed)


def test_a_sample_that_comes_again_is_counted() -> None:
    """In an epoch by its batches; in a step where there are no epochs."""
    batches = OwnBatches(lambda seed, epoch: [[1, 1], [2, 1]], 3)
    keys = [key for step in range(2, 4) for key in batches.keys(step)]
    assert keys == [(1, 1, 0), (1, 1, 1), (1, 2, 0), (1, 1, 2)]
    steps = OwnSteps(lambda seed, step: [4, 4, 5], 3)
    assert steps.keys(6) == [(6, 4, 0), (6, 4, 1), (6, 5, 0)]
    made = [*batches_of_steps(Noisy(), steps, range(2))]
    values = torch.cat([batch.shards[0].flatten() for batch in made])
    assert len({*values.tolist()}) == 6  # each has random numbers of its own


def test_indices_may_be_of_any_integer_type() -> None:
    tensors = OwnBatches(lambda seed, epoch: torch.arange(8).view(4, 2), 1)  # type: ignore[arg-type, return-value]
    assert tensors.keys(1) == [SampleKey(0, 2), SampleKey(0, 3)]
    assert (tensors.steps_per_epoch, tensors.length(1)) == (4, 2)
    array = OwnSteps(lambda seed, step: np.arange(3), 1)  # type: ignore[arg-type, return-value]
    assert (array.keys(0)[2], array.length(0)) == (SampleKey(0, 2), 3)


BATCHES: dict[str, Any] = {
    "the batches of epoch 1: 'NoneType' object is not iterable; expected a list of lists": None,
    "the batches of epoch 1: 'int' object is not iterable; expected a list of lists": [1, 2],
    "the batches of epoch 1: 'float' object cannot be interpreted": [[1.0]],
    "the batches of epoch 1: expected one batch or more, each with samples": [],
    "the batches of epoch 1: expected one batch or more, each with": [[1], []],
    "the batches of epoch 1 has -1: indices are from 0": [[1], [-1]],
    "step 2 has the sample 8: indices end before 8, the number of samples": [[1], [8]],
}
STEPS: dict[str, Any] = {
    "the batch of step 1: 'NoneType' object is not iterable; expected a list of indices": None,
    "the batch of step 1: 'str' object cannot be interpreted": ["a"],
    "the batch of step 1 has no samples: expected one or more": [],
    "the batch of step 1 has -2: indices are from 0": [0, -2],
    "step 1 has the sample 8: indices end before 8, the number of samples": [8],
}


def plan(steps: int = 2, **chosen: Any) -> Plan:
    return Wanted(SAMPLES, 4, steps=steps, **chosen).plan(seed=1, max_steps=None)


def read(made: Plan, workers: int) -> None:
    assert made.schedule
    [*batches_of_steps(SAMPLES, made.schedule, range(made.total), num_workers=workers)]


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("told", BATCHES)
def test_a_fault_of_an_authors_batches_is_one_line(told: str, workers: int) -> None:
    with pytest.raises(UserError) as error:
        read(plan(batches=lambda seed, epoch: BATCHES[told]), workers)
    (line,) = error.value.lines
    assert line.startswith(told)


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("told", STEPS)
def test_a_fault_of_an_authors_batch_is_one_line(told: str, workers: int) -> None:
    with pytest.raises(UserError) as error:
        read(plan(batch=lambda seed, step: STEPS[told]), workers)
    (line,) = error.value.lines
    assert line.startswith(told)


def test_epochs_have_as_many_batches_each() -> None:
    batches = OwnBatches(lambda seed, epoch: [[0]] * (2 + epoch), 1)
    assert [batches.length(step) for step in range(2)] == [1, 1]
    with pytest.raises(UserError, match="there are 3 batches of epoch 2: expected 2, as many in"):
        batches.keys(2)


def test_the_length_of_a_training_follows_from_what_chooses_the_samples() -> None:
    by_epochs = Wanted(SAMPLES, 4, epochs=2, batches=of_like_lengths).plan(1, None)
    assert (by_epochs.total, by_epochs.validate_every, by_epochs.epochs) == (6, 3, 2)
    by_steps = Wanted(SAMPLES, 4, steps=5, batch=windows, validate_every=2).plan(1, max_steps=3)
    assert (by_steps.total, by_steps.last, by_steps.epochs, by_steps.epoch(4)) == (5, 3, None, None)
    assert [step for step in range(1, 6) if by_steps.validates_after(step)] == [2, 4, 5]
    with pytest.raises(UserError, match=r"batch\(seed, step\) has no epochs: expected steps=N"):
        Wanted(SAMPLES, 4, epochs=2, batch=windows).plan(1, None)
    with pytest.raises(UserError, match="chosen by order and by batch: expected one"):
        plan(order=lambda seed, epoch: [0], batch=windows)
    with pytest.raises(UserError, match="chosen by batches and by batch: expected one"):
        plan(batches=of_like_lengths, batch=windows)


def sampled(schedule: StepSchedule, steps: Sequence[int]) -> list[list[int]]:
    return [[key.sample for key in schedule.keys(step)] for step in steps]


def test_batches_are_asked_once_for_an_epoch() -> None:
    asked: list[int] = []

    def batches(seed: int, epoch: int) -> list[list[int]]:
        asked.append(epoch)
        return [[0, 1], [2], [3]]

    schedule = OwnBatches(batches, 1)
    assert sampled(schedule, range(6)) == [[0, 1], [2], [3]] * 2
    assert asked == [0, 1]
