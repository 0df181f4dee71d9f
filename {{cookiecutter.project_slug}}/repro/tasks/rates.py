"""Set the learning rates of a step: each parameter group's own rate, times a factor of the task's.

Also offers the schedule that most trainings have. A rate is a function of the step, so a resumed
training has nothing to restore.
"""

import math
from collections.abc import Mapping

from torch.optim import Optimizer

from repro.core.errors import UserError
from repro.runs.registered import ONLY

_NAME = "learning_rate"


def warmup_and_cosine(step: int, steps: int, warmup: float = 0, floor: float = 0) -> float:
    """Return the factor of a step: a linear warm-up, then half a cosine down to `floor`.

    `warmup`: its length in steps. `floor`: a factor, such as 0.1. Steps count from 0.
    """
    rising = min(1.0, (step + 1) / warmup) if warmup else 1.0
    done = max(0.0, (step - warmup) / max(1.0, steps - warmup))
    falling = 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
    return rising * (floor + (1 - floor) * falling)


class Rates:
    """The groups' own rates, as the task made its optimizers, before a checkpoint is loaded."""

    def __init__(self, optimizers: Mapping[str, Optimizer]) -> None:
        self._optimizers = optimizers
        self._own = {
            name: [float(group["lr"]) for group in optimizer.param_groups]
            for name, optimizer in optimizers.items()
        }

    def set(self, factors: float | Mapping[str, float]) -> dict[str, float]:
        """Set the rates of a step; return that of each optimizer's first group, to be logged."""
        if isinstance(factors, Mapping) and (others := factors.keys() - self._own.keys()):
            raise UserError(
                f"rate(step, steps) has a factor for {', '.join(sorted(others))}: the optimizers "
                f"are {', '.join(self._own)}"
            )
        rates = {}
        for name, optimizer in self._optimizers.items():
            factor = _factor(factors, name)
            groups = optimizer.param_groups
            own = self._own[name]
            if len(groups) != len(own):
                raise UserError(
                    f"the optimizer {name} has {len(groups)} groups, and had {len(own)} when the "
                    "training began: make all groups in optimizers(), with a factor of 0 for those "
                    "that are not trained yet"
                )
            for group, rate in zip(groups, own, strict=True):
                group["lr"] = float(f"{rate * factor:.12g}")
            rates[_NAME if name == ONLY else f"{_NAME}.{name}"] = groups[0]["lr"]
        return rates


def _factor(factors: float | Mapping[str, float], name: str) -> float:
    if isinstance(factors, Mapping):
        if name not in factors:
            raise UserError(
                f"rate(step, steps) has no factor for the optimizer {name}, only for "
                f"{', '.join(factors) or 'none'}: expected one for each"
            )
        factor = factors[name]
    else:
        factor = factors
    if not isinstance(factor, int | float) or not math.isfinite(factor) or factor < 0:
        raise UserError(f"rate(step, steps) returned {factor!r}: expected a number of 0 or more")
    return factor
