"""Take the numbers that a loop tells: at once on the CPU, late on a GPU.

A number is a float, or one value of a tensor or of NumPy. On a GPU it is not read here: a step's
numbers are read together when later steps are queued (repro/training/pending.py), and refused then
with the words that they are refused with on the CPU.
"""

import math
from collections.abc import Mapping
from contextlib import suppress
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.optim import Optimizer

from repro.core.errors import UserError
from repro.runs.fingerprints import EFFECTS
from repro.training import sampling
from repro.training.pending import LATE_ON, Arriving, LateNumber, Pending, can_skip, is_late
from repro.training.sampling import StepSchedule
from repro.training.weighted import refuse_weights

Number: TypeAlias = float | Tensor
GRADIENTS = "gradients"
_OF_AN_OPTIMIZER = f"{GRADIENTS}."  # begins the names of gradients
# What lines of metrics.jsonl and of the trace hold beside the numbers of a loop.
_TAKEN = ("step", "epoch", "split", "header", "samples", "inputs", *EFFECTS)


def number_of(call: str, name: str, value: object) -> float:
    """Return a number that a loop tells; UserError for none, and for a name of the kit's own."""
    _refuse_name(call, name)
    number = one_number(value)
    if number is None:
        raise _no_number(call, name, value)
    return number


def unread_number_of(call: str, name: str, value: object) -> Number:
    """Return a number as `number_of` does, but unread where to read it is to wait."""
    if isinstance(value, Tensor) and is_late(value):
        _refuse_name(call, name)
        if not is_one_number(value):
            raise _no_number(call, name, value)
        return value.detach()
    return number_of(call, name, value)


def is_one_number(value: Tensor) -> bool:
    """Tell whether a tensor is one number, without reading it."""
    return value.numel() == 1 and not value.is_complex() and value.layout is torch.strided


def one_number(value: object) -> float | None:
    """Return a number as a float, also one that a tensor or NumPy holds; None for anything else."""
    if type(value) is float:  # nearly all are: this is asked several times in each step
        return value
    if isinstance(value, Tensor | np.generic):
        with suppress(RuntimeError, TypeError, ValueError):  # of several values, complex, on meta
            return float(value.item())
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    return None


def told_kind(value: object) -> str:
    """Return what was found in the place of a number, for a line that refuses it."""
    kind = f"tensor {[*value.shape]}" if isinstance(value, Tensor) else type(value).__name__
    return f"a {kind}"


def _refuse_name(call: str, name: str) -> None:
    if name in _TAKEN or name.startswith(_OF_AN_OPTIMIZER):
        raise UserError(f"{call}({name}=...): the kit writes {name} itself: choose another name")


def _no_number(call: str, name: str, value: object) -> UserError:
    return UserError(f"{call}({name}=...) is {told_kind(value)}: expected one number")


class LateStep:
    """The numbers of one step that are read late, and what is to be refused then.

    `arriving`: what is on its way. Whatever is not finite sets the flag of `pending` at once.
    """

    def __init__(self, pending: Pending, schedule: StepSchedule | None, index: int) -> None:
        self.pending = pending
        self.arriving: Arriving = pending.begin()
        self._schedule = schedule
        self._index = index
        self._known: dict[int, tuple[Tensor, LateNumber]] = {}  # watched, by identity

    def check(self, numbers: dict[str, Number]) -> None:
        """Refuse numbers that are not finite, once they were read; the dict has floats then.

        A tensor on the host is read at once: the norm of no gradients, and the loss of a step that
        was computed twice.
        """
        tensors = {name: value for name, value in numbers.items() if isinstance(value, Tensor)}
        values = {name: value for name, value in tensors.items() if is_late(value)}
        here = tensors.keys() - values.keys()
        numbers.update({name: tensors[name].item() for name in here})
        new = {id(value): value for value in values.values() if id(value) not in self._known}
        if new:
            self.pending.watch([*new.values()])
        for key, value in new.items():
            self._known[key] = value, self.arriving.number(value)
        late = {name: self._known[id(value)][1] for name, value in values.items()}

        def refuse() -> None:
            numbers.update({name: number.value for name, number in late.items()})
            sampling.refuse_not_finite(numbers, self._schedule, self._index)

        self.arriving.then(refuse)
        others = (value for name, value in numbers.items() if name not in late)
        # What is known already is refused now, after the fault of an older step, if there is one.
        if not all(map(math.isfinite, others)):
            self.pending.end()
            self.pending.drain()

    def end(self, at_once: bool) -> None:
        """Say that the step is done; `at_once`: read it, and all before it, now."""
        self.pending.end()
        if at_once:
            self.pending.drain()

    def check_weights(self, total: Tensor, unusable: Tensor) -> None:
        """Refuse weights that a mean cannot be divided by, once they were read."""
        is_good = (total > 0) & (unusable == 0)
        self.pending.watch([torch.where(is_good, total.double(), torch.nan)])
        late_total = self.arriving.number(total)
        late_unusable = self.arriving.number(unusable)

        def refuse() -> None:
            with sampling.naming_samples(self._schedule, self._index):
                refuse_weights(late_total.value, late_unusable.value)

        self.arriving.then(refuse)


def pending_of(
    device: torch.device, optimizers: Mapping[str, Optimizer], quiet: bool = False
) -> Pending | None:
    """Return what holds the numbers of a training back; None where each step waits for its own.

    That is so on the CPU, and for an optimizer that cannot be told on the GPU to change nothing: it
    would learn from a loss that is not finite before anybody has read it.
    """
    if device.type not in LATE_ON:
        return None
    waiting = [
        f"the optimizer {name} ({_kind(each)})"
        for name, each in optimizers.items()
        if not can_skip(each)
    ]
    if not optimizers:
        waiting = ["an optimizer that is not registered"]
    if not waiting:
        return Pending(device, optimizers)
    if not quiet:
        print(
            f"{', '.join(waiting)} cannot skip a step whose numbers are not finite, so each step "
            "waits for its numbers; torch's own optimizers with fused=True do not wait",
            flush=True,
        )
    return None


def _kind(optimizer: Optimizer) -> str:
    kind = type(optimizer)
    is_torchs = kind.__module__.startswith("torch.optim.")
    return f"{kind.__name__}, not fused" if is_torchs else kind.__name__
