"""Find the state of a training that would get lost: kept by a trainer, and in no checkpoint.

A resumed training then goes on with other numbers, and nobody sees it: the weights may even have
the same bits, while an average of them that only the evaluation uses has not. `refuse_unsaved` goes
through what a trainer can reach; `refuse_not_restored` compares what was loaded with what the
trainer would save now.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader, Dataset

from repro.core.errors import UserError, refuse

_LEAVES = (str, bytes, int, float, complex, type, Dataset, DataLoader)


def refuse_unsaved(trainer: object, state: Mapping[str, Any]) -> None:
    """Raise UserError for each tensor of `trainer`'s that is not in its state, by its name.

    `state`: what a checkpoint of it would hold, with the tensors themselves. Looks at attributes,
    lists, tuples and dicts, at what modules call their state and at that of optimizers; not into
    data sets.
    """
    saved = {_memory(tensor) for tensor in _tensors_in(state)}
    kind = type(trainer).__name__
    lost: dict[str, None] = {}
    for owner, tensor in _reachable(trainer, kind, {}):
        if tensor.numel() and _memory(tensor) not in saved:
            lost[owner] = None
    refuse(
        [
            f"{owner} is in no checkpoint, so a resumed training would go on without it: put it "
            "into state_dict and load_state_dict; a constant is a buffer of the model"
            for owner in lost
        ]
    )


def _memory(tensor: Tensor) -> tuple[str, int]:
    """Return where a tensor's numbers lie: views of one have the same place."""
    return str(tensor.device), tensor.untyped_storage().data_ptr()


def _tensors_in(state: Any) -> Iterator[Tensor]:
    """Yield the tensors of nested dicts and lists."""
    if isinstance(state, Tensor):
        yield state
    elif isinstance(state, Mapping):
        for value in state.values():
            yield from _tensors_in(value)
    elif isinstance(state, list | tuple):
        for value in state:
            yield from _tensors_in(value)


def _reachable(value: Any, name: str, seen: dict[int, object]) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors that can be reached from a value, each with the name of its owner.

    `seen` has the values that were met before, by their identity.
    """
    if value is None or isinstance(value, _LEAVES) or id(value) in seen:
        return
    seen[id(value)] = value
    if isinstance(value, Tensor):
        yield name, value
    elif isinstance(value, nn.Module):
        for tensor in _tensors_in(value.state_dict(keep_vars=True)):
            yield name, tensor
    elif isinstance(value, Optimizer):
        for tensor in _tensors_in([*value.state.values()]):
            yield f"the state of {name}", tensor
    else:
        for part, item in _parts(value, name):
            yield from _reachable(item, part, seen)


def _parts(value: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Yield what a container or an object consists of; nothing for functions."""
    if isinstance(value, Mapping):
        yield from ((f"{name}[{key!r}]", item) for key, item in value.items())
    elif isinstance(value, list | tuple):
        yield from ((f"{name}[{place}]", item) for place, item in enumerate(value))
    elif hasattr(value, "__dict__") and not callable(value):
        yield from ((f"{name}.{attribute}", item) for attribute, item in vars(value).items())


def refuse_not_restored(loaded: Mapping[str, Any], now: Mapping[str, Any], where: object) -> None:
    """Raise UserError for what a checkpoint holds and a trainer has not put back.

    `loaded`: the checkpoint's state. `now`: what the trainer that loaded it would save. The config
    is compared elsewhere: a training may end at another step.
    """
    wanted = {name: value for name, value in loaded.items() if name != "config"}
    lost = [*_differing(wanted, now, "")]
    if lost:
        more = f" and {len(lost) - 3} more" if len(lost) > 3 else ""
        raise UserError(
            f"{where} holds {', '.join(lost[:3])}{more}, which load_state_dict has not put back: "
            "the training would go on with other values; put back there all that state_dict returns"
        )


def _differing(loaded: Any, now: Any, name: str) -> Iterator[str]:
    """Yield the names of the values that are not the same in both."""
    if isinstance(loaded, Mapping):
        for key, value in loaded.items():
            there = now.get(key) if isinstance(now, Mapping) else None
            yield from _differing(value, there, f"{name}.{key}" if name else str(key))
    elif isinstance(loaded, list | tuple):
        same_length = isinstance(now, list | tuple) and len(now) == len(loaded)
        if not same_length:
            yield name
            return
        for place, (value, there) in enumerate(zip(loaded, now, strict=True)):
            yield from _differing(value, there, f"{name}.{place}")
    elif not _same(loaded, now):
        yield name


def _same(loaded: Any, now: Any) -> bool:
    if isinstance(loaded, Tensor):
        if not isinstance(now, Tensor) or loaded.shape != now.shape or loaded.dtype != now.dtype:
            return False
        there = now.detach().to(loaded.device)
        return bool(((loaded == there) | (loaded != loaded) & (there != there)).all())
    if isinstance(loaded, float) and isinstance(now, float) and math.isnan(loaded):
        return math.isnan(now)
    return bool(loaded == now)
