"""Fingerprint a GPU's tensors by few kernels, without waiting for them.

All tensors of a step are copied next to each other (a kernel for each type), multiplied by their
odd numbers (one) and added up by group (two or three). The sums are read with the step's numbers
(repro/training/pending.py). The fingerprints are those of repro/runs/fingerprints.py.

That takes memory: three times as many bytes as gradients, weights and buffers have. Of a model with
more than `_MOST` words, tensors from `_LARGE` values on are read where they lie, by two kernels
each.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from repro.runs.fingerprints import (
    EFFECTS,
    Layout,
    Quantities,
    Tensors,
    as_hex,
    as_int64,
    dot_of,
    fingerprint,
    taken_of,
)
from repro.training.pending import Arriving, is_late

_MOST = 1 << 25  # words of 8 bytes: 256 MiB, as many for the odd numbers and for the products
_LARGE = 1 << 14  # values
_KINDS = 4  # of layouts that memory is kept for

Fingerprints = Callable[[], list[int]]  # of groups of tensors; called once they were read


class Queued:
    """Memory for some groups of tensors, used in each step anew: a GPU does one after the other."""

    def __init__(self, groups: Sequence[Tensors]) -> None:
        present = [tensor for group in groups for tensor in group if tensor is not None]
        words = sum(-(-tensor.numel() * tensor.element_size() // 8) for tensor in present)
        layout = Layout(groups, _LARGE if words > _MOST else torch.inf)
        device = present[0].device if present else torch.device("cpu")
        self._words = torch.zeros(layout.words, dtype=torch.int64, device=device)
        self._odd_numbers = torch.zeros_like(self._words)
        self._copies: dict[torch.dtype, tuple[list[Tensor], list[int]]] = {}  # to where, from where
        for small in layout.small:
            self._odd_numbers[small.part] = small.odd_numbers
            view = self._words[small.part].view(small.tensor.dtype)[: small.tensor.numel()]
            views, places = self._copies.setdefault(small.tensor.dtype, ([], []))
            views.append(view.view(small.tensor.shape))
            places.append(small.place)
        self._sizes = [group.size for group in layout.groups]
        self._sizes_there: Tensor | None = None  # once they are asked for
        self._large = layout.large
        self._rows = _rows([group.part for group in layout.groups])

    @torch.no_grad()
    def take(self, tensors: Sequence[Any], arriving: Arriving) -> Fingerprints:
        """Queue what fingerprints the tensors as they are now."""
        products = self._products(tensors)
        sums = [
            (groups, arriving.words(_sums(products, groups, part))) for groups, part in self._rows
        ]
        large = [
            (each, arriving.words(dot_of(tensors[each.place], each.odd_numbers)))
            for each in self._large
        ]

        def totals() -> list[int]:
            found = [*self._sizes]
            for groups, late in sums:
                for group, value in zip(groups, late.values, strict=True):
                    found[group] += value
            for each, late in large:
                found[each.group] += each.factor * late.values[0]
            return found

        return totals

    @torch.no_grad()
    def there(self, tensors: Sequence[Any]) -> Tensor:
        """Return the fingerprint of each group, int64, where the tensors are."""
        if self._sizes_there is None:
            sizes = torch.tensor([as_int64(size) for size in self._sizes], dtype=torch.int64)
            self._sizes_there = sizes.to(self._words.device)
        products = self._products(tensors)
        found = self._sizes_there.clone()
        for groups, part in self._rows:
            for group, value in zip(groups, _sums(products, groups, part).unbind(), strict=True):
                found[group] += value
        for each in self._large:
            found[each.group] += each.factor * dot_of(tensors[each.place], each.odd_numbers)
        return found

    def _products(self, tensors: Sequence[Any]) -> Tensor:
        """Return the words of the small tensors, each times its odd number."""
        for views, places in self._copies.values():
            torch._foreach_copy_(views, [tensors[place] for place in places])
        return self._words * self._odd_numbers  # not in place: zeros fill a tensor's last word


def _sums(products: Tensor, groups: Sequence[int], part: slice) -> Tensor:
    """Return the sum of each of some groups, which lie next to each other and have one size."""
    return products[part].view(len(groups), -1).sum(1)


def _rows(parts: Sequence[slice]) -> list[tuple[list[int], slice]]:
    """Return which groups are added up by one kernel, and where they lie: neighbours of one size.

    Gradients and weights are, where no weight is without a gradient.
    """
    rows: list[tuple[list[int], slice]] = []
    for group, part in enumerate(parts):
        size = part.stop - part.start
        if not size:
            continue
        if rows:
            groups, before = rows[-1]
            if size * len(groups) == before.stop - before.start:
                rows[-1] = [*groups, group], slice(before.start, part.stop)
                continue
        rows.append(([group], part))
    return rows


def late_state_quantities(model: nn.Module, arriving: Arriving) -> Quantities:
    """Take a model's gradients, weights and buffers, to be fingerprinted once they were read."""
    groups, kind, memory = taken_of(model, gradients=True)
    queued = queued_of(groups, kind, memory.queued)
    totals = queued.take([tensor for group in groups for tensor in group], arriving)
    return lambda: {name: as_hex(total) for name, total in zip(EFFECTS, totals(), strict=True)}


def queued_of(groups: Sequence[Tensors], kind: object, known: dict[object, Any]) -> Queued:
    """Return the memory for a kind of groups: what is known, or new one."""
    if kind not in known:
        if len(known) >= _KINDS:
            known.clear()
        known[kind] = Queued(groups)
    found: Queued = known[kind]
    return found


@torch.no_grad()
def late_fingerprint(tensors: Tensors, arriving: Arriving) -> Callable[[], int]:
    """Return what gives the fingerprint of tensors of any sizes once they were read."""
    late = [tensor if tensor is not None and is_late(tensor) else None for tensor in tensors]
    pairs = zip(tensors, late, strict=True)
    here = [tensor if other is None else None for tensor, other in pairs]
    known = fingerprint(here)  # None adds nothing
    totals = Queued([late]).take(late, arriving)
    return lambda: as_int64(known + totals()[0])
