"""What an evaluation computes of each chunk of samples, and how the chunks are put together.

A chunk gives `Outputs`: rows (something for each sample), counts (whole numbers that add up) and
sums (numbers that add up). Promises the same result for every number of processes: rows in the
samples' order, counts exactly, and sums correctly rounded. Counts and sums are added up chunk by
chunk, so an evaluation that has no rows never holds what all samples gave.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch
from torch import Tensor

from repro.core.errors import UserError
from repro.training.processes import Processes
from repro.training.rows import joined

Rows: TypeAlias = Tensor | Sequence[Tensor]


@dataclass(frozen=True)
class Outputs:
    """What is computed of some samples, on any device; of all samples, on the CPU.

    `rows`: by name, a tensor with a row for each sample, or a list with a tensor for each sample
    whose first dimensions may differ (boxes, tokens). `counts`: whole numbers, or tensors of them,
    of the same shape in each chunk: how many of a kind were taken for another. `sums`: single
    numbers, in float64. Of all samples, a single number is an int or a float: a division of these
    is exact to the last bit, while one of tensors would be done in float32.
    """

    # Any: the author knows which kind each is, and mypy need not be told at each use.
    rows: Mapping[str, Any] = field(default_factory=dict)
    counts: Mapping[str, Any] = field(default_factory=dict)
    sums: Mapping[str, Any] = field(default_factory=dict)


class Collected:
    """The outputs of this process's chunks, as they come."""

    def __init__(self) -> None:
        self._rows: list[dict[str, Rows]] = []
        self._counts: dict[str, Tensor] = {}
        self._sums: dict[str, list[float]] = {}
        self._names: list[list[str]] | None = None

    def add(self, outputs: object) -> None:
        """Take the outputs of the next chunk; UserError for what cannot be put together."""
        if not isinstance(outputs, Outputs):
            raise UserError(
                f"evaluate(batch) returned a {type(outputs).__name__}: expected "
                "Outputs(rows={...}, counts={...}, sums={...})"
            )
        names = [sorted(kind) for kind in (outputs.rows, outputs.counts, outputs.sums)]
        if self._names is not None and names != self._names:
            raise UserError(
                f"evaluate(batch) returned {_told(names)}, and {_told(self._names)} for the chunk "
                "before: expected the same names for each"
            )
        self._names = names
        if outputs.rows:
            self._rows.append(dict(outputs.rows))
        for name, count in outputs.counts.items():
            self._counts[name] = _added(name, self._counts.get(name), count)
        for name, value in outputs.sums.items():
            self._sums.setdefault(name, []).append(_single(name, value))

    def joined(self, sizes: Sequence[int], processes: Processes) -> Outputs:
        """Return the outputs of all processes, in all of them.

        `sizes`: the number of samples of each process.
        """
        ragged = self._ragged()
        own = {
            "rows": bool(self._rows),
            "ragged": ragged,
            "counts": {name: [*count.shape] for name, count in self._counts.items()},
            "sums": self._sums,
        }
        told = [json.loads(text) for text in processes.texts(json.dumps(own))]
        return Outputs(
            rows=self._joined_rows(told, ragged, sizes, processes),
            counts=self._joined_counts(told, processes),
            sums=_joined_sums(told),
        )

    def _ragged(self) -> list[str]:
        """Return the names of the rows that come as a list of tensors."""
        first = self._rows[0] if self._rows else {}
        return [name for name, rows in first.items() if not isinstance(rows, Tensor)]

    def _joined_rows(
        self,
        told: list[Any],
        ragged: list[str],
        sizes: Sequence[int],
        processes: Processes,
    ) -> dict[str, Rows]:
        if not any(each["rows"] for each in told):
            return {}
        even = [_without(rows, ragged) for rows in self._rows]
        has_even = not self._rows or any(even)
        everywhere = processes.total([has_even])[0] == processes.size
        result: dict[str, Rows] = {}
        if everywhere:
            result.update(joined(even, sizes, processes))
        for name in next((each["ragged"] for each in told if each["ragged"]), []):
            result[name] = self._joined_ragged(name, sizes, processes)
        return result

    def _joined_ragged(self, name: str, sizes: Sequence[int], processes: Processes) -> list[Tensor]:
        """Join lists of tensors: their lengths, and all their values one after the other."""
        tensors = [tensor for rows in self._rows for tensor in rows[name]]
        lengths = torch.tensor([len(tensor) for tensor in tensors], device=processes.device)
        all_lengths = processes.concatenate(lengths.long(), sizes).tolist()
        starts = [sum(sizes[:rank]) for rank in range(len(sizes))]
        values = [
            sum(all_lengths[start : start + size])
            for start, size in zip(starts, sizes, strict=True)
        ]
        flat = torch.cat(tensors) if tensors else torch.empty(0, device=processes.device)
        return list(processes.concatenate(flat, values).cpu().split(all_lengths))

    def _joined_counts(self, told: list[Any], processes: Processes) -> dict[str, Tensor | int]:
        shapes: dict[str, list[int]] = {}
        for each in told:
            shapes.update(each["counts"])
        own = [self._counts.get(name, torch.zeros(shapes[name]).long()) for name in sorted(shapes)]
        flat = torch.cat([count.reshape(-1).cpu() for count in own]) if own else torch.empty(0)
        totals = torch.tensor(processes.total(flat.tolist()), dtype=torch.int64) if own else flat
        pieces = totals.split([count.numel() for count in own]) if own else []
        return {
            name: piece.view(shapes[name]) if shapes[name] else int(piece)
            for name, piece in zip(sorted(shapes), pieces, strict=True)
        }


def _without(rows: Mapping[str, Rows], ragged: Iterable[str]) -> dict[str, Rows]:
    return {name: part for name, part in rows.items() if name not in ragged}


def _joined_sums(told: list[Any]) -> dict[str, float]:
    """Add all chunks' numbers, correctly rounded: so their order does not matter."""
    chunks: dict[str, list[float]] = {}
    for each in told:
        for name, values in each["sums"].items():
            chunks.setdefault(name, []).extend(values)
    return {name: _sum(values) for name, values in chunks.items()}


def _sum(values: list[float]) -> float:
    return math.fsum(values) if all(map(math.isfinite, values)) else sum(values)


def _single(name: str, value: object) -> float:
    """Return a sum of a chunk as a float; UserError for what is not one number."""
    if isinstance(value, Tensor) and value.numel() == 1:
        return float(value.item())
    if isinstance(value, int | float):
        return float(value)
    kind = [*value.shape] if isinstance(value, Tensor) else type(value).__name__
    raise UserError(
        f"evaluate(batch): the sum {name} is {kind}: expected one number; something for each "
        "sample belongs into rows"
    )


def _added(name: str, before: Tensor | None, count: object) -> Tensor:
    """Return a count with that of the next chunk added, int64, on its device."""
    if isinstance(count, int) and not isinstance(count, bool):
        count = torch.tensor(count)
    if not isinstance(count, Tensor) or count.is_floating_point() or count.is_complex():
        kind = count.dtype if isinstance(count, Tensor) else type(count).__name__
        raise UserError(
            f"evaluate(batch): the count {name} is {kind}: expected a whole number, or a "
            "tensor of whole numbers; other numbers belong into sums"
        )
    if before is None:
        return count.long()
    if before.shape != count.shape:
        raise UserError(
            f"evaluate(batch): the count {name} has the shape {tuple(count.shape)}, and "
            f"{tuple(before.shape)} in the chunk before: expected the same"
        )
    return before + count.long()


def _told(names: list[list[str]]) -> str:
    kinds = zip(("rows", "counts", "sums"), names, strict=True)
    return "; ".join(f"{kind} {', '.join(each)}" for kind, each in kinds if each) or "nothing"
