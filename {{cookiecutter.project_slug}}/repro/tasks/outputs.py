"""What an evaluation computes of each chunk of samples, and how the chunks are put together.

A chunk gives `Outputs`: rows (something for each sample), counts (whole numbers that add up) and
sums (numbers that add up). Promises the same result for every number of processes: rows in the
samples' order, counts exactly, and sums correctly rounded. Counts and sums are added up chunk by
chunk, so an evaluation that has no rows never holds what all samples gave.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypedDict

import torch
from torch import Tensor

from repro.core.errors import UserError, refuse
from repro.runs.numbers import told_kind
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


class _Told(TypedDict):
    """What a process tells the others of its chunks; `kinds` is None if it has no samples."""

    kinds: list[list[str]] | None
    lists: list[str]  # the names of rows that are lists
    rows: dict[str, int]  # their numbers
    counts: dict[str, list[int]]  # their shapes
    sums: dict[str, list[float]]


class Collected:
    """The outputs of this process's chunks, as they come."""

    def __init__(self) -> None:
        self._rows: list[dict[str, Rows]] = []
        self._counts: dict[str, Tensor] = {}
        self._sums: dict[str, list[float]] = {}
        self._kinds: list[list[str]] | None = None

    def add(self, outputs: object) -> None:
        """Take the outputs of the next chunk; UserError for what cannot be put together."""
        if not isinstance(outputs, Outputs):
            raise UserError(
                f"evaluate(batch) returned a {type(outputs).__name__}: expected "
                "Outputs(rows={...}, counts={...}, sums={...})"
            )
        for name, rows in outputs.rows.items():
            _refuse_no_rows(name, rows)
        kinds = [
            sorted(_kind(name, rows) for name, rows in outputs.rows.items()),
            sorted(outputs.counts),
            sorted(outputs.sums),
        ]
        if self._kinds is not None and kinds != self._kinds:
            raise UserError(
                f"evaluate(batch) returned {_told(kinds)}, and {_told(self._kinds)} for the chunk "
                "before: expected the same for each"
            )
        self._kinds = kinds
        if outputs.rows:
            self._rows.append(dict(outputs.rows))
        for name, count in outputs.counts.items():
            self._counts[name] = _added(name, self._counts.get(name), count)
        for name, value in outputs.sums.items():
            self._sums.setdefault(name, []).append(_number(name, value))

    def joined(self, sizes: Sequence[int], processes: Processes) -> Outputs:
        """Return the outputs of all processes, in all of them.

        `sizes`: the number of samples of each process. UserError, the same in all processes, where
        they do not fit together.
        """
        processes.together(self._refuse_other_forms)
        first = self._rows[0] if self._rows else {}
        own: _Told = {
            "kinds": self._kinds,
            "lists": [name for name, rows in first.items() if not isinstance(rows, Tensor)],
            "rows": {name: sum(len(chunk[name]) for chunk in self._rows) for name in first},
            "counts": {name: [*count.shape] for name, count in self._counts.items()},
            "sums": self._sums,
        }
        told: list[_Told] = [json.loads(text) for text in processes.texts(json.dumps(own))]
        refuse(_faults_of(told, sizes))
        # A process without samples knows nothing; those with samples know the same.
        known = next((each for each in told if each["kinds"]), own)
        return Outputs(
            rows=self._joined_rows(known, sizes, processes),
            counts=self._joined_counts(known["counts"], processes),
            sums=_joined_sums(told),
        )

    def _joined_rows(
        self, known: _Told, sizes: Sequence[int], processes: Processes
    ) -> dict[str, Rows]:
        lists = known["lists"]
        result: dict[str, Rows] = {}
        if len(lists) < len(known["rows"]):
            even = [
                {name: rows for name, rows in chunk.items() if name not in lists}
                for chunk in self._rows
            ]
            result.update(joined(even, sizes, processes))
        for name in lists:
            result[name] = self._joined_lists(name, sizes, processes)
        return result

    def _joined_lists(self, name: str, sizes: Sequence[int], processes: Processes) -> list[Tensor]:
        """Join lists of tensors: their lengths, and all their values one after the other."""
        tensors = [tensor for rows in self._rows for tensor in rows[name]]
        lengths = torch.tensor([len(tensor) for tensor in tensors], device=processes.device)
        all_lengths = processes.concatenate(lengths.long(), sizes).tolist()
        starts = [sum(sizes[:rank]) for rank in range(len(sizes))]
        values = [
            sum(all_lengths[start : start + size])
            for start, size in zip(starts, sizes, strict=True)
        ]
        own = _not_empty(tensors)
        flat = torch.cat(own) if own else torch.empty(0, device=processes.device)
        return list(processes.concatenate(flat, values).cpu().split(all_lengths))

    def _refuse_other_forms(self) -> None:
        """Raise UserError where this process's lists hold tensors that cannot be joined."""
        lists = [(name, rows) for chunk in self._rows for name, rows in chunk.items()]
        for name in {name: None for name, rows in lists if not isinstance(rows, Tensor)}:
            tensors = [tensor for key, rows in lists if key == name for tensor in rows]
            forms = {(str(each.dtype), tuple(each.shape[1:])) for each in _not_empty(tensors)}
            if len(forms) > 1:
                raise UserError(
                    f"evaluate(batch): the rows {name} are of the forms {sorted(forms)}: expected "
                    "tensors that differ in their first dimension alone"
                )

    def _joined_counts(
        self, shapes: Mapping[str, list[int]], processes: Processes
    ) -> dict[str, Tensor | int]:
        names = sorted(shapes)
        if not names:
            return {}
        own = [self._counts.get(name, torch.zeros(shapes[name]).long()) for name in names]
        flat = torch.cat([count.reshape(-1).cpu() for count in own])
        totals = torch.tensor(processes.total(flat.tolist()), dtype=torch.int64)
        pieces = totals.split([count.numel() for count in own])
        return {
            name: piece.view(shapes[name]) if shapes[name] else int(piece)
            for name, piece in zip(names, pieces, strict=True)
        }


def _faults_of(told: Sequence[_Told], sizes: Sequence[int]) -> list[str]:
    """Return what keeps the outputs of all processes from being put together, a line for each."""
    with_samples = [each for each in told if each["kinds"]]
    faults = []
    for each in with_samples[1:]:
        first = with_samples[0]
        if (each["kinds"], each["counts"]) != (first["kinds"], first["counts"]):
            faults.append(
                f"evaluate(batch) returned {_told(each['kinds'] or [])} in one process, and "
                f"{_told(first['kinds'] or [])} in another, with counts of the shapes "
                f"{each['counts']} and {first['counts']}: expected the same in each"
            )
    for each, size in zip(told, sizes, strict=True):
        for name, count in each["rows"].items():
            if count != size:
                faults.append(
                    f"evaluate(batch) gave {count} rows {name} for {size} samples: expected one "
                    "for each; what is computed of a whole chunk belongs into counts or sums"
                )
    return faults[:1]


def _not_empty(tensors: list[Tensor]) -> list[Tensor]:
    """Return the tensors that hold something, or the first one: an empty one may have any form."""
    return [tensor for tensor in tensors if len(tensor)] or tensors[:1]


def _refuse_no_rows(name: str, rows: object) -> None:
    """Raise UserError for what has no row for each sample."""
    parts = rows if isinstance(rows, list | tuple) else [rows]
    for part in parts:
        if not isinstance(part, Tensor) or not part.ndim:
            found = "a lone value" if isinstance(part, Tensor) else f"a {type(part).__name__}"
            where = " in its list" if parts is rows else ""
            raise UserError(
                f"evaluate(batch): the rows {name} have {found}{where}: expected a tensor with a "
                "row for each sample, or a list with a tensor for each sample whose first "
                "dimensions may differ"
            )


def _kind(name: str, rows: Rows) -> str:
    return name if isinstance(rows, Tensor) else f"{name} as a list"


def _joined_sums(told: Sequence[_Told]) -> dict[str, float]:
    """Add all chunks' numbers, correctly rounded: so their order does not matter."""
    chunks: dict[str, list[float]] = {}
    for each in told:
        for name, values in each["sums"].items():
            chunks.setdefault(name, []).extend(values)
    return {name: _sum(values) for name, values in chunks.items()}


def _sum(values: list[float]) -> float:
    return math.fsum(values) if all(map(math.isfinite, values)) else sum(values)


def _number(name: str, value: object) -> float:
    """Return a chunk's number of a sum; UserError if it is no one number."""
    if isinstance(value, Tensor) and value.numel() == 1 and not value.is_complex():
        return float(value)
    if isinstance(value, int | float):
        return float(value)
    raise UserError(
        f"evaluate(batch): the sum {name} is {told_kind(value)}: expected one number; something "
        "for each sample belongs into rows; or tell several numbers as sums of one name each"
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


def _told(kinds: Sequence[Sequence[str]]) -> str:
    named = zip(("rows", "counts", "sums"), kinds, strict=True)
    return "; ".join(f"{kind} {', '.join(each)}" for kind, each in named if each) or "nothing"
