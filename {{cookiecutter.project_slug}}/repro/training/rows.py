"""Compute something for all samples in fixed chunks, and join it in the samples' order.

A chunk gives rows: a tensor with a row for each of its samples, or a dict or a tuple of such
tensors. Promises the same rows in every process, for any number of processes: also for one that
computed no chunk, and so does not know what a chunk gives.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from repro.core.errors import UserError
from repro.core.hashing import derive_seed
from repro.training.batches import moved
from repro.training.engine import Engine
from repro.training.loading import Collate, batches_in_order
from repro.training.processes import Processes
from repro.training.seeding import seed_generators

_ALONE = "rows"  # the name of a lone tensor


@dataclass(frozen=True)
class Chunks:
    """The samples of a data set in fixed chunks, which the processes share."""

    dataset: Dataset[Any]
    samples: int
    size: int
    collate: Collate

    def rows(
        self,
        compute: Callable[[Any], Any],
        seed: int,
        workers: int,
        processes: Processes,
        engine: Engine | None = None,
    ) -> Any:
        """Return what `compute(batch)` gives for all samples, on the CPU, in every process.

        Each chunk has seeds of its own: it may draw random numbers.
        """
        engine = engine or Engine()
        computed = engine.together(
            processes, lambda: [*self.computed(compute, seed, workers, processes, engine)]
        )
        return joined(computed, self.sizes(processes), processes)

    def computed(
        self,
        compute: Callable[[Any], Any],
        seed: int,
        workers: int,
        processes: Processes,
        engine: Engine,
    ) -> Iterator[Any]:
        """Yield what `compute(batch)` gives for each of this process's chunks.

        Where the processes exchange weights, one with fewer chunks computes the first one again.
        """
        for batch in self.batches(seed, workers, processes):
            yield engine.compute(partial(compute, batch))
        chunks = [-(-size // self.size) for size in self.sizes(processes)]
        own = chunks[processes.rank]
        for _ in range(engine.calls(own, max(chunks)) - own):
            first = range(min(self.size, self.samples))
            for batch in self.batches_of(first, seed, 0, processes):
                engine.compute(partial(compute, batch))

    def sizes(self, processes: Processes) -> list[int]:
        """Return how many samples each process computes."""
        return processes.chunk_sizes(self.samples, self.size)

    def batches(self, seed: int, workers: int, processes: Processes) -> Iterator[Any]:
        """Yield this process's chunks, on the device, with the generators seeded for each."""
        sizes = self.sizes(processes)
        start = sum(sizes[: processes.rank])
        own = range(start, start + sizes[processes.rank])
        yield from self.batches_of(own, seed, workers, processes)

    def batches_of(
        self, samples: range, seed: int, workers: int, processes: Processes
    ) -> Iterator[Any]:
        """Yield the chunks of some samples, as `batches` does."""
        made = batches_in_order(self.dataset, samples, self.size, seed, workers, self.collate)
        for indices, [batch] in made:
            seed_generators(derive_seed(seed, "chunk", int(indices[0])))
            yield moved(batch, processes.device)


def joined(chunks: Sequence[Any], sizes: Sequence[int], processes: Processes) -> Any:
    """Return the rows of all samples, on the CPU, in the kind that each chunk has.

    `sizes`: the number of samples of each process. Raises UserError for chunks of several kinds,
    and for a number of rows that is not the number of samples.
    """
    named = processes.together(lambda: _all_by_name(chunks))
    kinds = {json.dumps([_kind(chunk), [*rows]]) for chunk, rows in zip(chunks, named, strict=True)}
    told = [set(json.loads(text)) for text in processes.texts(json.dumps(sorted(kinds)))]
    everywhere = set[str]().union(*told)
    if len(everywhere) != 1:
        found = " and ".join(sorted(everywhere)) or "nothing: there are no samples"
        raise UserError(f"the chunks of an evaluation gave {found}: expected one kind")
    kind, names = json.loads(everywhere.pop())
    empty = torch.empty(0, device=processes.device)
    tensors = {}
    for name in names:
        own = torch.cat([rows[name] for rows in named]) if named else empty
        tensors[name] = processes.concatenate(own, sizes).cpu()
    if kind == "tensor":
        return tensors[_ALONE]
    return tensors if kind == "dict" else tuple(tensors.values())


def _all_by_name(chunks: Sequence[Any]) -> list[dict[str, Tensor]]:
    """Return the tensors of all chunks by name; UserError where their shapes differ."""
    named = [_by_name(chunk) for chunk in chunks]
    for name in {name: None for rows in named for name in rows}:
        shapes = {tuple(rows[name].shape[1:]) for rows in named if name in rows}
        if len(shapes) > 1:
            raise UserError(
                f"the chunks of an evaluation gave rows of the shapes {sorted(shapes)}: expected "
                "one; pad to a fixed length, or compute one number for each sample"
            )
    return named


def _kind(rows: object) -> str:
    if isinstance(rows, Tensor):
        return "tensor"
    return "dict" if isinstance(rows, Mapping) else "tuple"


def _by_name(rows: Any) -> dict[str, Tensor]:
    """Return the tensors of a chunk by name; UserError if it gave something else."""
    if isinstance(rows, Tensor):
        tensors = {_ALONE: rows}
    elif isinstance(rows, Mapping):
        tensors = {str(name): part for name, part in rows.items()}
    elif isinstance(rows, list | tuple):
        tensors = {str(place): part for place, part in enumerate(rows)}
    else:
        tensors = {}
    lone = [part for part in tensors.values() if not isinstance(part, Tensor) or not part.ndim]
    if lone or not tensors:
        raise UserError(
            f"a chunk of an evaluation gave a {type(rows).__name__}: expected a tensor with a row "
            "for each sample, or a dict or a tuple of such tensors; make a mean of all rows later"
        )
    return tensors
