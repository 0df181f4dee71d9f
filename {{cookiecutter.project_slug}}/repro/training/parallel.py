"""Compute a step in shards: fixed slices of the batch, computed alone, summed in a fixed order.

A shard has its own seed and its own shape, whoever computes it, so the gradient of a step is a
function of (weights, samples, seed, number of shards) alone. The sum is a fixed binary tree. Each
of W processes (W divides the shards) computes a subtree; what they exchange are bytes, never sums
of a library's own order. So W processes give the bits of one.
"""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn

from repro.training.buffers import buffers_of
from repro.training.processes import Processes, choose_device
from repro.training.tree_sum import Summands, TreeSum, added

__all__ = [
    "Processes",
    "TreeSum",
    "backward_in_shards",
    "choose_device",
    "parts_of_shards",
    "shard_slices",
]


def shard_slices(size: int, shards: int) -> list[slice]:
    """Cut a batch of `size` samples into `shards` slices; some are empty if there are too few."""
    return [slice(k * size // shards, (k + 1) * size // shards) for k in range(shards)]


def parts_of_shards(
    batch: Sequence[Tensor] | None, size: int, processes: Processes
) -> Iterator[tuple[int, list[Tensor] | None]]:
    """Yield number and slices of each shard of this process; None for a shard without samples."""
    slices = shard_slices(size, processes.shards)
    offset = processes.part(size).start
    for number in processes.own:
        part = slice(slices[number].start - offset, slices[number].stop - offset)
        empty = batch is None or part.start == part.stop
        yield number, None if empty else [tensor[part] for tensor in batch or ()]


def backward_in_shards(
    model: nn.Module,
    batch: Sequence[Tensor] | None,
    size: int,
    processes: Processes,
    forward: Callable[..., Tensor],
) -> Tensor:
    """Add the mean gradient of a batch of `size` to the parameters' `.grad`; return its loss.

    `batch`: this process's part of it (`Processes.part`), tensors with the samples in their first
    dimension; None if it has none. `forward(shard, *tensors)` seeds the generators for shard number
    `shard` and returns the SUM of the losses of its samples.
    Buffers start each shard from the same values. Floating-point ones (BatchNorm's statistics) get
    the mean over the shards that have samples; those that none changes stay as they are. Others
    (its counter) are the last such shard's: they advance once per step.
    """
    if processes.shards == 1 and batch is not None:
        loss = forward(0, *batch) / size
        loss.backward()
        return loss.detach()
    parameters = list(model.parameters())
    earlier = [parameter.grad for parameter in parameters]  # of the caller: as backward, add to it
    buffers = buffers_of(model)
    buffers.begin()
    sums = TreeSum()
    for number, part in parts_of_shards(batch, size, processes):
        if part is None:
            sums.add([None] * (1 + len(parameters) + len(buffers.like)))
            continue
        buffers.reset()
        for parameter in parameters:
            parameter.grad = None
        loss = forward(number, *part) / size
        loss.backward()
        gradients = [parameter.grad for parameter in parameters]
        # float: a process without samples does not know another type
        sums.add([loss.detach().float(), *gradients, *buffers.values()])
    loss_like = torch.zeros((), device=processes.device)
    total_loss, *totals = processes.sum(sums.total(), [loss_like, *parameters, *buffers.like])
    _add_gradients(parameters, earlier, totals[: len(parameters)])
    filled = [n for n, s in enumerate(shard_slices(size, processes.shards)) if s.start < s.stop]
    buffers.set_means(totals[len(parameters) :], len(filled))
    buffers.share_last(processes, source=filled[-1] * processes.size // processes.shards)
    assert total_loss is not None  # at least one shard has samples
    return total_loss


def _add_gradients(parameters: list[nn.Parameter], earlier: Summands, totals: Summands) -> None:
    """Give each parameter the gradient that it had before the step, plus that of the step."""
    for parameter, before, gradient in zip(parameters, earlier, totals, strict=True):
        parameter.grad = added(before, gradient)
