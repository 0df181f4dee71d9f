"""How far the outputs of one operation lie apart in two runs: values that differ, and in ulps."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # `repro diff` without --replay needs no torch
    from torch import Tensor


@dataclass(frozen=True)
class Distance:
    """How far one output tensor is from that of the other run.

    `ulps`, `absolute` and `relative` are the largest distances. `ulps` is None for integers, the
    other two where no pair of values that differ is finite.
    """

    output: int
    values: int
    ulps: int | None
    differing: int
    absolute: float | None
    relative: float | None


def distances(a: Path, b: Path) -> list[Distance]:
    """Compare an operation's outputs in two safetensors files: an entry for each that differs.

    The list is empty where the two cannot be compared: when it was done again it was another
    operation.
    """
    from repro.training.tensors import load_tensors

    if not (a.is_file() and b.is_file()):
        return []
    one = load_tensors(a)
    two = load_tensors(b)
    if _kinds(one) != _kinds(two):
        return []
    measured = [_distance(int(key), one[key], two[key]) for key in sorted(one, key=int)]
    return [distance for distance in measured if distance is not None]


def _kinds(tensors: "dict[str, Tensor]") -> dict[str, tuple[str, list[int]]]:
    return {key: (str(tensor.dtype), list(tensor.shape)) for key, tensor in tensors.items()}


def _distance(output: int, one: "Tensor", two: "Tensor") -> Distance | None:
    """Compare two tensors of the same type and shape; None if they are equal."""
    import torch

    x = one.flatten()
    y = two.flatten()
    unequal = (x != y) & ~(x.isnan() & y.isnan())
    if not bool(unequal.any()):
        return None
    p = x[unequal].double()
    q = y[unequal].double()
    apart = (p - q).abs()
    finite = apart.isfinite()  # NaN is no distance, and no JSON
    absolute = None
    relative = None
    if finite.any():
        largest = torch.maximum(p.abs(), q.abs())[finite]
        absolute = float(apart[finite].max())
        relative = float((apart[finite] / largest).max())
    ulps = None
    if x.is_floating_point() and x.element_size() in (2, 4, 8):
        ulps = int((_ordered(x[unequal]) - _ordered(y[unequal])).abs().max())
    return Distance(output, len(x), ulps, int(unequal.sum()), absolute, relative)


def _ordered(values: "Tensor") -> "Tensor":
    """Map floats to integers in the same order, so that neighbours differ by one."""
    import torch

    kinds = {8: torch.int64, 4: torch.int32, 2: torch.int16}
    bits = values.view(kinds[values.element_size()]).long()
    lowest = -(2 ** (8 * values.element_size() - 1))
    return torch.where(bits < 0, lowest - bits, bits)
