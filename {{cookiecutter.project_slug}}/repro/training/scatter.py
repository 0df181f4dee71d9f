"""Scatter, index and count with the same bits each time, whatever `determinism` says.

Each function has the name of torch's, and its arguments.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


def deterministic_scatter_add(
    input: torch.Tensor, dim: int, index: torch.Tensor, src: torch.Tensor
) -> torch.Tensor:
    """Do `torch.scatter_add` with the same bits each time; it is differentiable.

    On the CPU the bits are those of a plain loop over `index` in row-major order. On CUDA, where
    sums are cut differently, they are those of the GPU model. See
    torch.use_deterministic_algorithms.
    """
    src = src[tuple(slice(size) for size in index.shape)]  # its gradient needs the shape of index
    with _deterministic():
        return input.scatter_add(dim, index, src)


def deterministic_index_add(
    input: torch.Tensor, dim: int, index: torch.Tensor, src: torch.Tensor
) -> torch.Tensor:
    """Do `torch.index_add` likewise; `index` has one dimension, as long as `src` is in `dim`."""
    with _deterministic():
        return input.index_add(dim, index, src)


def deterministic_bincount(
    index: torch.Tensor, weights: torch.Tensor, minlength: int = 0
) -> torch.Tensor:
    """Do `torch.bincount` with weights and in their dtype: CUDA has no deterministic version."""
    length = max(minlength, int(index.max()) + 1 if index.numel() else 0)
    return deterministic_scatter_add(weights.new_zeros(length), 0, index, weights)


@contextmanager
def _deterministic() -> Iterator[None]:
    """Use deterministic algorithms inside, whatever the mode is outside."""
    mode = torch.get_deterministic_debug_mode()
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.set_deterministic_debug_mode(mode)
