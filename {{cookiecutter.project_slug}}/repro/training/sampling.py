"""Say which samples make up each step and which random numbers they get, by (seed, position).

`Schedule` gives the samples of any step of any epoch without reading the steps before it, so a
resumed training only starts to count elsewhere. `SeededDataset` seeds the generators for each
sample, so its augmentation does not depend on the number of workers, nor on which of them does the
work, nor on the samples before it.
"""

import math
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, default_collate

from repro.core.errors import UserError
from repro.core.hashing import derive_seed
from repro.training.determinism import single_thread
from repro.training.seeding import seed_generators, worker_init_fn

SampleKey = tuple[int, int]  # (epoch, index in the data set)
IndexedBatch = tuple[torch.Tensor, Any]  # indices of the samples (int64), and what they hold


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


@dataclass(frozen=True)
class Schedule:
    """Which samples each step of a training takes, as a function of the step alone.

    Each epoch reads `size` samples in batches of `batch_size`, in an order of its own that follows
    from `seed`. The short last batch of an epoch counts unless it is dropped. Steps and epochs
    count from 0.
    """

    size: int
    batch_size: int
    seed: int
    drop_last: bool = False

    @property
    def steps_per_epoch(self) -> int:
        """The number of batches in an epoch."""
        if self.drop_last:
            return self.size // self.batch_size
        return math.ceil(self.size / self.batch_size)

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
        order = epoch_order(self.size, self.seed, epoch)
        return [(epoch, index) for index in order[start : start + self.batch_size].tolist()]

    def _start(self, step: int) -> int:
        """Return where the samples of a step begin in the order of its epoch."""
        return step % self.steps_per_epoch * self.batch_size


def refuse_not_finite(numbers: dict[str, float], schedule: Schedule, step: int) -> None:
    """Raise UserError if a number of a step is not finite: it tells how to see the step again."""
    if all(map(math.isfinite, numbers.values())):
        return
    named = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in numbers.items())
    samples = " ".join(str(index) for _, index in schedule.keys(step))
    raise UserError(
        [
            f"step {step + 1}: {named}: expected finite numbers: try a lower "
            "optimizer.learning_rate or gradient_clip",
            f"its training samples, in epoch {schedule.epoch_of(step) + 1}: {samples}",
            f"to see it again: the same command with resume=auto training.max_steps={step + 1}",
        ]
    )


@lru_cache(maxsize=2)
def _epoch_seed(seed: int, epoch: int) -> int:
    """Return the seed that the seeds of an epoch's samples start from."""
    return derive_seed(seed, "samples", epoch)


def sample_seed(seed: int, epoch: int, index: int) -> int:
    """Return a seed of 63 bits for a sample in an epoch, from a Weyl sequence.

    A hash would cost much more. No two samples of an epoch share the lower 32 bits, which are all
    that torch's generator on the CPU takes (`mt19937` in ATen/core/MT19937RNGEngine.h). The factor,
    from the golden ratio, is SplitMix64's.
    """
    return (_epoch_seed(seed, epoch) + index * 0x9E3779B97F4A7C15) % 2**63


class SeededDataset(Dataset[Any]):
    """A map-style data set whose every sample is made with generators seeded for that sample.

    Takes keys (epoch, index): another epoch gives another augmentation. Whichever of the global
    generators of Python, NumPy and torch a sample draws from, its numbers are its own. To seed
    Python's and NumPy's takes 4 us, which is much for a small sample, so that is done only for a
    data set that draws from them: if one did not stay where it was put, the batch is made again.
    """

    def __init__(self, dataset: Dataset[Any], seed: int) -> None:
        self.dataset = dataset
        self.seed = seed
        self.seed_all = False
        self.mark = derive_seed(seed, "mark") & 0xFFFFFFFF
        # What both generators give next if nobody has drawn from them since they were put at mark.
        self.next = (random.Random(self.mark).random(), np.random.RandomState(self.mark).rand())

    def __getitems__(self, keys: list[SampleKey]) -> tuple[list[int], list[Any]]:
        """Return the indices of the samples and the samples; torch's loader calls this."""
        return [index for _, index in keys], self._samples(keys)

    def _samples(self, keys: list[SampleKey]) -> list[Any]:
        """Make the samples; once one drew from Python's or NumPy's generator, seed these, too."""
        if not self.seed_all:
            random.seed(self.mark)
            np.random.seed(self.mark)
            samples = self._make(keys, torch.default_generator.manual_seed)
            if (random.random(), np.random.rand()) == self.next:
                return samples
            self.seed_all = True
        return self._make(keys, seed_generators)

    def _make(self, keys: list[SampleKey], seed_with: Callable[[int], Any]) -> list[Any]:
        """Make the samples, with `seed_with` called before each."""
        samples = []
        for epoch, index in keys:
            seed_with(sample_seed(self.seed, epoch, index))
            try:
                samples.append(self.dataset[index])
            except OSError as error:
                raise UserError(f"sample {index} cannot be read: {error}") from error
        return samples


def _collate(made: tuple[list[int], list[Any]]) -> IndexedBatch:
    """Stack what `SeededDataset.__getitems__` returned."""
    indices, samples = made
    return torch.tensor(indices), default_collate(samples) if samples else None


def batches_of_steps(
    dataset: Dataset[Any],
    schedule: Schedule,
    steps: range,
    num_workers: int = 0,
    pin_memory: bool = False,
    part: Callable[[int], slice] = slice,
) -> Iterator[IndexedBatch]:
    """Yield the batches of `steps`, across epochs: the same tensors for every `num_workers`.

    `part(size)` says which samples of a batch of `size` to make: all, or this process's share of
    them. Where that is none, None comes instead of tensors.
    """

    def keys(step: int) -> list[SampleKey]:
        return schedule.keys(step)[part(schedule.length(step))]

    samples = SeededDataset(dataset, schedule.seed)
    return _batches(samples, map(keys, steps), num_workers, pin_memory)


def batches_in_order(
    dataset: Dataset[Any], samples: range, batch_size: int, seed: int, num_workers: int = 0
) -> Iterator[IndexedBatch]:
    """Yield the samples in their order, to evaluate: the same tensors for every `num_workers`.

    A sample that draws random numbers gets its own, whichever others are read.
    """
    keys = [(0, index) for index in samples]
    parts = (keys[i : i + batch_size] for i in range(0, len(keys), batch_size))
    return _batches(SeededDataset(dataset, seed), parts, num_workers)


def _batches(
    samples: SeededDataset, keys: Iterable[list[SampleKey]], workers: int, pin_memory: bool = False
) -> Iterator[IndexedBatch]:
    """Make each batch here or in data workers: under one thread in either case."""
    if workers:
        yield from _batches_of_workers(samples, keys, workers, pin_memory)
        return
    for batch in keys:  # without torch's loader, whose own work is 1 % of a small step
        with single_thread():
            made = samples.__getitems__(batch)
        yield _collate(made)


def _batches_of_workers(
    samples: SeededDataset, keys: Iterable[list[SampleKey]], workers: int, pin_memory: bool
) -> Iterator[IndexedBatch]:
    """Make the batches in data workers, which end with the last batch or at an error."""
    loader: Any = DataLoader(
        samples,
        batch_sampler=keys,
        num_workers=workers,
        collate_fn=_collate,  # type: ignore[arg-type]  # of what __getitems__ returns
        worker_init_fn=worker_init_fn,
        pin_memory=pin_memory,
        # The loader draws a base seed for its workers: not from the global generator.
        generator=torch.Generator().manual_seed(derive_seed(samples.seed, "workers")),
    )
    batches = iter(loader)
    try:
        yield from batches
    except UserError as error:  # a worker's comes with its traceback before it
        raise UserError(str(error).rpartition("UserError: ")[2].strip().splitlines()) from error
    finally:
        # Now, and not when the error is forgotten: its traceback keeps the loader until Python
        # ends, which would then wait for ever for workers that ignore SIGTERM.
        batches._shutdown_workers()
        for worker in batches._workers:  # one that is stuck in a sample
            worker.kill()
