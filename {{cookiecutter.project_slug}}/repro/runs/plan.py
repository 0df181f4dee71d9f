"""Say which steps a loop has: how many, of which samples, and after which it validates.

`Wanted` is what an author asks `session.steps` for, `Plan` what follows from it. Promises that the
plan depends on the settings, the seed and the data set alone, so that a training which goes on has
the plan of the one that was stopped, and that a loop which could not be repeated, or has no step,
is refused before the first one.
"""

import sys
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import Dataset, default_collate

from repro.core.errors import UserError
from repro.training.loading import Collate, IndexedBatch, batches_of_steps, refuse_iterable
from repro.training.own_schedules import Batches, BatchOfStep, OwnBatches, OwnSteps
from repro.training.parallel import Processes, slices_here
from repro.training.sampling import Order, Schedule, StepSchedule, indices_of


@dataclass(frozen=True)
class Wanted:
    """The steps that a loop asks for: see `Session.steps`."""

    dataset: Dataset[Any] | None = None
    batch_size: int = 1
    epochs: int | None = None
    steps: int | None = None
    drop_last: bool = False
    order: Order | None = None
    collate: Collate = default_collate
    validate_every: int | None = None
    batches: Batches | None = None
    batch: BatchOfStep | None = None

    def plan(self, seed: int, max_steps: int | None) -> "Plan":
        """Return the plan of it; UserError for what is no training."""
        schedule = self._schedule(seed)
        per_epoch = schedule.steps_per_epoch if schedule else None
        total = self._total(per_epoch)
        every = self.validate_every or per_epoch or total
        last = min(total, max_steps or total)
        return Plan(total, last, every, self.collate, self.dataset, schedule)

    def _schedule(self, seed: int) -> StepSchedule | None:
        chosen = [name for name in ("order", "batches", "batch") if getattr(self, name)]
        if len(chosen) > 1:
            raise UserError(
                f"the samples of a step are chosen by {' and by '.join(chosen)}: expected one"
            )
        if self.dataset is None:
            return None
        size = sized(self.dataset)
        if self.batches:
            return OwnBatches(self.batches, seed)
        if self.batch:
            return OwnSteps(self.batch, seed)
        if self.order:
            size = _length_of(self.order, seed)
        schedule = Schedule(size, self.batch_size, seed, self.drop_last, self.order)
        if not schedule.steps_per_epoch:
            raise UserError(
                f"batch_size={self.batch_size} is larger than the {size} training samples, and "
                "drop_last leaves out what is less: take a smaller one, or drop_last=False"
            )
        return schedule

    def _total(self, per_epoch: int | None) -> int:
        """Return the number of steps, which is given by one of `epochs` and `steps`."""
        if (self.epochs is None) == (self.steps is None):
            raise UserError("session.steps takes the length of the training: epochs=N or steps=N")
        if self.epochs is not None and per_epoch is None:
            without = "batch(seed, step)" if self.batch else "session.steps without a data set"
            raise UserError(
                f"{without} has no epochs: expected steps=N (training.steps=N training.epochs=null)"
            )
        total = self.steps if self.steps is not None else (self.epochs or 0) * (per_epoch or 0)
        if total < 1:
            raise UserError(f"the training has {total} steps: expected 1 or more")
        return total


@dataclass(frozen=True)
class Plan:
    """The steps of a training: `total` in all, of which training.max_steps may leave fewer.

    `last`: the number of steps after which this training ends. `dataset` and `schedule` are None
    for a loop that brings its own batches. The author validates after every `validate_every` steps,
    and after the last one.
    """

    total: int
    last: int
    validate_every: int
    collate: Collate
    dataset: Dataset[Any] | None = None
    schedule: StepSchedule | None = None

    def epoch(self, step: int) -> int | None:
        """Return how many epochs have ended after `step` steps; None where there are no epochs."""
        per_epoch = self.schedule.steps_per_epoch if self.schedule else None
        return step // per_epoch if per_epoch else None

    @property
    def epochs(self) -> int | None:
        """The number of epochs, begun or ended; None where there are none."""
        per_epoch = self.schedule.steps_per_epoch if self.schedule else None
        return -(-self.total // per_epoch) if per_epoch else None

    @property
    def smallest(self) -> int:
        """The smallest number of samples of a step, as far as it is known before; else 2^63 - 1."""
        if not isinstance(self.schedule, Schedule):
            return sys.maxsize
        return min(self.schedule.length(0), self.schedule.length(self.schedule.steps_per_epoch - 1))

    def validates_after(self, step: int) -> bool:
        """Tell whether a validation follows the step that made it `step` steps."""
        return step % self.validate_every == 0 or step == self.total

    def batches(
        self, steps: range, workers: int, device: torch.device, processes: Processes
    ) -> Generator[IndexedBatch | None, None, None]:
        """Yield this process's part of each step's batch; None where the loop brings its own."""
        if self.dataset is None or self.schedule is None:
            yield from (None for _ in steps)
            return
        yield from batches_of_steps(
            self.dataset,
            self.schedule,
            steps,
            num_workers=workers,
            pin_memory=device.type == "cuda",
            slices=lambda size: slices_here(size, processes),
            collate=self.collate,
        )


def sized(dataset: Any) -> int:
    """Return the number of samples of a data set; UserError for one that does not tell it."""
    refuse_iterable(dataset)
    try:
        return len(dataset)
    except TypeError as error:
        raise UserError(
            f"{type(dataset).__name__} has no __len__: expected a data set with __len__ and "
            "__getitem__(index), whose samples can be found again"
        ) from error


def _length_of(order: Order, seed: int) -> int:
    """Return the number of samples of an epoch by the author's order: those of the first one."""
    try:
        return len(indices_of(order, seed, epoch=0))
    except TypeError as error:
        raise UserError(f"order(seed, epoch): {error}; expected the epoch's indices") from error
