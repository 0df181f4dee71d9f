"""Read the numbers that an author's task returns, and refuse what is none."""

from collections.abc import Mapping
from typing import Any

from repro.core.errors import UserError
from repro.runs.step import one_number


def numbers_of(step: object, rates: Mapping[str, float]) -> dict[str, float]:
    """Return the numbers of a step, the loss first, with its rates behind it."""
    numbers = numbers_from("train_step", step)
    if "loss" not in numbers:
        raise UserError(
            f"train_step returned {', '.join(numbers)}: expected a number called loss, too"
        )
    if taken := sorted(numbers.keys() & rates.keys()):
        raise UserError(f"train_step returned {', '.join(taken)}, which the kit tells by itself")
    return {"loss": numbers.pop("loss"), **rates, **numbers}


def numbers_from(method: str, given: object) -> dict[str, float]:
    """Return the numbers that a task's method gave, as floats; UserError for anything else."""
    if not isinstance(given, Mapping) or not given:
        raise UserError(
            f'{method} returned {given!r:.80}: expected numbers by name, such as {{"loss": 0.5}}'
        )
    return {str(name): _float(method, name, value) for name, value in given.items()}


def _float(method: str, name: object, value: Any) -> float:
    number = one_number(value)
    if number is None:
        raise UserError(f"{method}: {name} is {type(value).__name__}: expected one number")
    return number
