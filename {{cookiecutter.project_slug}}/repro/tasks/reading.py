"""Read the numbers that an author's task returns, and refuse what is none.

A number is a float, or one value of a tensor or of NumPy. Promises that whatever else a method
returns is a line which names the method, the name and what was found.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from repro.core.errors import UserError
from repro.runs.numbers import Number, is_one_number, one_number, told_kind
from repro.training.pending import is_late


def numbers_of(step: object, rates: Mapping[str, float]) -> dict[str, Number]:
    """Return the numbers of a step, the loss first, with its rates behind it.

    Those on a GPU stay tensors: `step.done` takes them, and they are read with later steps.
    UserError for a step without a loss, and for a name that the kit uses itself.
    """
    given = _given("train_step", step)
    numbers = {str(name): _unread("train_step", name, value) for name, value in given.items()}
    if "loss" not in numbers:
        raise UserError(
            f"train_step returned {', '.join(numbers)}: expected a number called loss, too"
        )
    if taken := sorted(numbers.keys() & rates.keys()):
        raise UserError(f"train_step returned {', '.join(taken)}, which the kit tells by itself")
    return {"loss": numbers.pop("loss"), **rates, **numbers}


def numbers_from(method: str, given: object) -> dict[str, float]:
    """Return the numbers that a task's method gave, as floats; UserError for anything else."""
    numbers = _given(method, given)
    return {str(name): _float(method, name, value) for name, value in numbers.items()}


def _given(method: str, given: object) -> Mapping[Any, Any]:
    if not isinstance(given, Mapping) or not given:
        raise UserError(
            f'{method} returned {given!r:.80}: expected numbers by name, such as {{"loss": 0.5}}'
        )
    return given


def _unread(method: str, name: object, value: Any) -> Number:
    if isinstance(value, Tensor) and is_late(value) and is_one_number(value):
        return value
    return _float(method, name, value)


def _float(method: str, name: object, value: Any) -> float:
    number = one_number(value)
    if number is None:
        raise UserError(f"{method}: {name} is {told_kind(value)}: expected one number")
    return number
