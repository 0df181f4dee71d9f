"""Compute a step in shards: fixed slices of the batch, computed alone, summed in a fixed order.

A shard has its own seed and its own shape, whoever computes it, so the gradient of a step is a
function of (weights, samples, seed, number of shards) alone. The sum is a fixed binary tree. Each
of W processes (W divides the shards) computes a subtree; what they exchange are bytes, never sums
of a library's own order. So W processes give the bits of one.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from repro.core.errors import UserError
from repro.training.buffers import Buffers, buffers_of
from repro.training.devices import choose_device
from repro.training.halves import check_halves
from repro.training.pending import is_late
from repro.training.processes import Processes
from repro.training.tree_sum import Summands, TreeSum, added
from repro.training.weighted import Weighted, refuse_weights, weighted

__all__ = [
    "Processes",
    "TreeSum",
    "backward_in_shards",
    "choose_device",
    "join_numbers",
    "numbers_of_shard",
    "scale_gradients",
    "shard_slices",
    "slices_here",
]
# Returns the loss of a shard's samples, a Weighted: asked by the number of the shard and its batch.
Loss = Callable[[int, Any], object]
# Takes the weight of a whole batch, and how many shards' are unusable, to be read late.
LateWeights = Callable[[Tensor, Tensor], None]


def shard_slices(size: int, shards: int) -> list[slice]:
    """Cut a batch of `size` samples into `shards` slices; some are empty if there are too few."""
    return [slice(k * size // shards, (k + 1) * size // shards) for k in range(shards)]


def slices_here(size: int, processes: Processes) -> list[slice]:
    """Return the slices of a batch of `size` that this process computes, one for each shard."""
    return shard_slices(size, processes.shards)[processes.own.start : processes.own.stop]


def backward_in_shards(
    model: nn.Module,
    batches: Sequence[Any],
    size: int,
    processes: Processes,
    loss: Loss,
    late: LateWeights | None = None,
) -> Tensor:
    """Add the mean gradient of a batch of `size` to the parameters' `.grad`; return the mean loss.

    `batches`: those of this process's shards (`slices_here`), None for a shard without samples.
    `loss(shard, batch)` seeds the generators for shard number `shard` and returns `Weighted`: the
    SUM of its samples' losses, and the weight to divide it by. Raises BadLoss for one that no mean
    can be made of. `late`: gets weights that are on a GPU, which are then not read here.
    Buffers start each shard from the same values. Floating-point ones (BatchNorm's statistics) get
    the mean over the shards that have samples; those that none changes stay as they are. Others
    (its counter) are the last such shard's: they advance once per step.
    """
    slices = slices_here(size, processes)
    if len(batches) != len(slices):
        raise UserError(
            f"a step got {len(batches)} batches, and this process computes {len(slices)} shards: "
            "expected a batch for each shard; batches.cut cuts a whole one"
        )
    samples = slices[0].stop - slices[0].start
    check_halves(model, batches[0], samples, lambda batch: loss(processes.own.start, batch))
    if processes.shards == 1:
        return _backward_of_one(batches[0], loss, late)
    parameters = list(model.parameters())
    earlier = [parameter.grad for parameter in parameters]  # of the caller: as backward, add to it
    buffers = buffers_of(model)
    buffers.begin()
    sums = TreeSum()
    for number, batch in zip(processes.own, batches, strict=True):
        if batch is None:
            sums.add([None] * (3 + len(parameters) + len(buffers.like)))
            continue
        buffers.reset()
        for parameter in parameters:
            parameter.grad = None
        of_loss = _backward_of_shard(batch, number, size, loss)
        gradients = [parameter.grad for parameter in parameters]
        sums.add([*of_loss, *gradients, *buffers.values()])
    join = _joined if late is None else partial(_joined_late, late)
    mean, totals = join(sums.total(), [*parameters, *buffers.like], size, processes)
    _add_gradients(parameters, earlier, totals[: len(parameters)])
    _join_buffers(buffers, totals[len(parameters) :], size, processes)
    return mean


def _backward_of_one(batch: Any, loss: Loss, late: LateWeights | None) -> Tensor:
    """Do as a plain loop does, with its bits: the mean of the whole batch, and backward."""
    whole = weighted(loss(0, batch))
    mean = whole.mean()
    mean.backward()
    if late and isinstance(whole.weight, Tensor) and is_late(whole.weight):
        late(whole.weight, whole.weight < 0)
        return mean.detach()
    weight = float(whole.weight)
    refuse_weights(weight, unusable=float(weight < 0))
    return mean.detach()


def _backward_of_shard(batch: Any, number: int, size: int, loss: Loss) -> list[Tensor]:
    """Go backward through a shard's share; return its sum, its weight, whether that is unusable."""
    part = weighted(loss(number, batch))
    (part.sum / size).backward()
    return numbers_of_shard(part)


def numbers_of_shard(part: Weighted) -> list[Tensor]:
    """Return a shard's sum and weight, and whether that is unusable, for `join_numbers`."""
    weight = part.weight_tensor()
    unusable = ~(torch.isfinite(weight) & (weight >= 0))
    return [part.sum.detach().double().reshape(()), weight.clone(), unusable.double()]


def join_numbers(
    own: Summands, size: int, processes: Processes, late: LateWeights | None
) -> tuple[Tensor, Tensor | float]:
    """Return the mean loss of a batch of `size`, and what its gradients have to be scaled by.

    `own`: the sums of this process's losses and weights, and how many of these are unusable. The
    gradients are those of the sum of all losses, divided by `size`.
    """
    if late is None:
        numbers, _ = _split(own)
        (total, weight, unusable), _ = processes.sum_with_numbers(numbers, [], [])
        refuse_weights(weight, unusable)
        return torch.tensor(total / weight, dtype=torch.float64), size / weight
    number = torch.zeros((), dtype=torch.float64, device=processes.device)
    totals = [each for each in processes.sum(own, [number] * 3) if each is not None]
    late(totals[1], totals[2])
    return totals[0] / totals[1], _factor(size, totals[1])


def scale_gradients(gradients: Sequence[Tensor], factor: Tensor | float) -> None:
    """Multiply gradients by the factor of a step; 1 changes nothing."""
    if not isinstance(factor, Tensor) and factor == 1:
        return
    for gradient in gradients:
        if isinstance(factor, Tensor) and gradient.dtype.itemsize < 4:
            gradient.copy_(gradient.float() * factor.float())  # so it is rounded once
        else:
            gradient.mul_(factor)


def _split(totals: Summands) -> tuple[list[float], Summands]:
    """Return the three numbers that a step's sums begin with, and the tensors after them.

    A process whose shards have no samples has minus zeros, which change no number.
    """
    numbers = [total for total in totals[:3] if total is not None]
    return torch.stack(numbers).tolist() if numbers else [-0.0] * 3, totals[3:]


def _joined(
    own: Summands, like: Sequence[Tensor], size: int, processes: Processes
) -> tuple[Tensor, Summands]:
    """Return the mean loss of all processes' shards, and the totals, their gradients weighted.

    `own`: the sum of this process's. `like`: tensors like those after the first three.
    """
    numbers, tensors = _split(own)
    (total, weight, unusable), totals = processes.sum_with_numbers(numbers, tensors, like)
    refuse_weights(weight, unusable)
    scale_gradients(_gradients_of(totals, like), size / weight)
    return torch.tensor(total / weight, dtype=torch.float64), totals


def _joined_late(
    late: LateWeights, own: Summands, like: Sequence[Tensor], size: int, processes: Processes
) -> tuple[Tensor, Summands]:
    """Do as `_joined` does, with the same bits, and leave the numbers where they are."""
    number = torch.zeros((), dtype=torch.float64, device=like[0].device)
    (total, weight, unusable, *totals) = processes.sum(own, [number, number, number, *like])
    assert total is not None
    assert weight is not None
    assert unusable is not None
    late(weight, unusable)
    scale_gradients(_gradients_of(totals, like), _factor(size, weight))
    return total / weight, totals


def _factor(size: int, weight: Tensor) -> Tensor:
    """Return size / weight, rounded once: of a number by a tensor torch takes the reciprocal."""
    return torch.full_like(weight, size) / weight


def _gradients_of(totals: Summands, like: Sequence[Tensor]) -> list[Tensor]:
    """Return those of the totals that are gradients: those like a parameter, if there are any."""
    pairs = zip(totals, like, strict=True)
    return [t for t, each in pairs if t is not None and isinstance(each, nn.Parameter)]


def _join_buffers(buffers: Buffers, totals: Summands, size: int, processes: Processes) -> None:
    """Give the buffers what the shards that have samples made of them."""
    filled = [n for n, s in enumerate(shard_slices(size, processes.shards)) if s.start < s.stop]
    buffers.set_means(totals, len(filled))
    buffers.share_last(processes, source=filled[-1] * processes.size // processes.shards)


def _add_gradients(parameters: list[nn.Parameter], earlier: Summands, totals: Summands) -> None:
    """Give each parameter the gradient that it had before the step, plus that of the step."""
    for parameter, before, gradient in zip(parameters, earlier, totals, strict=True):
        parameter.grad = added(before, gradient)
