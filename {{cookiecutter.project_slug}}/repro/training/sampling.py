"""Which samples make up step k, and with which random numbers: functions of (seed, position).

`batch_of_step` gives the samples of any step of any epoch without reading the steps before it, so
resuming is a matter of starting to count elsewhere. `SeededDataset` seeds the generators for each
sample, so its augmentation does not depend on the number of workers, nor on which of them does the
work, nor on the samples before it.
"""

import math
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
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


def steps_per_epoch(size: int, batch_size: int, drop_last: bool = False) -> int:
    """How many batches an epoch has; a short last one counts unless it is dropped."""
    return size // batch_size if drop_last else -(-size // batch_size)


def batch_length(size: int, batch_size: int, seed: int, drop_last: bool, step: int) -> int:
    """The number of samples of step `step`: fewer in the last step of an epoch."""
    position = step % steps_per_epoch(size, batch_size, drop_last)
    return min(batch_size, size - position * batch_size)


@lru_cache(maxsize=2)  # the loader may work ahead into the next epoch
def epoch_order(size: int, seed: int, epoch: int) -> torch.Tensor:
    """The order of the samples in an epoch, an int64 permutation of 0..size-1."""
    generator = torch.Generator().manual_seed(derive_seed(seed, "order", epoch))
    return torch.randperm(size, generator=generator)


def batch_of_step(
    size: int, batch_size: int, seed: int, drop_last: bool, step: int
) -> list[SampleKey]:
    """The samples of step `step` (0 is the first step of the first epoch)."""
    epoch, position = divmod(step, steps_per_epoch(size, batch_size, drop_last))
    start = position * batch_size
    return [(epoch, i) for i in epoch_order(size, seed, epoch)[start : start + batch_size].tolist()]


def refuse_not_finite(
    numbers: dict[str, float], size: int, batch_size: int, seed: int, drop_last: bool, step: int
) -> None:
    """UserError if a number of step `step` is not finite: which, the samples, how to replay it."""
    if all(map(math.isfinite, numbers.values())):
        return
    keys = batch_of_step(size, batch_size, seed, drop_last, step)
    told = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in numbers.items())
    raise UserError(
        [
            f"step {step + 1}: {told}: expected finite numbers: try a lower "
            "optimizer.learning_rate or gradient_clip",
            f"its training samples, in epoch {keys[0][0] + 1}: {' '.join(str(i) for _, i in keys)}",
            f"to see it again: the same command with resume=auto training.max_steps={step + 1}",
        ]
    )


@lru_cache(maxsize=2)
def _epoch_seed(seed: int, epoch: int) -> int:
    return derive_seed(seed, "samples", epoch)


def sample_seed(seed: int, epoch: int, index: int) -> int:
    """A seed of 63 bits for a sample in an epoch, from a Weyl sequence: a hash costs much more.

    No two samples of an epoch share the lower 32 bits, which are all that torch's generator on the
    CPU takes (`mt19937` in ATen/core/MT19937RNGEngine.h). The factor, from the golden ratio, is
    SplitMix64's.
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
        self.dataset, self.seed = dataset, seed
        self.seed_all = False
        self.mark = derive_seed(seed, "mark") & 0xFFFFFFFF
        self.next = (random.Random(self.mark).random(), np.random.RandomState(self.mark).rand())

    def __getitems__(self, keys: list[SampleKey]) -> tuple[list[int], list[Any]]:
        """The samples with their indices; torch's loader calls this."""
        return [index for _, index in keys], self._samples(keys)

    def _samples(self, keys: list[SampleKey]) -> list[Any]:
        if not self.seed_all:
            random.seed(self.mark)
            np.random.seed(self.mark)
            samples = self._make(keys, torch.default_generator.manual_seed)
            if (random.random(), np.random.rand()) == self.next:
                return samples
            self.seed_all = True
        return self._make(keys, seed_generators)

    def _make(self, keys: list[SampleKey], seed_with: Callable[[int], Any]) -> list[Any]:
        samples = []
        for epoch, index in keys:
            seed_with(sample_seed(self.seed, epoch, index))
            try:
                samples.append(self.dataset[index])
            except OSError as error:
                raise UserError(f"sample {index} cannot be read: {error}") from error
        return samples


def _collate(made: tuple[list[int], list[Any]]) -> tuple[torch.Tensor, Any]:
    indices, samples = made
    return torch.tensor(indices), default_collate(samples) if samples else None


def batches_of_steps(
    dataset: Dataset[Any],
    batch_size: int,
    seed: int,
    drop_last: bool,
    steps: range,
    num_workers: int = 0,
    pin_memory: bool = False,
    part: Callable[[int], slice] = slice,
) -> Iterator[tuple[torch.Tensor, Any]]:
    """The batches of `steps`, across epochs: the same tensors for every `num_workers`.

    Each comes with the indices of its samples, int64, as they were read.

    `part(size)` says which samples of a batch of `size` to make: all, or this process's share of
    them. Where that is none, None comes instead of tensors.
    """
    size = len(dataset)  # type: ignore[arg-type]

    def keys(step: int) -> list[SampleKey]:
        whole = batch_of_step(size, batch_size, seed, drop_last, step)
        return whole[part(len(whole))]

    return _batches(SeededDataset(dataset, seed), map(keys, steps), num_workers, pin_memory)


def batches_in_order(
    dataset: Dataset[Any], samples: range, batch_size: int, seed: int, num_workers: int = 0
) -> Iterator[tuple[torch.Tensor, Any]]:
    """The samples in their order, to evaluate: the same tensors for every `num_workers`.

    A sample that draws random numbers gets its own, whichever others are read.
    """
    keys = [(0, index) for index in samples]
    parts = (keys[i : i + batch_size] for i in range(0, len(keys), batch_size))
    return _batches(SeededDataset(dataset, seed), parts, num_workers)


def _batches(
    samples: SeededDataset, keys: Iterable[list[SampleKey]], workers: int, pin_memory: bool = False
) -> Iterator[tuple[torch.Tensor, Any]]:
    """With 0 workers samples are made in the calling process, under one thread as in a worker."""
    if workers == 0:  # without torch's loader, whose own work is 1 % of a small step
        for batch in keys:
            with single_thread():
                made = samples.__getitems__(batch)
            yield _collate(made)
        return
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
    finally:  # not when the error is forgotten: its traceback keeps the loader until Python ends,
        batches._shutdown_workers()  # which would wait for ever for workers that ignore SIGTERM
        for worker in batches._workers:  # one that is stuck in a sample
            worker.kill()
