"""Take a state apart into JSON and tensors, and put it together again.

A state is nested dicts and lists of tensors, numbers, strings and None; of a sharded model it has a
`Part` where a process holds some rows of a tensor. Promises that equal states give equal texts and
names, also in several processes that hold parts of one state. No pickle: what has no place in JSON
is refused.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor

from repro.core.bounded import DamagedFile, read_json_file, refuse_unreadable
from repro.core.errors import UserError
from repro.core.layout import TENSORS
from repro.training.part import Part

_OTHER = "take another checkpoint"  # its sums agree, so no disk has damaged it


State: TypeAlias = Mapping[str, Any]  # as it is saved
LoadedState: TypeAlias = dict[str, Any]


class Packed(NamedTuple):
    """A state as it is written: its JSON, and by their names in it whole tensors and parts."""

    text: str
    tensors: dict[str, Tensor]
    parts: dict[str, Part]


class _Malformed(Exception):
    """A state that `pack` did not write."""


def pack(state: State) -> Packed:
    """Take a state apart; UserError for what cannot be stored, or not be read again."""
    packed = Packed("", {}, {})
    value = _pack(state, "", packed, {})
    text = json.dumps(value, indent=1, sort_keys=True) + "\n"
    refuse_unreadable("the state of the training", text, value)
    return packed._replace(text=text)


def unpack_file(path: Path, tensors: Mapping[str, Tensor | Part]) -> LoadedState:
    """Read the JSON of a state, and put its tensors back; DamagedFile for what is no state."""
    state = read_json_file(path)
    if not isinstance(state, dict):
        raise DamagedFile(path, "it holds no JSON object", _OTHER)
    try:
        return dict(_unpack(state, tensors))
    except _Malformed as error:
        raise DamagedFile(path, str(error), _OTHER) from error


def _pack(value: Any, name: str, packed: Packed, seen: dict[Any, str]) -> Any:
    """Return `value` as JSON, and put its tensors into `packed` under names made from `name`."""
    if isinstance(value, Tensor | Part):
        return {"$tensor": _pack_tensor(value, name, packed, seen)}
    if isinstance(value, Mapping):
        items = [(key, _pack(item, f"{name}.{key}", packed, seen)) for key, item in value.items()]
        if all(isinstance(key, str) and not key.startswith("$") for key in value):
            return dict(items)
        return {"$items": [list(item) for item in items]}  # JSON has strings for keys only
    if isinstance(value, (list, tuple)):
        return [_pack(item, f"{name}.{i}", packed, seen) for i, item in enumerate(value)]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise UserError(
        f"{name.lstrip('.')}: a {type(value).__name__} cannot be stored without pickle: expected "
        "tensors, numbers, text and None, in dicts and lists"
    )


def _pack_tensor(value: Tensor | Part, name: str, packed: Packed, seen: dict[Any, str]) -> str:
    """Put a tensor into `packed` and return its name there; one met twice (tied weights) once."""
    tensor = value.tensor if isinstance(value, Part) else value
    of_whole = (value.shape, value.start) if isinstance(value, Part) else None
    memory = (tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride(), tensor.device)
    empty = tensor.numel() == 0  # without memory of its own
    if not empty and (memory, of_whole) in seen:
        return seen[memory, of_whole]
    seen[memory, of_whole] = name
    if isinstance(value, Part):  # it may fill a GPU: no copy of it is held beside
        own = tensor.detach() if _is_as_written(tensor) else _copy(tensor, tensor.device)
        packed.parts[name] = replace(value, tensor=own)
    elif _is_as_written(tensor) and tensor.device.type == "cpu":
        packed.tensors[name] = tensor.detach()
    else:
        packed.tensors[name] = _copy(tensor, torch.device("cpu"))
    return name


def _copy(tensor: Tensor, device: torch.device) -> Tensor:
    copied = torch.empty(tensor.shape, dtype=tensor.dtype, device=device)
    return copied.copy_(tensor.detach())


def _is_as_written(value: Tensor) -> bool:
    """Tell whether a tensor lies in memory as its bytes in the file: then it needs no copy."""
    return (
        type(value) in (Tensor, torch.nn.Parameter)
        and value.layout == torch.strided
        and value.is_contiguous()
        and not (value.is_conj() or value.is_neg())
    )


def _unpack(value: Any, tensors: Mapping[str, Tensor | Part]) -> Any:
    """Undo `_pack`."""
    if isinstance(value, list):
        return [_unpack(item, tensors) for item in value]
    if isinstance(value, dict):
        if "$tensor" in value:
            return _tensor_of(value["$tensor"], tensors)
        if "$items" in value:
            return {key: _unpack(item, tensors) for key, item in _pairs_of(value["$items"])}
        return {key: _unpack(item, tensors) for key, item in value.items()}
    return value


def _tensor_of(name: Any, tensors: Mapping[str, Tensor | Part]) -> Tensor | Part:
    if not isinstance(name, str) or name not in tensors:
        raise _Malformed(f"{TENSORS} lacks the tensor {str(name)[:80]!a}")
    return tensors[name]


def _pairs_of(items: Any) -> list[list[Any]]:
    """Return what `_pack` wrote of a dict whose keys are not all texts: keys and values."""
    pairs: list[Any] = items if isinstance(items, list) else [None]
    for pair in pairs:
        if not isinstance(pair, list) or len(pair) != 2 or isinstance(pair[0], list | dict):
            raise _Malformed("$items holds no pairs of a key and a value")
    return pairs
