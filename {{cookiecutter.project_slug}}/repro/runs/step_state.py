"""Take what a step's loss may change, and put it back, so that the loss can be computed once more.

That is the state of the model (weights, buffers, modes, gradients), the batch, and the author's
other registered objects. The generators need nothing: a step seeds them before each loss.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from repro.runs.registered import Registered
from repro.training.batches import tensors_of
from repro.training.seeding import get_seed_state, set_seed_state
from repro.training.unsaved import differing


class _Value(NamedTuple):
    """A tensor, and the values that it had; None where it has no memory of its own to write to."""

    tensor: Tensor
    before: Tensor | None

    def restore(self) -> None:
        """Write the values back if there are other ones: autograd takes each write for a change."""
        if self.before is not None and not _same_bytes(self.tensor.detach(), self.before):
            self.tensor.detach().copy_(self.before)


class StepState:
    """What a step's loss may change, as it is now; `restore` puts it back into the same tensors."""

    def __init__(self, known: Registered, batches: Sequence[Any]) -> None:
        modules = list(known.model.modules())
        self._known = known
        self._modes = [(module, module.training) for module in modules]
        self._buffers = [(module._buffers, {**module._buffers}) for module in modules]
        self._needed = [(weight, weight.requires_grad) for weight in known.all_parameters()]
        self._gradients = [(weight, weight.grad) for weight in known.all_parameters()]
        self._values = [
            *map(_value, {id(tensor): tensor for tensor in self._tensors(batches)}.values())
        ]
        self._others = {name: deepcopy(each.state_dict()) for name, each in known.others.items()}
        self._extra = [
            (module, deepcopy(module.get_extra_state())) for module in _with_extra(modules)
        ]

    @torch.no_grad()
    def restore(self) -> None:
        """Put everything back. It may be called several times."""
        for module, training in self._modes:
            module.training = training
        for there, buffers in self._buffers:
            there.clear()
            there.update(buffers)
        for weight, needed in self._needed:
            weight.requires_grad_(needed)
        for weight, gradient in self._gradients:
            weight.grad = gradient
        for value in self._values:
            value.restore()
        for name, state in self._others.items():
            other = self._known.others[name]
            if [*differing(state, other.state_dict(), "")]:
                other.load_state_dict(deepcopy(state))
        for module, state in self._extra:
            module.set_extra_state(deepcopy(state))

    def _tensors(self, batches: Sequence[Any]) -> Iterator[Tensor]:
        """Yield the tensors whose values may be changed in place."""
        yield from self._known.all_parameters()
        for _, gradient in self._gradients:
            if gradient is not None:
                yield gradient
        for _, buffers in self._buffers:
            yield from (buffer for buffer in buffers.values() if buffer is not None)
        for tensor in tensors_of([*batches]):
            if tensor is not None:
                yield tensor


@contextmanager
def undoing(known: Registered) -> Iterator[None]:
    """Put what is registered, and the generators, back when the block ends, also by an error."""
    before = StepState(known, [])
    generators = get_seed_state()
    try:
        yield
    finally:
        before.restore()
        set_seed_state(generators)


def _with_extra(modules: Iterable[nn.Module]) -> Iterator[nn.Module]:
    """Yield the modules that have a state beside their tensors, as state_dict asks for it."""
    for module in modules:
        if type(module).get_extra_state is not nn.Module.get_extra_state:
            yield module


def _value(tensor: Tensor) -> _Value:
    """Copy a tensor's values, if they can be written back: not where one is shown many times."""
    own = tensor.layout is torch.strided and all(
        step or size < 2 for size, step in zip(tensor.shape, tensor.stride(), strict=True)
    )
    return _Value(tensor, tensor.detach().clone() if own else None)


def _same_bytes(one: Tensor, other: Tensor) -> bool:
    """Tell whether two tensors of one shape have the same bytes: -0 is another number than 0."""
    if not one.numel():
        return True
    return torch.equal(
        one.contiguous().flatten().view(torch.uint8), other.contiguous().flatten().view(torch.uint8)
    )
