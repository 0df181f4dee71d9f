"""Say where numbers lie on an axis of a chart, and which numbers are written beside it.

All is computed with decimal numbers: they have no overflow, and their results are the same on every
machine, where the logarithm of a float is that of the C library.
"""

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, ROUND_HALF_EVEN, Context, Decimal, localcontext
from typing import NamedTuple

_INTERVALS = 6  # between ticks, about as many as can be read
_MOST_POWERS = 7  # of ten that are written beside an axis
_PAD = Decimal("0.05")  # of the axis, free at each end
_SAME = Decimal("1e-9")  # of a value: a smaller range counts as none, its ticks would be too long


class Range(NamedTuple):
    """The lowest and the highest value of an axis."""

    low: Decimal
    high: Decimal

    @property
    def width(self) -> Decimal:
        """How far the highest value is from the lowest, in the axis's unit."""
        return self.high - self.low


@dataclass(frozen=True)
class Scale:
    """An axis: the range that it shows, and the ticks on it.

    On a logarithmic axis the range is that of the logarithms; the ticks are values on each.
    """

    range: Range
    ticks: list[Decimal]
    logarithmic: bool = False

    def place(self, value: float | Decimal) -> Decimal:
        """Return where a finite value lies: at 0 the axis begins, at 1 it ends."""
        exact = Decimal(value)
        position = exact.log10() if self.logarithmic else exact
        return (position - self.range.low) / self.range.width

    @property
    def labels(self) -> list[str]:
        """The ticks as texts; all have an exponent if one of them needs it to be short."""
        is_short = all(-5 <= tick.adjusted() < 7 for tick in self.ticks if tick)
        return [f"{tick:f}" if is_short else _scientific(tick) for tick in self.ticks]


@contextmanager
def exact_numbers() -> Iterator[None]:
    """Compute in the same way whatever the program's decimal context is."""
    context = Context(prec=28, rounding=ROUND_HALF_EVEN, Emin=-999_999, Emax=999_999)
    with localcontext(context):
        yield


def linear_scale(values: Iterable[float], whole: bool = False) -> Scale:
    """Return an axis for values, of which those that are not finite do not count.

    `whole`: its ticks are whole numbers.
    """
    shown = _range(values)
    if shown.width <= _SAME * max(abs(shown.low), abs(shown.high)):
        pad = abs(shown.low) / 10 or Decimal(1)
    else:
        pad = shown.width * _PAD
    padded = Range(shown.low - pad, shown.high + pad)
    return Scale(padded, _round_ticks(padded, whole))


def logarithmic_scale(values: Iterable[float]) -> Scale:
    """Return the same as a logarithmic axis; a linear one where a value is not above zero."""
    values = [*values]
    shown = _range(values)
    if shown.low <= 0:
        return linear_scale(values)
    if shown.width <= _SAME * shown.high:
        shown = Range(shown.low / 2, shown.high * 2)
    low = shown.low.log10()
    high = shown.high.log10()
    pad = (high - low) * _PAD
    padded = Range(low - pad, high + pad)
    ticks = _logarithmic_ticks(Range(10**padded.low, 10**padded.high))
    return Scale(padded, ticks, logarithmic=True)


def _range(values: Iterable[float]) -> Range:
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return Range(Decimal(0), Decimal(1))
    return Range(Decimal(min(finite)), Decimal(max(finite)))


def _round_ticks(shown: Range, whole: bool = False) -> list[Decimal]:
    """Return multiples of 1, 2 or 5 times a power of ten, as exact as their step."""
    least = shown.width / _INTERVALS
    unit = Decimal(1).scaleb(least.adjusted())
    steps = [unit, 2 * unit, 5 * unit, unit.scaleb(1)]
    step = next(step for step in steps if step >= least)
    if whole:
        step = max(step, Decimal(1))
    first = (shown.low / step).to_integral_value(ROUND_CEILING)
    last = (shown.high / step).to_integral_value(ROUND_FLOOR)
    return [number * step for number in range(int(first), int(last) + 1)]


def _logarithmic_ticks(shown: Range) -> list[Decimal]:
    """Return powers of ten; of a range with few of them, also 2 and 5 times these, or any."""
    exponents = range(shown.low.adjusted(), shown.high.adjusted() + 1)
    units = [Decimal(1).scaleb(exponent) for exponent in exponents]
    powers = [unit for unit in units if shown.low <= unit <= shown.high]
    if len(powers) >= 3:
        return powers[:: math.ceil(len(powers) / _MOST_POWERS)]
    multiples = [factor * unit for unit in units for factor in (1, 2, 5)]
    inside = [tick for tick in multiples if shown.low <= tick <= shown.high]
    return inside if len(inside) >= 3 else _round_ticks(shown)


def _scientific(tick: Decimal) -> str:
    return f"{tick.normalize():e}".replace("e+", "e") if tick else "0"
