"""Which tensors an operation of torch changes in place, and whether it reads them before.

A replay compares what goes into an operation with what comes out. A tensor that is only written to
is no input: what it held before means nothing. The operation's schema tells; for exchanges between
processes, whose schemas do not, the names of their arguments do.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten

_REPLACING = ("copy_", "zero_", "fill_")
# Operations of an exchange whose tensors hold what other processes send, from some moment on.
_RECEIVING = (
    *("recv_", "recv_any_source_", "irecv", "batch_p2p_ops"),
    *("wait_tensor", "_wrap_tensor_autograd"),
)


def replaces_all(function: Any) -> bool:
    """Tell whether an operation writes to all of what it changes, whatever that held."""
    name, _, overload = str(function).partition(".")[2].partition(".")
    is_of_fsdp = function.namespace == "fsdp"  # it copies into memory that it has given up before
    return name in _REPLACING or is_of_fsdp or overload == "out" or overload.endswith("_out")


def written_by(function: Any, args: Any, kwargs: dict[str, Any]) -> list[Tensor]:
    """Return the arguments that an operation changes in place, by its schema."""

    def is_written(argument: Any) -> bool:
        return argument.alias_info is not None and argument.alias_info.is_write

    return _tensors_of(is_written, function, args, kwargs)


def received_by(function: Any, args: Any, kwargs: dict[str, Any]) -> list[Tensor]:
    """Return the arguments that an exchange with other processes fills.

    Nobody may read them before it is waited for. The schemas of c10d and fsdp do not say that they
    are written, but name them: output_tensor, outputs, output_lists, out, all_gather_output.
    """
    receives_all = str(function).split(".")[1] in _RECEIVING

    def is_filled(argument: Any) -> bool:
        return receives_all or argument.name.startswith("out") or argument.name.endswith("output")

    return _tensors_of(is_filled, function, args, kwargs)


def _tensors_of(
    chosen: Callable[[Any], bool], function: Any, args: Any, kwargs: dict[str, Any]
) -> list[Tensor]:
    """Return the tensors of those arguments of a call that are chosen by the schema."""
    tensors = []
    for place, argument in enumerate(function._schema.arguments):
        if chosen(argument):
            value = args[place] if place < len(args) else kwargs.get(argument.name)
            tensors += [leaf for leaf in tree_flatten(value)[0] if isinstance(leaf, Tensor)]
    return tensors


def seed_of(function: Any, arguments: list[Any], outputs: list[Tensor]) -> int | None:
    """Return the seed of the generator that an operation drew from; None if it draws nothing."""
    if torch.Tag.nondeterministic_seeded not in function.tags:
        return None
    for argument in arguments:
        if isinstance(argument, torch.Generator):
            return argument.initial_seed()
    on_gpu = any(tensor.is_cuda for tensor in outputs)
    return torch.cuda.initial_seed() if on_gpu else torch.initial_seed()
