"""Judge measured ratios by their spread, and hold the bounds that `make bench` keeps to.

No torch here: a figure is judged in the same way by every benchmark, and by tests that measure
nothing.
"""

import statistics
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

BOUNDS = Path(__file__).resolve().parent / "bounds.toml"


@dataclass(frozen=True)
class Spread:
    """A median, and the quartiles around it: the middle half of what was measured."""

    low: float
    middle: float
    high: float

    def __format__(self, form: str) -> str:
        numbers = [format(each, form or ".3f") for each in (self.middle, self.low, self.high)]
        return "{} ({} to {})".format(*numbers)

    def misses(self, bound: float) -> bool:
        """Tell whether the bound is missed by more than the spread: most values are below it."""
        return self.high < bound


def spread_of(values: Sequence[float]) -> Spread:
    """Return the median and the quartiles of some values; a single value is all three."""
    if len(values) == 1:
        return Spread(*values, *values, *values)
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return Spread(low, middle, high)


def ratios(baseline: Sequence[float], own: Sequence[float]) -> Spread:
    """Return the throughput in proportion to a baseline that was timed in the same rounds."""
    return spread_of([base / each for base, each in zip(baseline, own, strict=True)])


def read_bounds(path: Path = BOUNDS) -> dict[str, dict[str, float]]:
    """Return the lowest ratio of each loop, by task."""
    return tomllib.loads(path.read_text(encoding="utf-8"))


def missed(found: dict[str, Spread], bounds: dict[str, float]) -> list[str]:
    """Return a line for each ratio that misses its bound by more than its spread."""
    return [
        f"{name} has {found[name]} of the throughput it is measured by, expected at least {bound}: "
        "find what became slower, or measure again on a quiet machine"
        for name, bound in bounds.items()
        if name in found and found[name].misses(bound)
    ]
