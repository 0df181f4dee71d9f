"""Find state of an author's loop that no checkpoint holds: what changes and was not registered.

A loop keeps what it likes in variables: an average of the weights, a schedule of the learning rate,
a count of bad validations. Those that stay as they are do no harm. One that a step changes is lost
when the training goes on, and the numbers are then other ones without a word. So the variables of
the functions around the loop are looked at when it begins, after the first step, and at each
checkpoint. Not seen are variables that are bound in the loop only, numbers in attributes and in
containers, and lone tensors of more than 16 million values, which are taken for data.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from types import FrameType
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from repro.core.errors import refuse
from repro.runs.fingerprints import fingerprint
from repro.training.unsaved import Saved, differing, reachable

_LARGEST = 1 << 24  # values of a lone tensor that is read again
_KIT = "repro."


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
        self._objects = self._variables()
        self._before = dict(self._look(Saved(state)))
        self._numbers = {name: value for name, value in self._objects.items() if _is_number(value)}

    def refuse_changed(self, state: Mapping[str, Any]) -> None:
        """Raise UserError for each variable that has changed and is not registered."""
        lost = [
            name
            for name, now in self._look(Saved(state))
            if name not in self._before or [*differing(now, self._before[name], "")]
        ]
        refuse(
            [
                *(
                    f"{name} changes in a step and is in no checkpoint, so a resumed training "
                    "would go on without it: register it (session.register: a network as a part "
                    "of model, an object with state_dict and load_state_dict in state={...}); "
                    "if it is nothing to keep, make it in the loop"
                    for name in dict.fromkeys(lost)
                ),
                *(
                    f"{name} changes in a step and is in no checkpoint, so a resumed training "
                    "would begin it anew: keep it in session.notes, which checkpoints hold; if it "
                    "is nothing to keep, bind it in the loop only"
                    for name in self._changed_numbers()
                ),
            ]
        )

    def _variables(self) -> dict[str, Any]:
        """Return the variables of the author's functions around the loop, as they are now."""
        return {
            f"{variable} of {frame.f_code.co_name}()": value
            for frame in self._frames
            for variable, value in frame.f_locals.items()
        }

    def _changed_numbers(self) -> list[str]:
        now = self._variables()
        return [
            name
            for name, before in self._numbers.items()
            if _is_number(now.get(name)) and not _same_number(now[name], before)
        ]

    def _look(self, saved: Saved) -> Iterator[tuple[str, list[Any]]]:
        """Yield what the variables lead to and no checkpoint holds, in a form to compare later."""
        seen: dict[int, object] = {**self._ignored}
        for variable, value in self._objects.items():
            if isinstance(value, Tensor) and value.numel() > _LARGEST:
                continue
            found: list[Any] = []
            of_optimizers: list[Any] = []
            for name, part in reachable(value, variable, seen):
                if not saved.holds(part):
                    is_optimizers = isinstance(value, Optimizer) or name.startswith("the state of ")
                    (of_optimizers if is_optimizers else found).append(_copied(part))
            if found:
                yield variable, found
            if of_optimizers:
                yield f"the state of {variable}", of_optimizers


def _frames_of_the_author(frame: FrameType | None) -> Iterator[FrameType]:
    """Yield a frame and those that called it, up to the first one of the kit."""
    while frame and not str(frame.f_globals.get("__name__", "")).startswith(_KIT):
        yield frame
        frame = frame.f_back


def _is_number(value: object) -> bool:
    return isinstance(value, int | float)


def _same_number(one: float, two: float) -> bool:
    return one == two or (math.isnan(one) and math.isnan(two))


def _copied(value: Any) -> Any:
    """Return a state that stays as it is: tensors as fingerprints, objects as their states."""
    if isinstance(value, Tensor):
        return fingerprint([value])
    if isinstance(value, Mapping):
        return {name: _copied(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_copied(item) for item in value]
    if isinstance(value, str | bytes | int | float | None):
        return value
    return _copied(value.state_dict()) if hasattr(value, "state_dict") else type(value).__name__
