"""Find state of an author's loop that no checkpoint holds: what changes and was not registered.

A loop keeps what it likes in variables: an average of the weights, a schedule of the learning rate,
a count of bad validations. Those that stay as they are do no harm. One that a step changes is lost
when the training goes on, and the numbers are then other ones without a word. So the variables of
the functions around the loop are looked at when it begins, after the first step, and at each
checkpoint. Not seen are variables that are bound in the loop only, iterators, global variables of a
module, numbers in attributes and in containers, and what is taken for data: lone tensors of more
than 16 million values, and all but the first 256 items of a container with more than 4096.
"""

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from repro.core.errors import refuse
from repro.runs.fingerprints import fingerprint
from repro.training.engine import local
from repro.training.packing import State
from repro.training.unsaved import (
    GENERATORS,
    OF_A_GENERATOR,
    OF_A_MODULE,
    OF_AN_ITERATOR,
    Saved,
    attributes,
    differing,
    reachable,
)

_LARGEST = 1 << 24  # values of a lone tensor that is read again
_OF_A_HOLDER = ("self.", f"{OF_A_MODULE}self.")  # how names begin of what a task keeps
_FOR_A_HOLDER = (
    "make it a part of self.model (a network, or a tensor as a buffer of one), or let state() "
    "return it, as an object with state_dict and load_state_dict; if it is nothing to keep, use a "
    "local variable"
)


class _Variable(NamedTuple):
    """A variable of a function, and what it holds."""

    name: str
    function: str
    value: Any

    def __str__(self) -> str:
        return f"{self.name} of {self.function}"


class Unregistered:
    """What the functions around a loop hold beside what is registered, as the loop begins.

    `ignored`: what is not looked at. `frame`: of the function that asked for the steps. `state`:
    what a checkpoint would hold. `holders`: objects whose attributes are looked at, numbers too.
    """

    def __init__(
        self,
        ignored: Sequence[object],
        frame: FrameType | None,
        state: State,
        holders: Sequence[object] = (),
    ) -> None:
        self._holders = holders
        self._ignored = {id(value): value for value in ignored}
        self._frames = [*_frames_of_the_author(frame)]
        self._variables = [*self._now()]
        self._values = {str(variable): variable.value for variable in self._with_attributes()}
        self._before = self._look(Saved(state))
        self._names = {*self._look(Saved({}))}  # also of what equals something that is saved

    def refuse_changed(self, state: State) -> None:
        """Raise UserError for each variable that has changed and is not registered."""
        lost: dict[str, list[str]] = {}  # by what stands before the first bracket
        for name, now in self._look(Saved(state)).items():
            if self._has_changed(name, now):
                lost.setdefault(name.partition("[")[0], []).append(name)
        refuse(
            [
                *(_line(names[0], len(names) - 1) for names in lost.values()),
                *map(_line_of_number, self._changed_numbers()),
            ]
        )

    def _has_changed(self, name: str, now: list[Any]) -> bool:
        if name not in self._before:  # a module may make an attribute at any time: a cache
            return name in self._names or not name.startswith(OF_A_MODULE)
        return len([*differing(now, self._before[name], "")]) > 0

    def _now(self) -> Iterator[_Variable]:
        """Yield the variables of the author's functions around the loop, as they are now."""
        for frame in self._frames:
            for name, value in frame.f_locals.items():
                yield _Variable(name, f"{frame.f_code.co_name}()", value)
        for holder in self._holders:
            yield _Variable("self", type(holder).__name__, holder)

    def _with_attributes(self) -> Iterator[_Variable]:
        """Yield the variables, and the attributes of the holders, as they are now."""
        yield from self._now()
        for holder in self._holders:
            for name, value in vars(holder).items():
                yield _Variable(f"self.{name}", type(holder).__name__, value)

    def _changed_numbers(self) -> list[str]:
        """Return the names of variables that were a number, or None, and are another one now.

        So does a tensor of several values where None was: an average that its first value began.
        """
        before = self._values
        now = {str(variable): variable.value for variable in self._with_attributes()}
        # An attribute that a step has made may change later; a new variable is one of the loop.
        new = {name: value for name, value in now.items() if name.startswith("self.")}
        self._values = {**new, **before}
        return [
            name for name, value in now.items() if name in before and _is_other(value, before[name])
        ]

    def _look(self, saved: Saved) -> dict[str, list[Any]]:
        """Return what the variables lead to and no checkpoint holds, in a form to compare later."""
        seen: dict[int, object] = {**self._ignored}
        found: dict[str, list[Any]] = {}
        for variable in self._variables:
            value = variable.value
            if isinstance(value, Tensor | np.ndarray) and math.prod(value.shape) > _LARGEST:
                continue
            look = attributes if variable.name == "self" else reachable
            for name, part in look(value, variable.name, seen):
                if not saved.holds(part):
                    found.setdefault(f"{name} of {variable.function}", []).append(_copied(part))
        return found


def _frames_of_the_author(frame: FrameType | None) -> Iterator[FrameType]:
    """Yield a frame and those that called it, up to the first one of the kit or of a package."""
    while frame and not _is_of_others(frame):
        yield frame
        frame = frame.f_back


def _is_of_others(frame: FrameType) -> bool:
    name = str(frame.f_globals.get("__name__", ""))
    return name.startswith("repro.") or "site-packages" in Path(frame.f_code.co_filename).parts


def _is_number(value: object) -> bool:
    return isinstance(value, int | float)


def _is_other(now: object, before: object) -> bool:
    """Tell whether a number is another one, or stands where None was."""
    if before is None and isinstance(now, Tensor):
        return now.numel() > 1 and now.grad_fn is None
    if not _is_number(now) or not (before is None or _is_number(before)):
        return False
    return repr(now) != repr(before)  # NaN is the same as NaN


def _line_of_number(name: str) -> str:
    """Return what is said of a number that has changed."""
    if name.startswith(_OF_A_HOLDER):
        remedy = _FOR_A_HOLDER
    else:
        remedy = (
            "keep it in session.notes, which checkpoints hold; if it is nothing to keep, bind it "
            "in the loop only"
        )
    return (
        f"{name} changes in a step and is in no checkpoint, so a resumed training would begin it "
        f"anew: {remedy}"
    )


def _line(name: str, others: int) -> str:
    """Return what is said of a part that has changed, and of so many others beside it."""
    more = f" (and {others} more there)" if others else ""
    told = f"{name}{more} changes in a step and is in no checkpoint, so a resumed training would "
    if name.startswith((OF_A_GENERATOR, OF_AN_ITERATOR)):
        return (
            f"{told}get other values: draw from the global generators of Python, NumPy or torch, "
            "which are seeded for each step and sample, and take batches from "
            "session.steps(dataset); or make it in the loop, from step.index"
        )
    if name.startswith(_OF_A_HOLDER):
        return f"{told}go on without it: {_FOR_A_HOLDER}"
    return (
        f"{told}go on without it: register it (session.register: a network as a part of model, a "
        "tensor as a buffer of it, an object with state_dict and load_state_dict in state={...}); "
        "if it is nothing to keep, make it in the loop"
    )


def _copied(value: Any) -> Any:
    """Return a state that stays as it is: tensors as fingerprints, objects as their states."""
    if isinstance(value, np.ndarray):
        value = torch.frombuffer(bytearray(value.tobytes() or b"0"), dtype=torch.uint8)
    if isinstance(value, Tensor):
        value = local(value)
        return fingerprint([value if value.layout is torch.strided else value.to_dense()])
    if isinstance(value, GENERATORS):
        return _copied(_place_of(value))
    if isinstance(value, Mapping):
        return {name: _copied(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_copied(item) for item in value]
    if isinstance(value, str | bytes | int | float | None):
        return value
    return _copied(value.state_dict()) if hasattr(value, "state_dict") else type(value).__name__


def _place_of(generator: Any) -> Any:
    """Return how far a generator, or the iterator of a loader, has come."""
    if isinstance(generator, torch.Generator):
        return generator.get_state()
    if isinstance(generator, np.random.Generator):
        return generator.bit_generator.state
    if isinstance(generator, np.random.RandomState):
        return generator.get_state(legacy=False)
    if isinstance(generator, random.Random):
        return repr(generator.getstate())
    return generator._num_yielded
