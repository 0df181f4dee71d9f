"""Tell what state an object leads to, what of it a checkpoint holds, and what was not put back.

State that gets lost makes other numbers when a training goes on, and nobody sees it: the weights
may even have the same bits, while an average of them that only the evaluation uses has not.
repro/runs/unregistered.py looks for what no checkpoint holds; `refuse_not_restored` compares what
was loaded with what would be saved now.
"""

import math
import random
from collections import deque
from collections.abc import Iterator, Mapping, Sized
from functools import partial
from itertools import islice
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader, Dataset
from torch.utils.data.dataloader import _BaseDataLoaderIter

from repro.core.errors import UserError
from repro.core.text import listed
from repro.training.engine import local
from repro.training.packing import State

_NO_STATE = (
    *(str, bytes, int, float, complex, type, ModuleType, FunctionType, BuiltinFunctionType),
    *(torch.device, torch.dtype, Dataset, DataLoader),
)
_SEQUENCES = (list, tuple, deque, set, frozenset)
_MANY = 4096  # items of a container
_SOME = 256
# Their states are no part of what they are kept in.
GENERATORS = (
    *(torch.Generator, np.random.Generator, np.random.RandomState, random.Random),
    _BaseDataLoaderIter,
)
OF_A_MODULE = "the attribute "  # how names begin of what a module keeps outside of its state
OF_A_GENERATOR = "the generator "
OF_AN_ITERATOR = "the iterator "
_KNOWN_OF_OPTIMIZERS = {"state", "param_groups", "defaults"}


class Saved:
    """What a state holds: its tensors, by memory and by value, and its mappings."""

    def __init__(self, state: State) -> None:
        self.state = state
        tensors = [*tensors_in(state)]
        self._memory = {_memory(tensor) for tensor in tensors}
        self._by_kind: dict[tuple[torch.dtype, torch.Size], list[Tensor]] = {}
        for tensor in tensors:
            self._by_kind.setdefault((tensor.dtype, tensor.shape), []).append(tensor)

    def holds(self, part: Any) -> bool:
        """Tell whether a tensor, or the state that an object tells, is a part of the state."""
        if isinstance(part, (np.ndarray, *GENERATORS)):
            return False
        if isinstance(part, Tensor):
            if not part.numel() or _memory(part) in self._memory:
                return True
            alike = self._by_kind.get((part.dtype, part.shape), ())  # a copy of it was saved
            return any(_same(other, part) for other in alike)
        told = part.state_dict()
        return not told or any(not [*differing(told, m, "")] for m in _mappings_in(self.state))


def _memory(tensor: Tensor) -> tuple[str, int]:
    """Return where a tensor's numbers lie: views of one have the same place."""
    if tensor.layout is not torch.strided or tensor.is_meta:
        return str(tensor.device), id(tensor)
    return str(tensor.device), tensor.untyped_storage().data_ptr()


def tensors_in(state: Any) -> Iterator[Tensor]:
    """Yield the tensors of nested containers; of one that is sharded, the rows of this process."""
    if isinstance(state, Tensor):
        yield local(state)
    elif isinstance(state, Mapping):
        for value in state.values():
            yield from tensors_in(value)
    elif isinstance(state, _SEQUENCES):
        for value in state:
            yield from tensors_in(value)


def _mappings_in(state: Any) -> Iterator[Mapping[Any, Any]]:
    """Yield the dicts of nested containers."""
    if isinstance(state, Mapping):
        yield state
        for value in state.values():
            yield from _mappings_in(value)
    elif isinstance(state, list | tuple):
        for value in state:
            yield from _mappings_in(value)


def reachable(value: Any, name: str, seen: dict[int, object]) -> Iterator[tuple[str, Any]]:
    """Yield the tensors and the objects with a state that a value leads to, with their names.

    `seen` has the values that were met before, by their identity.
    """
    of_the_kit = type(value).__module__.startswith("repro.")
    if value is None or of_the_kit or isinstance(value, _NO_STATE) or id(value) in seen:
        return
    seen[id(value)] = value
    if isinstance(value, Tensor):
        yield name, local(value)
    elif _is_numeric_array(value):
        yield name, value
    elif isinstance(value, GENERATORS):
        is_iterator = isinstance(value, _BaseDataLoaderIter)
        yield f"{OF_AN_ITERATOR if is_iterator else OF_A_GENERATOR}{name}", value
    elif isinstance(value, nn.Module):
        yield from _of_module(value, name, seen)
    elif isinstance(value, Optimizer):
        yield from _of_optimizer(value, name, seen)
    elif callable(getattr(value, "state_dict", None)) and hasattr(value, "load_state_dict"):
        yield name, value
    else:
        for part, item in _parts(value, name):
            yield from reachable(item, part, seen)


def _is_numeric_array(value: object) -> bool:
    return isinstance(value, np.ndarray) and not value.dtype.hasobject


def _of_module(module: nn.Module, name: str, seen: dict[int, object]) -> Iterator[tuple[str, Any]]:
    """Yield what a module calls its state, and then what its plain attributes lead to."""
    for tensor in tensors_in(module.state_dict(keep_vars=True)):
        yield name, tensor
    for path, part in module.named_modules():
        for attribute, item in vars(part).items():
            # A module's own generator is left to diff and audit: it may be meant to be chance.
            if not attribute.startswith("_") and not isinstance(item, GENERATORS):
                place = ".".join(filter(None, (name, path, attribute)))
                yield from reachable(item, f"{OF_A_MODULE}{place}", seen)


def _of_optimizer(
    optimizer: Optimizer, name: str, seen: dict[int, object]
) -> Iterator[tuple[str, Any]]:
    """Yield an optimizer's tensors, and what it keeps beside those (another optimizer)."""
    for tensor in tensors_in([*optimizer.state.values(), optimizer.param_groups]):
        yield f"the state of {name}", tensor
    for attribute, item in vars(optimizer).items():
        if attribute not in _KNOWN_OF_OPTIMIZERS and not attribute.startswith("_"):
            yield from reachable(item, f"{name}.{attribute}", seen)


def _parts(value: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Yield what a container or an object consists of."""
    if isinstance(value, Mapping):
        items = islice(value.items(), _looked_at(value))
        yield from ((f"{name}[{key!r}]", item) for key, item in items)
    elif isinstance(value, _SEQUENCES):
        some = islice(value, _looked_at(value))
        yield from ((f"{name}[{place}]", item) for place, item in enumerate(some))
    elif isinstance(value, MethodType):
        yield name, value.__self__
    elif isinstance(value, partial):
        yield from ((name, item) for item in (value.func, value.args, value.keywords))
    else:
        yield from _members(value, name)


def _looked_at(container: Sized) -> int:
    """Return how many items of a container are looked at: of many, as of data, the first ones."""
    return len(container) if len(container) <= _MANY else _SOME


def attributes(value: Any, name: str, seen: dict[int, object]) -> Iterator[tuple[str, Any]]:
    """Yield what the attributes of an object lead to, also if it is a module or can be called."""
    for part, item in _members(value, name):
        yield from reachable(item, part, seen)


def _members(value: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Yield the attributes of an object, also those in slots."""
    slots = getattr(type(value), "__slots__", ())
    names = [slots] if isinstance(slots, str) else [*slots]
    members = {slot: getattr(value, slot) for slot in names if hasattr(value, slot)}
    members |= getattr(value, "__dict__", {})
    yield from ((f"{name}.{attribute}", item) for attribute, item in members.items())


def refuse_not_restored(loaded: State, now: State, where: object) -> None:
    """Raise UserError for what a checkpoint holds and a trainer has not put back.

    `loaded`: the checkpoint's state. `now`: what the trainer that loaded it would save. The config
    is compared elsewhere: a training may end at another step. So are the generators, which every
    step seeds, and of which another machine has more.
    """
    wanted = {name: part for name, part in loaded.items() if name not in ("config", "generators")}
    lost = [*differing(wanted, now, "")]
    if lost:
        raise UserError(
            f"{where} holds {listed(lost)}, which load_state_dict has not put back: "
            "the training would go on with other values; put back there all that state_dict returns"
        )


def differing(loaded: Any, now: Any, name: str) -> Iterator[str]:
    """Yield the names of the values that are not the same in both."""
    if isinstance(loaded, Mapping):
        for key, value in loaded.items():
            there = now.get(key) if isinstance(now, Mapping) else None
            yield from differing(value, there, f"{name}.{key}" if name else str(key))
    elif isinstance(loaded, list | tuple):
        if not isinstance(now, list | tuple) or len(now) != len(loaded):
            yield name
            return
        for place, (value, there) in enumerate(zip(loaded, now, strict=True)):
            yield from differing(value, there, f"{name}.{place}")
    elif not _same(loaded, now):
        yield name


def _same(loaded: Any, now: Any) -> bool:
    """Tell whether two values are equal; NaN is equal to NaN."""
    if isinstance(loaded, Tensor):
        loaded, now = local(loaded), local(now) if isinstance(now, Tensor) else now
        if not isinstance(now, Tensor) or loaded.shape != now.shape or loaded.dtype != now.dtype:
            return False
        if loaded.layout is not torch.strided or now.layout is not torch.strided:
            return loaded.layout is now.layout and _same(loaded.to_dense(), now.to_dense())
        there = now.detach().to(loaded.device)
        return bool(((loaded == there) | (loaded != loaded) & (there != there)).all())
    if isinstance(now, Tensor):
        return now.numel() == 1 and bool(loaded == now.item())
    if isinstance(loaded, float) and isinstance(now, float) and math.isnan(loaded):
        return math.isnan(now)
    return bool(loaded == now)
