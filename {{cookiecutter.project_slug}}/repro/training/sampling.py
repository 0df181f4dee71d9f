"""Say which samples make up each step and which random numbers they get, by (seed, position).

A schedule gives the samples of any step without reading the steps before it, so a resumed training
only starts to count elsewhere. repro/training/loading.py makes the samples; own_schedules.py has
the schedules whose batches an author chooses.
"""

import math
import operator
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple, Protocol

import torch

from repro.core.errors import UserError
from repro.core.hashing import derive_seed
from repro.training.permutation import ROUNDS, permuted
from repro.training.seeding import seed_generators
from repro.training.weighted import BadLoss

Order = Callable[[int, int], Sequence[int]]  # an epoch's indices, asked by (seed, epoch)


# Samples of an epoch up to which its order is a list: 128 MiB. It is a condition, as all code is.
LARGEST_LIST = 1 << 24


class SampleKey(NamedTuple):
    """A sample of a step: `occurrence` counts how often its epoch has had this index before."""

    epoch: int
    sample: int  # its index in the data set
    occurrence: int = 0


def split_indices(size: int, fractions: Sequence[float], seed: int) -> list[list[int]]:
    """Split 0..size-1 at random into sorted parts of the given fractions; the last gets the rest.

    The order is that of a hash of (seed, index): the same in every version of every library.
    """
    order = sorted(range(size), key=lambda index: (derive_seed(seed, "split", index), index))
    parts = []
    for fraction in fractions[:-1]:
        count = round(size * fraction)
        parts.append(sorted(order[:count]))
        order = order[count:]
    return [*parts, sorted(order)]


@lru_cache(maxsize=2)  # the loader may work ahead into the next epoch
def epoch_order(size: int, seed: int, epoch: int) -> torch.Tensor:
    """Return the order of the samples in an epoch, an int64 permutation of 0..size-1."""
    generator = torch.Generator().manual_seed(derive_seed(seed, "order", epoch))
    return torch.randperm(size, generator=generator)


@lru_cache(maxsize=2)
def _keys_of_epoch(seed: int, epoch: int) -> list[int]:
    """Return the keys of the permutation that is an epoch's order."""
    return [derive_seed(seed, "order", epoch, number) for number in range(ROUNDS)]


def indices_at(positions: range, size: int, seed: int, epoch: int) -> list[int]:
    """Return the samples at some positions of an epoch's random order.

    Above LARGEST_LIST samples each is computed by itself, so nothing grows with their number.
    """
    if size > LARGEST_LIST:
        return permuted(positions, size, _keys_of_epoch(seed, epoch))
    indices: list[int] = epoch_order(size, seed, epoch)[positions.start : positions.stop].tolist()
    return indices


class StepSchedule(Protocol):
    """Which samples each step of a training takes, as a function of the step alone.

    `steps_per_epoch`: None where there are no epochs. `is_checked`: whether the indices are known
    to be within the data set, because they are not an author's.
    """

    @property
    def seed(self) -> int: ...
    @property
    def steps_per_epoch(self) -> int | None: ...
    @property
    def is_checked(self) -> bool: ...
    def length(self, step: int) -> int: ...
    def keys(self, step: int) -> list[SampleKey]: ...


@dataclass(frozen=True)
class Schedule:
    """Which samples each step of a training takes, as a function of the step alone.

    Each epoch reads `size` samples in batches of `batch_size`, in an order of its own that follows
    from `seed`. The short last batch of an epoch counts unless it is dropped. Steps and epochs
    count from 0. `order(seed, epoch)` replaces the random order: `size` indices of the data set,
    of which some may come more than once.
    """

    size: int
    batch_size: int
    seed: int
    drop_last: bool = False
    order: Order | None = field(default=None, hash=False)

    @property
    def steps_per_epoch(self) -> int:
        """The number of batches in an epoch."""
        if self.drop_last:
            return self.size // self.batch_size
        return math.ceil(self.size / self.batch_size)

    @property
    def is_checked(self) -> bool:
        """Whether the indices are within the data set whoever asks."""
        return self.order is None

    def epoch_of(self, step: int) -> int:
        """Return the epoch that a step belongs to."""
        return step // self.steps_per_epoch

    def ends_epoch(self, steps: int) -> bool:
        """Tell whether an epoch has just ended after `steps` steps."""
        return steps % self.steps_per_epoch == 0

    def length(self, step: int) -> int:
        """Return the number of samples of a step: fewer in the last step of an epoch."""
        return min(self.batch_size, self.size - self._start(step))

    def keys(self, step: int) -> list[SampleKey]:
        """Return the samples of a step."""
        epoch = self.epoch_of(step)
        start = self._start(step)
        if self.order is None:
            positions = range(start, start + self.length(step))
            indices = indices_at(positions, self.size, self.seed, epoch)
            return [SampleKey(epoch, index) for index in indices]
        samples = slice(start, start + self.batch_size)
        indices, occurrences = _own_order(self, epoch)
        pairs = zip(indices[samples], occurrences[samples], strict=True)
        return [SampleKey(epoch, index, occurrence) for index, occurrence in pairs]

    def _start(self, step: int) -> int:
        """Return where the samples of a step begin in the order of its epoch."""
        return step % self.steps_per_epoch * self.batch_size


def indices_of(order: Order, seed: int, epoch: int) -> list[int]:
    """Return an epoch's indices by an author's order, which may draw: the generators are seeded.

    TypeError for what is no index.
    """
    seed_generators(derive_seed(seed, "own order", epoch))
    return as_indices(order(seed, epoch))


def as_indices(given: Iterable[object]) -> list[int]:
    """Return the indices that an author's function gave; TypeError for what is none."""
    return [operator.index(index) for index in given]  # type: ignore[arg-type]


def counted(indices: Iterable[int]) -> list[int]:
    """Return, for each index, how often it has come before."""
    seen: Counter[int] = Counter()
    occurrences = []
    for index in indices:
        occurrences.append(seen[index])
        seen[index] += 1
    return occurrences


@lru_cache(maxsize=2)
def _own_order(schedule: Schedule, epoch: int) -> tuple[list[int], list[int]]:
    """Return an epoch's indices by the author's order, and how often each has come before."""
    assert schedule.order is not None
    try:
        indices = indices_of(schedule.order, schedule.seed, epoch)
    except TypeError as error:
        raise UserError(f"the order of epoch {epoch + 1}: {error}; expected indices") from error
    if indices and min(indices) < 0:
        raise UserError(f"the order of epoch {epoch + 1} has {min(indices)}: indices are from 0")
    if len(indices) != schedule.size:
        raise UserError(
            f"the order of epoch {epoch + 1} has {len(indices)} indices: expected "
            f"{schedule.size}, as many in each epoch"
        )
    return indices, counted(indices)


def refuse_not_finite(
    numbers: Mapping[str, float | torch.Tensor], schedule: StepSchedule | None, step: int
) -> None:
    """Raise UserError if a number of a step is not finite: it tells how to see the step again.

    `schedule`: None where it is not known which samples the step had.
    """
    if all(map(math.isfinite, numbers.values())):
        return
    named = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in numbers.items())
    remedy = "expected finite numbers: try a lower learning rate, or to clip the gradient"
    raise UserError(_about_step([f"{named}: {remedy}"], schedule, step))


@contextmanager
def naming_samples(schedule: StepSchedule | None, step: int) -> Iterator[None]:
    """Tell which samples a step had whose loss nothing can be made of."""
    try:
        yield
    except BadLoss as error:
        raise UserError(_about_step(error.lines, schedule, step)) from error


def _about_step(lines: list[str], schedule: StepSchedule | None, step: int) -> list[str]:
    """Return a fault's lines with the step, its samples, and how to see it again."""
    samples = []
    if schedule:
        named = " ".join(str(key.sample) for key in schedule.keys(step))
        per_epoch = schedule.steps_per_epoch
        place = f", in epoch {step // per_epoch + 1}" if per_epoch else ""
        samples.append(f"its training samples{place}: {named}")
    return [
        *(f"step {step + 1}: {line}" for line in lines),
        *samples,
        f"to see it again: the same command with resume=auto training.max_steps={step + 1}",
    ]


@lru_cache(maxsize=16)
def _epoch_seed(seed: int, epoch: int, occurrence: int) -> int:
    """Return the seed that the seeds of an epoch's samples start from."""
    again = (occurrence,) if occurrence else ()
    return derive_seed(seed, "samples", epoch, *again)


def sample_seed(seed: int, epoch: int, index: int, occurrence: int = 0) -> int:
    """Return a seed of 63 bits for a sample in an epoch, from a Weyl sequence.

    A sample that comes again in an epoch (`occurrence` 1, 2, ...) gets other random numbers.

    A hash would cost much more. No two of 2^32 samples of an epoch and occurrence share the lower
    32 bits, which are all that torch's generator on the CPU takes (`mt19937` in
    ATen/core/MT19937RNGEngine.h). The factor, from the golden ratio, is SplitMix64's.
    """
    return (_epoch_seed(seed, epoch, occurrence) + index * 0x9E3779B97F4A7C15) % 2**63
