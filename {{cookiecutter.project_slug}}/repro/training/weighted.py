"""Say what a loss is a sum of: `Weighted` is a sum over samples and the weight to divide it by.

A mean cannot be added up over shards: the mean of two shards' means is another number where the
shards have different weights (tokens that count, pixels that are labelled), and half of it where
someone took it for a sum. So the kit takes a sum and its weight, and refuses a lone tensor.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from repro.core.errors import UserError
from repro.training.pending import LATE_ON, is_late


@dataclass(frozen=True)
class Weighted:
    """The sum of some samples' losses, and what to divide it by to have their mean.

    `sum`: a tensor of one floating-point value. `weight`: their number, or the number of their
    targets that count, or the sum of their weights; 0 for none. `coupled`: a sample's loss depends
    on the others of its shard, as in contrastive learning, so other shards give another loss.
    `also`: other sums to be logged, by name: their means are those by the same weight.
    """

    sum: Tensor
    weight: Tensor | float
    coupled: bool = False
    also: Mapping[str, Tensor | float] = field(default_factory=dict)

    @staticmethod
    def of_mean(
        mean: Tensor,
        weight: Tensor | float,
        coupled: bool = False,
        also: Mapping[str, Tensor | float] | None = None,
    ) -> "Weighted":
        """Return the sum whose mean is known, for losses that come as a mean.

        Where nothing counts (a weight of 0) a mean is NaN, and the sum is 0. The gradient may be
        another one in its last bit than that of the mean, by the way over the sum.
        """
        factor = _on(mean.device, weight)
        counted = torch.where(factor > 0, mean, torch.zeros_like(mean))
        return Weighted(counted * factor.to(_wide(mean.dtype)), weight, coupled, also or {})

    def mean(self) -> Tensor:
        """Return the sum by the weight, in the sum's own type or in float32 where that is less."""
        if not isinstance(self.weight, Tensor):
            return self.sum / self.weight
        dtype = _wide(self.sum.dtype)
        there = self.sum.device
        weight = self.weight.to(there, dtype, non_blocking=is_late(self.sum))
        return self.sum.to(dtype) / weight.reshape(())

    def weight_tensor(self) -> Tensor:
        """Return the weight as a float64 tensor of no dimensions, on the sum's device."""
        return _on(self.sum.device, self.weight, torch.float64).reshape(())


def _on(device: torch.device, weight: Tensor | float, dtype: torch.dtype | None = None) -> Tensor:
    """Return a weight as a tensor on a device; a GPU gets it without being waited for."""
    if isinstance(weight, Tensor):
        return weight.to(device, dtype or weight.dtype, non_blocking=device.type in LATE_ON)
    return torch.full((), weight, dtype=dtype, device=device)


def _wide(dtype: torch.dtype) -> torch.dtype:
    """Return float32 for the short types: a weight of 70,000 is infinite in float16."""
    return torch.float32 if dtype.itemsize < 4 else dtype


class BadLoss(UserError):
    """A loss that no step can be made of: told without the samples, which the caller knows."""


def weighted(loss: object) -> Weighted:
    """Return what a loss function gave; BadLoss if it is no sum with a weight."""
    if isinstance(loss, Tensor):
        raise BadLoss(
            "the loss is a lone tensor, which may be a mean or a sum: return Weighted(sum, "
            "weight), or Weighted.of_mean(mean, weight), with the number of samples or targets as "
            "weight"
        )
    if not isinstance(loss, Weighted):
        raise BadLoss(f"the loss is a {type(loss).__name__}: expected Weighted(sum, weight)")
    weight = loss.weight
    if not isinstance(loss.sum, Tensor) or loss.sum.numel() != 1:
        raise BadLoss("the sum of a Weighted loss is not one value: add up the samples' losses")
    if not loss.sum.requires_grad:
        raise BadLoss(
            "the sum of a Weighted loss has no gradient: it has to follow from the model's weights "
            "(look for detach, item, no_grad or whole numbers on the way)"
        )
    if isinstance(weight, Tensor) and (weight.requires_grad or weight.numel() != 1):
        raise BadLoss(
            "the weight of a loss is not one value without a gradient: use "
            "weight.sum().detach(), or a number"
        )
    return loss


def refuse_weights(total: float, unusable: float) -> None:
    """Raise BadLoss if the weights of a step cannot be divided by.

    `total`: their sum. `unusable`: how many of them are negative or not finite.
    """
    if unusable or not math.isfinite(total):
        raise BadLoss(
            f"a weight of the loss is negative or not finite (all: {total}): expected 0 or more"
        )
    if total <= 0:
        raise BadLoss(
            "the weight of the whole batch is 0, so there is nothing to learn from it: leave out "
            "samples without a target, or make batches larger"
        )
