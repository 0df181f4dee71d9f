"""Tell what an operation is given: where a tensor's numbers lie, what else it gets, and when."""

from typing import Any

import torch
from torch import Tensor


def dense(tensor: Tensor) -> Tensor:
    """Return a tensor's numbers as an ordinary one, which sparse and quantized tensors are not."""
    return tensor.int_repr() if tensor.is_quantized else tensor.to_dense()


def address_of(tensor: Tensor) -> int:
    """Return the address of a tensor's data in memory; 0 where it has none."""
    return tensor.data_ptr() if tensor.layout is torch.strided and tensor.numel() else 0


def is_plain(argument: Any) -> bool:
    """Tell whether an argument can be written as text."""
    return not isinstance(argument, (Tensor, torch.Generator))


def word_of(argument: Any) -> str:
    """Write an argument as text that is the same in another process."""
    return repr(argument) if isinstance(argument, str) else str(argument).partition(" object at")[0]


def in_backward() -> bool:
    """Tell whether autograd is going backward now."""
    return bool(torch._C._current_graph_task_id() != -1)
