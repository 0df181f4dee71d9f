"""Say in which way the tensors that several processes join or add are not alike.

The processes tell each other what they bring (repro/training/processes.py); each then finds the
same faults in it, so that all of them end with the same lines.
"""

from collections.abc import Sequence
from itertools import zip_longest
from typing import NamedTuple

from torch import Tensor

from repro.core.text import listed

_SHOWN = 8  # processes that a line names


class Brought(NamedTuple):
    """What a process brings to be concatenated: the sizes it was given, its dtype and shape."""

    sizes: list[int]
    dtype: str
    shape: list[int]

    def __str__(self) -> str:
        return f"{self.dtype.removeprefix('torch.')} {tuple(self.shape)}"


def kind_of(tensor: Tensor) -> str:
    """Return dtype and shape; a single value has no shape, because a loss may be () or (1,)."""
    shape = tuple(tensor.shape) if tensor.numel() != 1 else ()
    return f"{str(tensor.dtype).removeprefix('torch.')} {shape}"


def faults_of_sizes(brought: Sequence[Brought]) -> list[str]:
    """Return a line for each process whose sizes, or whose number of rows, are not as expected."""
    sizes = brought[0].sizes
    if len(sizes) != len(brought) and all(each.sizes == sizes for each in brought):
        return [f"concatenate got {len(sizes)} sizes for {len(brought)} processes: one for each"]
    faults = []
    for rank, each in enumerate(brought):
        if each.sizes != sizes or len(sizes) != len(brought):
            faults.append(
                f"process {rank} of {len(brought)} concatenates {each.sizes} rows, process 0 "
                f"{sizes}: expected the same list in all, a number for each; take chunk_sizes"
            )
        elif each.shape[:1] != [sizes[rank]]:
            faults.append(
                f"process {rank} concatenates {each}, expected {sizes[rank]} rows: each of its "
                "samples must give one row; look for samples that are left out or given twice"
            )
    return faults


def faults_of_rows(brought: Sequence[Brought]) -> list[str]:
    """Return a line if the processes that have rows do not all have the same kind of them."""
    with_rows = {rank: each for rank, each in enumerate(brought) if each.shape[0]}
    if len({(each.dtype, *each.shape[1:]) for each in with_rows.values()}) < 2:
        return []
    found = listed([f"process {rank} has {each}" for rank, each in with_rows.items()], _SHOWN)
    return [
        f"the processes cannot concatenate their tensors: {found}; expected one dtype, and one "
        "shape after the first dimension; give every chunk the same, whoever computes it"
    ]


def faults_of_summands(kinds: Sequence[Sequence[str]]) -> list[str]:
    """Return a line about the first summand that is not alike; `kinds` has a list per process."""
    for number, alike in enumerate(zip_longest(*kinds, fillvalue="missing")):
        if len({*alike}) > 1:
            found = listed([f"{kind} in process {rank}" for rank, kind in enumerate(alike)], _SHOWN)
            return [
                f"the processes cannot add their tensors: number {number} (parameters come first, "
                f"then buffers) is {found}; expected the same in all; "
                "build the model from what is the same in every process"
            ]
    return []
