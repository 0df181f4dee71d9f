"""Which tensors an operation of torch changes in place, and whether it reads them before."""

from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten

_REPLACING = ("copy_", "zero_", "fill_")


def replaces_all(function: Any) -> bool:
    """Tell whether an operation writes to all of what it changes, whatever that held."""
    name, _, overload = str(function).partition(".")[2].partition(".")
    is_of_fsdp = function.namespace == "fsdp"  # it copies into memory that it has given up before
    return name in _REPLACING or is_of_fsdp or overload == "out" or overload.endswith("_out")


def written_by(function: Any, args: Any, kwargs: dict[str, Any]) -> list[Tensor]:
    """Return the arguments that an operation changes in place, by its schema."""
    written = []
    for place, argument in enumerate(function._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            value = args[place] if place < len(args) else kwargs.get(argument.name)
            written += [leaf for leaf in tree_flatten(value)[0] if isinstance(leaf, Tensor)]
    return written


def seed_of(arguments: list[Any], outputs: list[Tensor]) -> int:
    """Return the seed of the generator that an operation drew from."""
    for argument in arguments:
        if isinstance(argument, torch.Generator):
            return argument.initial_seed()
    on_gpu = any(tensor.is_cuda for tensor in outputs)
    return torch.cuda.initial_seed() if on_gpu else torch.initial_seed()
