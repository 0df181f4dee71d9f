"""Go through a batch of any kind: move it to a device, list its tensors, cut it into shards.

A batch is a tensor, text, a number or None, or a dict, list or tuple of batches. Promises that all
of it is moved, fingerprinted and cut alike, and that anything else is refused by its type: a part
that is passed over would be missing in the trace, or lie on another device.
"""

from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from copy import copy
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from repro.core.errors import UserError

_LEAVES = (str, bytes, bool, int, float)


def mapped(batch: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """Return a batch with every tensor changed; dicts, lists and named tuples keep their kind.

    Raises UserError for something that is no batch.
    """
    if isinstance(batch, Tensor):
        return change(batch)
    if isinstance(batch, PackedSequence):
        return _mapped_packed(batch, change)
    if isinstance(batch, Mapping | list | tuple):
        return _rebuilt(batch, lambda part: mapped(part, change))
    if batch is None or isinstance(batch, _LEAVES):
        return batch
    raise _no_batch(batch)


def _mapped_packed(packed: PackedSequence, change: Callable[[Tensor], Tensor]) -> PackedSequence:
    """Change all tensors but `batch_sizes`, which torch wants on the CPU."""
    orders = (packed.sorted_indices, packed.unsorted_indices)
    changed = (None if order is None else change(order) for order in orders)
    return PackedSequence(change(packed.data), packed.batch_sizes, *changed)


def _rebuilt(batch: Any, change: Callable[[Any], Any]) -> Any:
    """Return a dict, list or tuple of the same kind with every part changed."""
    if isinstance(batch, Mapping):
        parts = {name: change(part) for name, part in batch.items()}
        if type(batch) is dict or not isinstance(batch, MutableMapping):
            return parts
        kept = copy(batch)  # as transformers' BatchEncoding, whose constructor wants more
        kept.update(parts)
        return kept
    values = [change(part) for part in batch]
    if hasattr(batch, "_fields"):  # a named tuple
        return type(batch)(*values)
    return values if isinstance(batch, list) else tuple(values)


def moved(batch: Any, device: torch.device) -> Any:
    """Return a batch with every tensor on `device`.

    A GPU gets it while it computes the steps before: from memory that is pinned, by a stream of its
    own. What it computes from then on waits for it; the host does not.
    """
    if device.type != "cuda":
        return mapped(batch, lambda tensor: tensor.to(device))
    beside = _stream_beside(device)
    computing = torch.cuda.current_stream(device)

    def sent(tensor: Tensor) -> Tensor:
        if tensor.device.type != "cpu":
            return tensor.to(device, non_blocking=True)
        with torch.cuda.stream(beside):
            there = tensor.pin_memory().to(device, non_blocking=True)
        there.record_stream(computing)  # its memory is not another's until that is done with it
        return there

    whole = mapped(batch, sent)
    computing.wait_stream(beside)
    return whole


@lru_cache
def _stream_beside(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)


def copied_for(device: torch.device, batch: Any) -> Any:
    """Return a copy of a batch, which its maker may overwrite; for a GPU in pinned memory."""
    if device.type != "cuda":
        return mapped(batch, torch.clone)
    return mapped(batch, _pinned_copy)


def _pinned_copy(tensor: Tensor) -> Tensor:
    if tensor.device.type != "cpu":
        return tensor.clone()
    return torch.empty_like(tensor, pin_memory=True).copy_(tensor)


def tensors_of(batch: Any) -> Iterator[Tensor | None]:
    """Yield all that a batch holds as tensors, in its order, to be fingerprinted.

    Text, numbers and the names in dicts come as the bytes of their spelling, a list of these as
    one.
    """
    if batch is None or isinstance(batch, Tensor):
        yield batch
    elif isinstance(batch, Mapping):
        for name, part in batch.items():
            yield _spelt(name)
            yield from tensors_of(part)
    elif _is_list_of_samples(batch):
        yield _spelt(repr([*batch]))
    elif isinstance(batch, list | tuple):
        for part in batch:
            yield from tensors_of(part)
    elif isinstance(batch, _LEAVES):
        yield _spelt(batch)
    else:
        raise _no_batch(batch)


def cut(batch: Any, slices: Sequence[slice]) -> list[Any]:
    """Cut a batch that was made as a whole into shards, along the first dimension of all of it.

    An empty slice gives None. Raises UserError where the first dimensions are not equal: a batch
    that is padded or packed cannot be cut (it would have other bits with other processes). So it
    does for slices that go beyond the batch.
    """
    size = size_of(batch)
    if any((part.stop or 0) > size for part in slices):
        raise UserError(f"a batch of {size} samples cannot be cut into {[*slices]}: they go beyond")
    spans = [range(*part.indices(size)) for part in slices]
    return [_part(batch, slice(span.start, span.stop)) if span else None for span in spans]


def size_of(batch: Any) -> int:
    """Return how many samples a batch holds; UserError where its parts disagree."""
    sizes = dict(_sizes(batch, "batch"))
    if len({*sizes.values()}) != 1:
        found = ", ".join(f"{name}: {size}" for name, size in sizes.items()) or "no tensor"
        raise UserError(
            f"the first dimensions of a batch are {found}; expected the same number of samples in "
            "each: give the data set a collate, which is called for each shard, or one shard"
        )
    return next(iter(sizes.values()))


def _sizes(batch: Any, name: str) -> Iterator[tuple[str, int]]:
    """Yield the name and the number of samples of each part that has samples."""
    if isinstance(batch, Tensor):
        yield name, len(batch) if batch.ndim else 0
    elif isinstance(batch, Mapping):
        for key, part in batch.items():
            yield from _sizes(part, f"{name}[{key!r}]")
    elif _is_list_of_samples(batch):
        yield name, len(batch)
    elif isinstance(batch, list | tuple):
        for place, part in enumerate(batch):
            yield from _sizes(part, f"{name}[{place}]")
    elif batch is not None and not isinstance(batch, _LEAVES):
        raise _no_batch(batch)


def _is_list_of_samples(batch: Any) -> bool:
    """Tell whether each item of a list is a sample's text or number, as default_collate makes."""
    texts = isinstance(batch, list | tuple) and all(isinstance(item, _LEAVES) for item in batch)
    return texts and len(batch) > 0


def _part(batch: Any, part: slice) -> Any:
    if isinstance(batch, Tensor) or _is_list_of_samples(batch):
        return batch[part]
    if isinstance(batch, Mapping | list | tuple):
        return _rebuilt(batch, lambda value: _part(value, part))
    return batch


def _spelt(value: str | bytes | float) -> Tensor:
    """Return the bytes of a text or of a number's exact spelling."""
    spelling = value if isinstance(value, bytes) else f"{type(value).__name__} {value!r}".encode()
    return torch.frombuffer(bytearray(spelling or b"\0"), dtype=torch.uint8)


def _no_batch(value: object) -> UserError:
    kind = f"{type(value).__module__}.{type(value).__name__}"
    return UserError(
        f"a batch holds a {kind}; expected tensors, text, numbers and None, in dicts, lists and "
        "tuples: let collate make those"
    )
