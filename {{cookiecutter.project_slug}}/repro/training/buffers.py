"""Keep a model's buffers independent of how a step's batch is cut into shards.

Each shard starts from the same values; what the shards made of them is joined when all are done.
"""

from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from repro.training.processes import Processes
from repro.training.tree_sum import Summands

Owner = dict[str, Tensor | None]  # a module's _buffers


class _Buffer:
    """One buffer in its module's own dict, by name, and the value that a step begins with."""

    def __init__(self, owner: Owner, name: str, buffer: Tensor) -> None:
        self.owner = owner
        self.name = name
        self.before = buffer.clone()
        self.tensor: Tensor | None = None  # the one in the dict when the step began

    def value(self) -> Tensor:
        """Return the value now; that before the step if the module has put another kind there."""
        current = self._current()
        return self.before if current is None else current.detach()

    def begin(self) -> None:
        """Note the tensor and its value before a step."""
        self.tensor = self._current()
        self.before.copy_(self.value())

    def reset(self) -> None:
        """Give the buffer the value from before the step."""
        if self.tensor is not None:
            self.owner[self.name] = self.tensor.copy_(self.before)

    def put(self, value: Tensor) -> None:
        """Give the buffer a new value, unless the module has put another kind there."""
        if self.tensor is not None and self._current() is not None:
            self.owner[self.name] = self.tensor.copy_(value)

    def _current(self) -> Tensor | None:
        """Return the tensor in the module's dict if its shape, dtype and layout are as before."""
        tensor, before = self.owner.get(self.name), self.before
        if tensor is None or tensor.shape != before.shape:
            return None
        same_kind = tensor.dtype == before.dtype and tensor.layout == before.layout
        return tensor if same_kind else None


class Buffers:
    """A model's buffers while a step's shards are computed.

    Those that the model begins with: all processes exchange the same ones, whatever a module makes
    later. One that is None or has another shape (a cache that grows) is left to its module.
    """

    def __init__(self, model: nn.Module) -> None:
        by_identity: dict[int, _Buffer] = {}  # modules may share one
        for module in model.modules():
            for name, buffer in module._buffers.items():
                if buffer is not None and _has_own_values(buffer):
                    by_identity[id(buffer)] = _Buffer(module._buffers, name, buffer)
        self._all = list(by_identity.values())
        self._floating = [buffer for buffer in self._all if buffer.before.is_floating_point()]
        self._others = [buffer for buffer in self._all if not buffer.before.is_floating_point()]
        before = [buffer.before for buffer in self._floating]
        self.like = [*(value.new_zeros(()) for value in before), *before]  # as `values` returns

    def begin(self) -> None:
        """Note the values before a step."""
        for buffer in self._all:
            buffer.begin()

    def reset(self) -> None:
        """Give all buffers the values from before the step."""
        for buffer in self._all:
            buffer.reset()

    def values(self) -> Summands:
        """Return, of the floating-point ones after a shard, which changed (0 or 1); then all."""
        changed: Summands = []
        values: Summands = []
        for buffer in self._floating:
            value = buffer.value().clone()
            changed.append((value != buffer.before).any().to(value.dtype))
            values.append(value)
        return changed + values

    def set_means(self, totals: Summands, shards: int) -> None:
        """Give those that some shard changed the mean over `shards`; see `values` for `totals`."""
        changes = totals[: len(self._floating)]
        sums = totals[len(self._floating) :]
        for buffer, changed, total in zip(self._floating, changes, sums, strict=True):
            if changed is not None and total is not None:
                buffer.put(torch.where(changed > 0, total / shards, buffer.before))

    def share_last(self, processes: Processes, source: int) -> None:
        """Give those that have no mean the value that the last shard left in process `source`."""
        _share(self._others, processes, source)

    def share(self, processes: Processes, source: int) -> None:
        """Give all processes the values that process `source` has."""
        _share(self._all, processes, source)


def _share(buffers: list[_Buffer], processes: Processes, source: int) -> None:
    values = [buffer.value().clone() for buffer in buffers]
    processes.copy_from(source, values)
    for buffer, value in zip(buffers, values, strict=True):
        buffer.put(value)


def _has_own_values(buffer: Tensor) -> bool:
    """Tell whether a tensor is neither sparse nor one value that is shown many times."""
    return buffer.layout is torch.strided and all(
        step or size < 2 for size, step in zip(buffer.shape, buffer.stride(), strict=True)
    )


_known: "WeakKeyDictionary[nn.Module, Buffers]" = WeakKeyDictionary()


def buffers_of(model: nn.Module) -> Buffers:
    """Return the buffers that the model began with, the same object at every call."""
    if model not in _known:
        _known[model] = Buffers(model)
    return _known[model]
