"""Keep the best validation of a training so far, and the step that it came after."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from repro.core.errors import UserError


@dataclass(frozen=True)
class Best:
    """The best value of `metric` so far, and its step; None and 0 before the first validation.

    `sign`: 1 if a high value is good, -1 if a low one is.
    """

    metric: str
    sign: int = 1
    value: float | None = None
    step: int = 0

    @staticmethod
    def of(metric: str, mode: str) -> "Best":
        """Return the best of a metric before the first validation; `mode` is "max" or "min"."""
        if mode not in ("max", "min"):
            raise UserError(f'best=({metric!r}, {mode!r}): expected "max" or "min"')
        return Best(metric, 1 if mode == "max" else -1)

    def is_beaten_by(self, value: float) -> bool:
        """Tell whether a validation is better than the best one so far."""
        best = -self.sign * math.inf if self.value is None else self.value
        return self.sign * value > self.sign * best

    def after(self, metrics: Mapping[str, float], step: int) -> "Best":
        """Return the best after a validation at `step`: this one unless it is beaten.

        UserError where the metrics lack the one that counts.
        """
        if self.metric not in metrics:
            given = ", ".join(metrics) or "nothing"
            raise UserError(
                f"a validation gave {given}: expected {self.metric}, by which the best is chosen"
            )
        value = metrics[self.metric]
        return self.at(value, step) if self.is_beaten_by(value) else self

    def at(self, value: float, step: int) -> "Best":
        """Return the best after a better one."""
        return replace(self, value=value, step=step)

    def as_json(self) -> dict[str, float]:
        """Return what a checkpoint holds of it."""
        if self.value is None:
            return {"step": self.step}
        return {self.metric: self.value, "step": self.step}

    def restored(self, state: Mapping[str, float]) -> "Best":
        """Return the best that a checkpoint holds."""
        return replace(self, value=state.get(self.metric), step=int(state["step"]))
