"""Give the means of what a loss tells beside itself: `Weighted(sum, weight, also={...})`.

Each is a sum over samples, divided by the same weight as the loss: the samples that are right, the
parts that a loss is made of. Summed as the gradients are, so any number of processes gives the same
numbers.
"""

import json
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from repro.core.errors import UserError
from repro.training.pending import LATE_ON
from repro.training.processes import Processes
from repro.training.tree_sum import TreeSum
from repro.training.weighted import Weighted

_TAKEN = ("loss", "gradient_norm")  # by the numbers of a step


class MeansBeside:
    """The means beside the losses of a training's steps; the names stay those of the first step."""

    def __init__(self, processes: Processes) -> None:
        self._processes = processes
        self._names: dict[int, list[str]] = {}

    def of_loss(
        self, place: int, shards: Sequence[Weighted | None], late: bool = False
    ) -> Mapping[str, float | Tensor]:
        """Return the means beside loss number `place` of a step, by name.

        `shards`: what the loss gave for each shard of this process; None for an empty one.
        `late`: return tensors on the device, which nobody has read.
        UserError if other names come than in the first step.
        """
        given = [sorted(shard.also) for shard in shards if shard]
        for name in _TAKEN:
            if any(name in names for names in given):
                raise UserError(f"a loss tells {name} in also: that is a step's own: rename it")
        if place not in self._names:
            self._names[place] = self._agreed(given)
        names = self._names[place]
        for other in given:
            if other != names:
                raise UserError(
                    f"a loss tells {', '.join(other) or 'nothing'} in also, and "
                    f"{', '.join(names) or 'nothing'} before: expected the same names in each step"
                )
        if not names:
            return {}
        return self._late_means(names, shards) if late else self._means(names, shards)

    def _agreed(self, given: list[list[str]]) -> list[str]:
        """Return the names that a process with samples has: one without any knows none."""
        told = [json.loads(text) for text in self._processes.texts(json.dumps(given[:1]))]
        return next((names[0] for names in told if names), [])

    def _means(self, names: list[str], shards: Sequence[Weighted | None]) -> dict[str, float]:
        sums = TreeSum()
        for shard in shards:
            values = _numbers(names, shard).cpu() if shard else _nothing(names)
            sums.add([values])
        (own,) = sums.total()
        assert own is not None
        totals, _ = self._processes.sum_with_numbers(own.tolist(), [], [])
        *means, weight = totals
        return {name: value / weight for name, value in zip(names, means, strict=True)}

    def _late_means(self, names: list[str], shards: Sequence[Weighted | None]) -> dict[str, Tensor]:
        device = self._processes.device
        sums = TreeSum()
        for shard in shards:
            sums.add([_numbers(names, shard, device) if shard else _nothing(names, device)])
        (own,) = sums.total()
        assert own is not None
        (totals,) = self._processes.sum([own], [own])
        assert totals is not None
        *means, weight = totals.unbind()
        return {name: value / weight for name, value in zip(names, means, strict=True)}


def _nothing(names: list[str], device: torch.device | None = None) -> Tensor:
    """Return what a shard without samples adds to the names' sums and to the weight."""
    return torch.zeros(len(names) + 1, dtype=torch.float64, device=device)


def _numbers(names: list[str], shard: Weighted, device: torch.device | None = None) -> Tensor:
    """Return what a shard tells, and its weight, as float64, on the device of its sum."""
    there = device or shard.sum.device
    parts = [_value(name, shard.also[name], there) for name in names]
    weight = shard.weight_tensor().to(there, non_blocking=there.type in LATE_ON)
    return torch.stack([*parts, weight])


def _value(name: str, value: object, device: torch.device) -> Tensor:
    if isinstance(value, Tensor) and value.numel() == 1:
        number = value.detach().double().reshape(())
        return number.to(device, non_blocking=device.type in LATE_ON)
    if isinstance(value, int | float):
        return torch.full((), float(value), dtype=torch.float64, device=device)
    raise UserError(
        f"a loss tells {name} in also as a {type(value).__name__}: expected one number, the sum "
        "over the shard's samples"
    )
