"""Find state of an author's loop that no checkpoint holds: what changes and was not registered.

A loop keeps what it likes in variables: an average of the weights, a schedule of the learning rate,
a count of bad validations. Those that stay as they are do no harm. One that a step changes is lost
when the training goes on, and the numbers are then other ones without a word. So the variables of
the functions around the loop are looked at when it begins, after the first step, and at each
checkpoint. Not seen are variables that are bound in the loop only, numbers in attributes and in
containers, and what is taken for data: lone tensors of more than 16 million values, and all but the
first 256 items of a container with more than 4096.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from repro.core.errors import refuse
from repro.runs.fingerprints import fingerprint
from repro.training.unsaved import Saved, attributes, differing, reachable

_LARGEST = 1 << 24  # values of a lone tensor that is read again


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
    what a checkpoint would hold.
    """

    def __init__(
        self, ignored: Sequence[object], frame: FrameType | None, state: Mapping[str, Any]
    ) -> None:
        self._ignored = {id(value): value for value in ignored}
        self._frames = [*_frames_of_the_author(frame)]
        self._variables = [*self._now()]
        self._before = self._look(Saved(state))

    def refuse_changed(self, state: Mapping[str, Any]) -> None:
        """Raise UserError for each variable that has changed and is not registered."""
        lost = [
            name
            for name, now in self._look(Saved(state)).items()
            if name not in self._before or [*differing(now, self._before[name], "")]
        ]
        refuse(
            [
                *(
                    f"{name} changes in a step and is in no checkpoint, so a resumed training "
                    "would go on without it: register it (session.register: a network as a part "
                    "of model, an object with state_dict and load_state_dict in state={...}); "
                    "if it is nothing to keep, make it in the loop"
                    for name in lost
                ),
                *(
                    f"{name} changes in a step and is in no checkpoint, so a resumed training "
                    "would begin it anew: keep it in session.notes, which checkpoints hold; if it "
                    "is nothing to keep, bind it in the loop only"
                    for name in self._changed_numbers()
                ),
            ]
        )

    def _now(self) -> Iterator[_Variable]:
        """Yield the variables of the author's functions around the loop, as they are now."""
        for frame in self._frames:
            for name, value in frame.f_locals.items():
                yield _Variable(name, f"{frame.f_code.co_name}()", value)

    def _changed_numbers(self) -> list[str]:
        before = {str(variable): variable.value for variable in self._variables}
        return [
            str(variable)
            for variable in self._now()
            if _is_number(variable.value)
            and _is_number(before.get(str(variable)))
            and not _same_number(variable.value, before[str(variable)])
        ]

    def _look(self, saved: Saved) -> dict[str, list[Any]]:
        """Return what the variables lead to and no checkpoint holds, in a form to compare later."""
        seen: dict[int, object] = {**self._ignored}
        found: dict[str, list[Any]] = {}
        for variable in self._variables:
            value = variable.value
            if isinstance(value, Tensor) and value.numel() > _LARGEST:
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


def _same_number(one: float, two: float) -> bool:
    return one == two or (math.isnan(one) and math.isnan(two))


def _copied(value: Any) -> Any:
    """Return a state that stays as it is: tensors as fingerprints, objects as their states."""
    if isinstance(value, Tensor):
        return fingerprint([value if value.layout is torch.strided else value.to_dense()])
    if isinstance(value, Mapping):
        return {name: _copied(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_copied(item) for item in value]
    if isinstance(value, str | bytes | int | float | None):
        return value
    return _copied(value.state_dict()) if hasattr(value, "state_dict") else type(value).__name__
