"""What a process holds of a tensor whose rows are shared out among all, as FSDP2 does it.

Checkpoints, `bits` and the trace of such a training are made of these. A process without a row of a
tensor has an empty one.
"""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Part:
    """The rows of a tensor that this process holds; each process holds some.

    `tensor`: the rows, next to each other in memory; there may be none. `shape`: of the whole
    tensor. `start`: the number of the first row.
    """

    tensor: Tensor
    shape: tuple[int, ...]
    start: int
