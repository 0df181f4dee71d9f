"""Add lists of tensors in a fixed order: floating-point addition is not associative.

The order is a binary tree over the summands, so whoever holds a subtree of them can compute its
part of the sum alone. The result has the same bits for every number of processes.
"""

from torch import Tensor

Summands = list[Tensor | None]  # None (an unused parameter's gradient, an empty shard) is zero


class TreeSum:
    """Sums lists of tensors in a fixed binary tree, in memory of log2(count) lists.

    Works like a binary counter: two partial sums of equal size are added and carried up.
    """

    def __init__(self) -> None:
        self._levels: list[Summands | None] = []

    def add(self, summands: Summands) -> None:
        """Add the next list; all lists have the same length. The tensors become the sum's own."""
        for level, partial in enumerate(self._levels):
            if partial is None:
                self._levels[level] = summands
                return
            summands = [added(a, b) for a, b in zip(partial, summands, strict=True)]
            self._levels[level] = None
        self._levels.append(summands)

    def total(self) -> Summands:
        """Return the sum; the number of lists added must be a power of two."""
        *below, top = self._levels
        if top is None or any(level is not None for level in below):
            raise ValueError("the number of summands is not a power of two")
        return top


def added(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    """Return a + b, which takes the place of a in memory."""
    if a is None:
        return b
    if b is None:
        return a
    return a.add_(b)  # in place: a new tensor for each sum costs ResNet-18 more than the addition
