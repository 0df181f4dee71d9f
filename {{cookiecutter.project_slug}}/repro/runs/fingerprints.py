"""Fingerprint tensors: a 64-bit number of their bytes, the same on every device.

A tensor's fingerprint is the sum of its bytes, taken as 64-bit words, each times an odd number made
from its place, modulo 2^64; several tensors' is the sum of theirs, each times an odd number, too.
One changed word always changes it, and so do swapped words but for bad luck. Integer sums do not
depend on their order: every device and number of threads gives the same.

Right after a training step a call of torch takes three times as long as it takes in a row of its
like. So a step's small tensors are only copied, in one call, and fingerprinted later together with
its neighbours.
"""

from collections.abc import Callable, Sequence
from operator import is_
from typing import Any, NamedTuple, TypeAlias
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

EFFECTS = ("gradients", "weights", "buffers")
Quantities: TypeAlias = Callable[[], dict[str, str]]  # once read, good until the next step
Tensors: TypeAlias = Sequence[Tensor | None]
_COPIED = 1 << 14  # values; of larger tensors, copies cost more than to read them at once
_KINDS = 4  # of states that memory is kept for: layers may be skipped at random
_multipliers: dict[torch.device, Tensor] = {}


@torch.no_grad()
def fingerprint(tensors: Tensors) -> int:
    """Return the fingerprint of the tensors' bytes; waits for a GPU.

    The tensors' sizes count, too, and `None` (no gradient) is another thing than zeros.
    """
    total = 0
    for place, tensor in enumerate(tensors):
        if tensor is not None:
            words = _words(tensor)
            weighted = int(_dot(words, _odd_numbers(len(words), words.device)).item())
            total += (2 * place + 1) * (weighted + tensor.numel() + 1)
    return as_int64(total)


def as_int64(number: int) -> int:
    """Return the number modulo 2^64, in the range of int64."""
    return (number + 2**63) % 2**64 - 2**63


def as_hex(number: int) -> str:
    """Return the number modulo 2^64 in 16 hexadecimal digits."""
    return f"{number % 2**64:016x}"


def dot_of(tensor: Tensor, odd_numbers: Tensor) -> Tensor:
    """Return the sum of a tensor's words, each times an odd number."""
    return _dot(_words(tensor), odd_numbers)


def _words(tensor: Tensor) -> Tensor:
    """Return the bytes of a tensor as int64; zeros fill the last."""
    flat = tensor.flatten()
    if flat.storage_offset() or flat.stride(0) != 1:
        flat = flat.new_empty(len(flat)).copy_(flat)  # words are aligned, next to each other
    if rest := -flat.numel() * flat.element_size() % 8:
        flat = torch.cat([flat, flat.new_zeros(rest // flat.element_size())])
    return flat.view(torch.int64)


def _dot(words: Tensor, odd: Tensor) -> Tensor:
    # torch.dot has no integers on CUDA.
    return (words * odd).sum() if words.is_cuda else torch.dot(words, odd)


def _odd_numbers(count: int, device: torch.device) -> Tensor:
    """Return odd int64 numbers, well mixed.

    By the finalizer of SplitMix64, https://prng.di.unimi.it/splitmix64.c.
    """
    known = _multipliers.get(device)
    if known is None or len(known) < count:
        numbers = torch.arange(1, max(count, 1 << 16) + 1, device=device) * -7046029254386353131
        for shift, factor in ((30, -4658895280553007687), (27, -7723592293110705685)):
            numbers = (numbers ^ (numbers >> shift)) * factor
        known = (numbers ^ (numbers >> 31)) | 1
        _multipliers[device] = known
    return known[:count]


class Small(NamedTuple):
    """A tensor that is copied: its place among all, and `part`, its words among the copies."""

    place: int
    tensor: Tensor
    part: slice
    odd_numbers: Tensor


class Large(NamedTuple):
    """A tensor that is read at once: its group, its factor there, and its place among all."""

    group: int
    factor: int
    place: int
    odd_numbers: Tensor


class _Group(NamedTuple):
    """What the sizes of a group's tensors add to its fingerprint, and its words of the copies."""

    size: int
    part: slice


class Layout:
    """Where in memory each tensor of some groups is copied to; small ones start a whole word.

    `copied`: how many values a tensor that is copied has less than.
    """

    def __init__(self, groups: Sequence[Tensors], copied: float = _COPIED) -> None:
        self.small: list[Small] = []
        self.large: list[Large] = []
        self._copied = copied
        self.groups: list[_Group] = []
        self.words = 0  # of all copies
        place = 0
        for number, group in enumerate(groups):
            start = self.words
            size = 0
            for position, tensor in enumerate(group):
                if tensor is not None:
                    factor = 2 * position + 1
                    size += factor * (tensor.numel() + 1)
                    self._add(tensor, place, number, factor)
                place += 1
            self.groups.append(_Group(size, slice(start, self.words)))

    def _add(self, tensor: Tensor, place: int, group: int, factor: int) -> None:
        length = -(-tensor.numel() * tensor.element_size() // 8)  # in 64-bit words
        odd_numbers = _odd_numbers(length, tensor.device)
        if tensor.numel() >= self._copied:
            self.large.append(Large(group, factor, place, odd_numbers))
            return
        part = slice(self.words, self.words + length)
        self.small.append(Small(place, tensor, part, factor * odd_numbers))
        self.words += length


class _State:
    """Some groups of tensors as they are when they are taken; calling it gives their fingerprints.

    It has memory for copies of the small ones, and is used again: `free` takes it back.
    """

    def __init__(self, groups: Sequence[Tensors], free: "list[_State]") -> None:
        layout = Layout(groups)
        device = layout.small[0].tensor.device if layout.small else torch.device("cpu")
        words = torch.zeros(layout.words, dtype=torch.int64, device=device)
        odd_numbers = torch.zeros_like(words)
        self._views = []  # of the words: each small tensor's, in its own type and shape
        for small in layout.small:
            odd_numbers[small.part] = small.odd_numbers
            view = words[small.part].view(small.tensor.dtype)[: small.tensor.numel()]
            self._views.append(view.view(small.tensor.shape))
        self._groups = [(size, words[part], odd_numbers[part]) for size, part in layout.groups]
        self._small = [small.place for small in layout.small]
        self._large = layout.large
        self._large_sums: list[Tensor] = []
        self._fingerprints: dict[str, str] = {}
        self._free = free

    def take(self, tensors: Sequence[Any]) -> None:  # None only at places that are not read
        self._fingerprints = {}
        if self._views:
            torch._foreach_copy_(self._views, [tensors[place] for place in self._small])
        self._large_sums = [
            _dot(_words(tensors[large.place]), large.odd_numbers) for large in self._large
        ]

    def __call__(self) -> dict[str, str]:
        if self._fingerprints:  # the second time would give it back once more
            return self._fingerprints
        totals = [size + int(_dot(words, odd).item()) for size, words, odd in self._groups]
        for large, value in zip(self._large, self._large_sums, strict=True):
            totals[large.group] += large.factor * int(value.item())
        self._free.append(self)
        names = EFFECTS[-len(totals) :]
        self._fingerprints = {
            name: as_hex(total) for name, total in zip(names, totals, strict=True)
        }
        return self._fingerprints


class _Taken(NamedTuple):
    """A model's tensors in groups, `kind` (what a layout of them depends on), and its memory."""

    groups: list[list[Any]]
    kind: object
    memory: "_Memory"


class _Memory:
    """What is known of a model: where its tensors are, and states that are not in use."""

    def __init__(self, model: nn.Module) -> None:
        modules = list(model.modules())  # model.parameters() walks through the tree each time
        self.parameters = [module._parameters for module in modules]
        self.buffers = [module._buffers for module in modules]
        self.weights: list[Tensor] = []
        self.free: dict[object, list[_State]] = {}  # by the kind of state
        self.queued: dict[object, Any] = {}  # by the kind, too: repro/runs/late_fingerprints.py


_memories: "WeakKeyDictionary[nn.Module, _Memory]" = WeakKeyDictionary()


@torch.no_grad()
def state_quantities(model: nn.Module, gradients: bool = True) -> Quantities:
    """Take a model's gradients, weights and buffers, to be fingerprinted when the result is called.

    The model's modules stay those it has.
    """
    groups, key, memory = taken_of(model, gradients)
    if len(memory.free) >= _KINDS and key not in memory.free:
        memory.free.clear()
    free = memory.free.setdefault(key, [])
    state = free.pop() if free else _State(groups, free)
    state.take([tensor for group in groups for tensor in group])
    return state


def taken_of(model: nn.Module, gradients: bool) -> _Taken:
    """Return a model's gradients, weights and buffers; the first only if they are asked for."""
    memory = _memories.get(model) or _memories.setdefault(model, _Memory(model))
    weights: list[Any] = [w for here in memory.parameters for w in here.values() if w is not None]
    buffers: list[Any] = [b for here in memory.buffers for b in here.values() if b is not None]
    given = [w.grad for w in weights] if gradients else []
    if len(weights) != len(memory.weights) or not all(map(is_, weights, memory.weights)):
        memory.weights = weights
        memory.free = {}
        memory.queued = {}
    # The same weights' shapes are not asked for: 1 us each, and an optimizer refuses other ones.
    kinds = [(b.shape, b.dtype, b.device) for b in buffers]  # a module may put another one there
    kind = gradients, tuple([g is None for g in given]), tuple(kinds)
    groups = [given, weights, buffers] if gradients else [weights, buffers]
    return _Taken(groups, kind, memory)
