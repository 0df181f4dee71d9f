"""Scatter, index and count with the same bits each time, whatever `determinism` says."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


def deterministic_scatter_add(
    input: torch.Tensor, dim: int, index: torch.Tensor, src: torch.Tensor
) -> torch.Tensor:
    """`torch.scatter_add` with the same bits each time, whatever `determinism` says.

    Differentiable. On the CPU with the bits of a plain loop over `index` in row-major order; on
    CUDA, where sums are cut differently, with those of the GPU model. See
    torch.use_deterministic_algorithms.
    """
    src = src[tuple(slice(size) for size in index.shape)]  # its gradient needs the shape of index
    with _deterministic():
        return input.scatter_add(dim, index, src)


def deterministic_index_add(
    input: torch.Tensor, dim: int, index: torch.Tensor, src: torch.Tensor
) -> torch.Tensor:
    """`torch.index_add` likewise; `index` has one dimension, as long as `src` is in `dim`."""
    with _deterministic():
        return input.index_add(dim, index, src)


def deterministic_bincount(
    index: torch.Tensor, weights: torch.Tensor, minlength: int = 0
) -> torch.Tensor:
    """`torch.bincount` with weights, which CUDA has no deterministic version of; in their dtype."""
    length = max(minlength, int(index.max()) + 1 if index.numel() else 0)
    return deterministic_scatter_add(weights.new_zeros(length), 0, index, weights)


@contextmanager
def _deterministic() -> Iterator[None]:
    """Deterministic algorithms inside, whatever the mode is outside."""
    mode = torch.get_deterministic_debug_mode()
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.set_deterministic_debug_mode(mode)
