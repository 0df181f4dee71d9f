"""Shards: fixed slices of the global batch, computed alone and summed in a fixed order.

A shard has its own seed and its own shape, whoever computes it, so the gradient of a step is a
function of (weights, samples, seed, number of shards) alone. The sum is a fixed binary tree:
floating-point addition is not associative. One process computes all shards at this stage.
"""

from collections.abc import Callable, Sequence

from torch import Tensor, nn

Summands = list[Tensor | None]


def shard_slices(size: int, shards: int) -> list[slice]:
    """Cut a batch of `size` samples into `shards` slices; some are empty if there are too few."""
    return [slice(k * size // shards, (k + 1) * size // shards) for k in range(shards)]


class TreeSum:
    """Sums lists of tensors in a fixed binary tree, in memory of log2(count) lists.

    Works like a binary counter: two partial sums of equal size are added and carried up. `None`
    (an unused parameter's gradient, an empty shard) counts as zero.
    """

    def __init__(self) -> None:
        self._levels: list[Summands | None] = []

    def add(self, summands: Summands) -> None:
        """Add the next list; all lists have the same length. Keeps references, changes none."""
        for level, partial in enumerate(self._levels):
            if partial is None:
                self._levels[level] = summands
                return
            summands = [_add(a, b) for a, b in zip(partial, summands, strict=True)]
            self._levels[level] = None
        self._levels.append(summands)

    def total(self) -> Summands:
        """The sum; the number of lists added must be a power of two."""
        *below, top = self._levels
        if top is None or any(level is not None for level in below):
            raise ValueError("the number of summands is not a power of two")
        return top


def _add(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    if a is None or b is None:
        return b if a is None else a
    return a + b


def backward_in_shards(
    model: nn.Module, batch: Sequence[Tensor], shards: int, forward: Callable[..., Tensor]
) -> Tensor:
    """Put the mean gradient of the batch into the parameters' `.grad`; return the mean loss.

    `batch`: tensors with the samples in their first dimension. `forward(shard, *tensors)` seeds the
    generators for shard number `shard` and returns the SUM of the losses of its samples.
    Floating-point buffers (BatchNorm's statistics) start each shard from the same values and are
    averaged over the shards that have samples; integer ones (its counter) advance once per step.
    """
    size = len(batch[0])
    if shards == 1:
        loss = forward(0, *batch) / size
        loss.backward()
        return loss.detach()
    parameters = list(model.parameters())
    buffers = list(model.buffers())
    floating = [b for b in buffers if b.is_floating_point()]
    before = [b.clone() for b in buffers]
    sums, filled = TreeSum(), 0
    for number, part in enumerate(shard_slices(size, shards)):
        if part.start == part.stop:
            sums.add([None] * (1 + len(parameters) + len(floating)))
            continue
        filled += 1
        for buffer, value in zip(buffers, before, strict=True):
            buffer.copy_(value)
        loss = forward(number, *(tensor[part] for tensor in batch)) / size
        loss.backward()
        gradients = [parameter.grad for parameter in parameters]
        sums.add([loss.detach(), *gradients, *(b.clone() for b in floating)])
        for parameter in parameters:
            parameter.grad = None
    total_loss, *rest = sums.total()
    for parameter, gradient in zip(parameters, rest, strict=False):
        parameter.grad = gradient
    for buffer, total in zip(floating, rest[len(parameters) :], strict=True):
        if total is not None:
            buffer.copy_(total / filled)
    assert total_loss is not None  # at least one shard has samples
    return total_loss
