"""Find state of an author's loop that no checkpoint holds: what changes and was not registered.

A loop keeps what it likes in variables: an average of the weights, a schedule of the learning rate,
a second network. Those that stay as they are do no harm. One that a step changes is lost when the
training goes on, and the numbers are then other ones without a word. So the variables of the
functions around the loop are looked at when it begins, and after the first step and at each
checkpoint again; a variable that is bound anew in each step is none of them.
"""

from collections.abc import Iterator, Mapping
from types import FrameType
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from repro.core.errors import refuse
from repro.runs.fingerprints import fingerprint
from repro.training.unsaved import Saved, differing, reachable

_LARGEST = 1 << 24  # values of a lone tensor that is read again; larger ones are data
_KIT = "repro."


class Unregistered:
    """What the functions around a loop hold beside what is registered, as the loop begins.

    `owner`: the session, which is not looked at. `frame`: of the function that asked for the steps.
    `state`: what a checkpoint would hold.
    """

    def __init__(self, owner: object, frame: FrameType | None, state: Mapping[str, Any]) -> None:
        self._owner = owner
        self._variables = {
            f"{variable} of {function}": value
            for function, variables in _functions(frame)
            for variable, value in variables.items()
        }
        self._before = dict(self._look(Saved(state)))

    def refuse_changed(self, state: Mapping[str, Any]) -> None:
        """Raise UserError for each variable that has changed and is not registered."""
        lost = []
        for name, now in self._look(Saved(state)):
            if name not in self._before or [*differing(now, self._before[name], "")]:
                lost.append(name)
        refuse(
            [
                f"{name} changes in a step and is in no checkpoint, so a resumed training would go "
                "on without it: register it (session.register: a network as a part of model, an "
                "object with state_dict and load_state_dict in state={...})"
                for name in dict.fromkeys(lost)
            ]
        )

    def _look(self, saved: Saved) -> Iterator[tuple[str, Any]]:
        """Yield what is not saved, by name, in a form that can be compared later."""
        seen: dict[int, object] = {id(self._owner): self._owner}
        for variable, value in self._variables.items():
            if isinstance(value, Tensor) and value.numel() > _LARGEST:
                continue
            found: list[Any] = []
            kept_by_optimizer: list[Any] = []
            for name, part in reachable(value, variable, seen):
                if saved.holds(part):
                    continue
                told = fingerprint([part]) if isinstance(part, Tensor) else _frozen(part)
                of_optimizer = isinstance(value, Optimizer) or name.startswith("the state of ")
                (kept_by_optimizer if of_optimizer else found).append(told)
            if found:
                yield variable, found
            if kept_by_optimizer:
                yield f"the state of {variable}", kept_by_optimizer


def _functions(frame: FrameType | None) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the author's functions that the loop runs in, with their variables."""
    while frame and not str(frame.f_globals.get("__name__", "")).startswith(_KIT):
        yield f"{frame.f_code.co_name}()", dict(frame.f_locals)
        frame = frame.f_back


def _frozen(part: Any) -> Any:
    """Return the state of an object, its tensors as fingerprints, so that it stays as it is."""
    return _copied(part.state_dict())


def _copied(value: Any) -> Any:
    if isinstance(value, Tensor):
        return fingerprint([value])
    if isinstance(value, Mapping):
        return {name: _copied(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_copied(item) for item in value]
    return (
        value if isinstance(value, str | bytes | int | float | bool | None) else repr(type(value))
    )
