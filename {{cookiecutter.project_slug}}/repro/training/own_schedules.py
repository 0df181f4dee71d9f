"""Let an author choose the samples of each step, as a function of the seed and the position.

`OwnBatches` has epochs of whole batches: batches of sequences of like lengths, or of equally many
samples of each class. `OwnSteps` has no epochs: windows of a long text. Either function may draw
random numbers: the generators are seeded for the epoch, or for the step.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import chain

from repro.core.errors import UserError
from repro.core.hashing import derive_seed
from repro.training.sampling import SampleKey, as_indices, counted
from repro.training.seeding import seed_generators

# An epoch's batches, asked by (seed, epoch); a step's samples, asked by (seed, step).
Batches = Callable[[int, int], Sequence[Sequence[int]]]
BatchOfStep = Callable[[int, int], Sequence[int]]


@dataclass(frozen=True)
class OwnBatches:
    """A schedule of an author's batches: lists of indices, as many in each epoch."""

    batches: Batches = field(hash=False)
    seed: int
    is_checked: bool = False

    @property
    def steps_per_epoch(self) -> int:
        """The number of batches in an epoch."""
        return len(_batches_of(self, 0))

    def length(self, step: int) -> int:
        """Return the number of samples of a step."""
        return len(self.keys(step))

    def keys(self, step: int) -> list[SampleKey]:
        """Return the samples of a step."""
        epoch, place = divmod(step, self.steps_per_epoch)
        return _batches_of(self, epoch)[place]


@dataclass(frozen=True)
class OwnSteps:
    """A schedule of batches that an author gives for each step: there are no epochs."""

    batch: BatchOfStep = field(hash=False)
    seed: int
    is_checked: bool = False
    steps_per_epoch: None = None

    def length(self, step: int) -> int:
        """Return the number of samples of a step."""
        return len(self.keys(step))

    def keys(self, step: int) -> list[SampleKey]:
        """Return the samples of a step; in their seeds the step takes the epoch's place."""
        return _batch_of(self, step)


@lru_cache(maxsize=2)  # the loader may work ahead into the next epoch
def _batches_of(schedule: OwnBatches, epoch: int) -> list[list[SampleKey]]:
    name = f"batches of epoch {epoch + 1}"
    seed_generators(derive_seed(schedule.seed, "own batches", epoch))
    try:
        batches = [as_indices(batch) for batch in schedule.batches(schedule.seed, epoch)]
    except TypeError as error:
        raise UserError(f"the {name}: {error}; expected a list of lists of indices") from error
    if not batches or not all(batches):
        raise UserError(f"the {name}: expected one batch or more, each with samples")
    if epoch and len(batches) != schedule.steps_per_epoch:
        raise UserError(
            f"there are {len(batches)} {name}: expected {schedule.steps_per_epoch}, as many in "
            "each epoch"
        )
    occurrences = iter(counted(_not_negative(chain(*batches), name)))
    return [[SampleKey(epoch, i, next(occurrences)) for i in batch] for batch in batches]


@lru_cache(maxsize=16)
def _batch_of(schedule: OwnSteps, step: int) -> list[SampleKey]:
    name = f"batch of step {step + 1}"
    seed_generators(derive_seed(schedule.seed, "own batch", step))
    try:
        indices = as_indices(schedule.batch(schedule.seed, step))
    except TypeError as error:
        raise UserError(f"the {name}: {error}; expected a list of indices") from error
    if not indices:
        raise UserError(f"the {name} has no samples: expected one or more")
    occurrences = counted(_not_negative(indices, name))
    return [SampleKey(step, i, again) for i, again in zip(indices, occurrences, strict=True)]


def _not_negative(indices: Sequence[int] | chain[int], name: str) -> list[int]:
    listed = [*indices]
    if min(listed) < 0:
        raise UserError(f"the {name} has {min(listed)}: indices are from 0")
    return listed
