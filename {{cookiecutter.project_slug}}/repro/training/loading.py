"""Make the batches of steps and of evaluations, here or in data workers, with the same bits.

`SeededDataset` seeds the generators for each sample, so its augmentation does not depend on the
number of workers, nor on which of them does the work, nor on the samples before it.
"""

import random
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, default_collate

from repro.core.errors import UserError
from repro.core.hashing import derive_seed
from repro.training.determinism import single_thread
from repro.training.sampling import SampleKey, StepSchedule, sample_seed
from repro.training.seeding import seed_generators, worker_init_fn
from repro.training.workers import Beginning, Workers, faults_of_sending, faults_of_starting

Collate = Callable[[list[Any]], Any]  # makes a batch of samples


class IndexedBatch(NamedTuple):
    """The indices (int64) of some samples, and a batch for each shard; None for an empty one."""

    indices: torch.Tensor
    shards: list[Any]


class SeededDataset(Dataset[Any]):
    """A map-style data set whose every sample is made with generators seeded for that sample.

    Takes keys (epoch, index): another epoch gives another augmentation. Whichever of the global
    generators of Python, NumPy and torch a sample draws from, its numbers are its own. To seed
    Python's and NumPy's takes 4 us, which is much for a small sample, so that is done only for a
    data set that draws from them: if one did not stay where it was put, the batch is made again.
    """

    def __init__(
        self, dataset: Dataset[Any], seed: int, collate: Collate = default_collate
    ) -> None:
        self.dataset = dataset
        self.seed = seed
        self.collate = collate
        self.seed_all = False
        self.mark = derive_seed(seed, "mark") & 0xFFFFFFFF
        # What both generators give next if nobody has drawn from them since they were put at mark.
        self.next = (random.Random(self.mark).random(), np.random.RandomState(self.mark).rand())

    def __getitems__(self, shards: list[list[SampleKey]]) -> IndexedBatch:
        """Make a batch for each shard; torch's loader calls this, with what its sampler gives.

        Each shard is collated alone, so what collate returns is never cut: it may pad or pack. An
        author's collate may draw random numbers: they follow from the shard's first sample.
        """
        keys = [key for shard in shards for key in shard]
        samples = iter(self._samples(keys))
        batches = []
        for shard in shards:
            taken = [next(samples) for _ in shard]
            batches.append(self._collated(taken, shard[0]) if taken else None)
        indices = torch.tensor([key.sample for key in keys], dtype=torch.int64)
        return IndexedBatch(indices, batches)

    def _collated(self, samples: list[Any], first: SampleKey) -> Any:
        if self.collate is default_collate:  # it draws nothing
            return default_collate(samples)
        seed_generators(derive_seed(self.seed, "collate", *first))
        batch = self.collate(samples)
        if batch is None:
            raise UserError("collate returned None: expected a batch of the samples that it got")
        return batch

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
        for epoch, index, occurrence in keys:
            seed_with(sample_seed(self.seed, epoch, index, occurrence))
            try:
                samples.append(self.dataset[index])
            except OSError as error:
                raise UserError(f"sample {index} cannot be read: {error}") from error
        return samples


def batches_of_steps(
    dataset: Dataset[Any],
    schedule: StepSchedule,
    steps: range,
    num_workers: int = 0,
    pin_memory: bool = False,
    slices: Callable[[int], list[slice]] = lambda size: [slice(size)],
    collate: Collate = default_collate,
) -> Iterator[IndexedBatch]:
    """Yield the batches of `steps`, across epochs: the same for every `num_workers`.

    `slices(size)` cuts a batch of `size` into shards: all, or those of this process
    (`parallel.slices_here`). Each is made by a call of `collate` of its own.
    """
    refuse_iterable(dataset)

    def keys(step: int) -> list[list[SampleKey]]:
        samples = schedule.keys(step)
        if not schedule.is_checked:
            _refuse_beyond(samples, dataset, step)
        return [samples[part] for part in slices(len(samples))]

    samples = SeededDataset(dataset, schedule.seed, collate)
    return _batches(samples, map(keys, steps), num_workers, pin_memory)


def batches_in_order(
    dataset: Dataset[Any],
    samples: range,
    batch_size: int,
    seed: int,
    num_workers: int = 0,
    collate: Collate = default_collate,
) -> Iterator[IndexedBatch]:
    """Yield the samples in their order, to evaluate: the same for every `num_workers`.

    A sample that draws random numbers gets its own, whichever others are read.
    """
    refuse_iterable(dataset)
    starts = range(0, len(samples), batch_size)
    chunks = (samples[start : start + batch_size] for start in starts)
    parts = ([[SampleKey(0, index) for index in chunk]] for chunk in chunks)
    return _batches(SeededDataset(dataset, seed, collate), parts, num_workers)


def refuse_iterable(dataset: object) -> None:
    """Raise UserError for a data set that only streams: its samples have no place to go back to."""
    if isinstance(dataset, IterableDataset):
        raise UserError(
            f"{type(dataset).__name__} is an IterableDataset: which sample comes when depends on "
            "the workers, and none can be found again after a resume; write a Dataset with "
            "__len__ and __getitem__(index), over an index of the records"
        )


def _refuse_beyond(samples: list[SampleKey], dataset: Any, step: int) -> None:
    """Raise UserError for an index of an author's that a data set does not have."""
    size = len(dataset) if hasattr(dataset, "__len__") else None
    beyond = [key.sample for key in samples if size is not None and key.sample >= size]
    if beyond:
        raise UserError(
            f"step {step + 1} has the sample {beyond[0]}: indices end before {size}, the number "
            "of samples"
        )


def _batches(
    samples: SeededDataset,
    keys: Iterable[list[list[SampleKey]]],
    workers: int,
    pin_memory: bool = False,
) -> Iterator[IndexedBatch]:
    """Make each batch here or in data workers: under one thread in either case."""
    if workers:
        yield from _batches_of_workers(samples, keys, workers, pin_memory)
        return
    for shards in keys:  # without torch's loader, whose own work is 1 % of a small step
        with single_thread():
            made = samples.__getitems__(shards)
        yield made


def _as_it_is(made: Any) -> Any:
    return made


def _begin(beginning: Beginning, worker_id: int) -> None:
    """Start a data worker."""
    beginning.share()
    worker_init_fn(worker_id)


class _UntilAFault:
    """Keys of batches up to an error of who makes them, which is kept to be raised later.

    The loader asks for the first keys while it starts its workers: an error in there would leave
    workers that nobody ends.
    """

    def __init__(self, keys: Iterable[list[list[SampleKey]]]) -> None:
        self.keys = keys
        self.error: Exception | None = None

    def __iter__(self) -> Iterator[list[list[SampleKey]]]:
        try:
            yield from self.keys
        except Exception as error:
            self.error = error


def _batches_of_workers(
    samples: SeededDataset, keys: Iterable[list[list[SampleKey]]], workers: int, pin_memory: bool
) -> Iterator[IndexedBatch]:
    """Make the batches in data workers, which end with the last batch or at an error."""
    given = _UntilAFault(keys)
    started = Workers()
    loader: Any = DataLoader(
        samples,
        batch_sampler=given,
        num_workers=workers,
        collate_fn=_as_it_is,  # what __getitems__ returns is collated already
        worker_init_fn=partial(_begin, started.beginning()),
        pin_memory=pin_memory,
        multiprocessing_context=started.context,
        # The loader draws a base seed for its workers: not from the global generator.
        generator=torch.Generator().manual_seed(derive_seed(samples.seed, "workers")),
    )
    batches = None
    try:
        with faults_of_starting(workers):
            batches = iter(loader)
        with faults_of_sending():
            yield from batches
    except UserError as error:  # a worker's comes with its traceback before it
        raise UserError(str(error).rpartition("UserError: ")[2].strip().splitlines()) from error
    finally:
        # Now, and not when the error is forgotten: its traceback keeps the loader until Python
        # ends, which would then wait for ever for workers that ignore SIGTERM.
        if batches is not None:
            with suppress(OSError, RuntimeError):  # no thread can be started, to tell them
                batches._shutdown_workers()
        started.end()  # also one that is stuck in a sample
    if given.error:
        raise given.error
