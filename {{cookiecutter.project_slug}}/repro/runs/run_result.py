"""Read what a finished run gave: how far it came, its metrics, the conditions of all its times."""

from dataclasses import dataclass
from pathlib import Path

from repro.core.errors import UserError
from repro.core.files import Json, JsonObject, parse_object
from repro.core.layout import (
    CHECKPOINTS,
    CONTEXT,
    EVALUATION,
    LAST,
    METRICS,
    STATE,
    context_folders,
    evaluation_file,
    steps_newest_first,
)
from repro.core.project import EPOCHS, MAX_STEPS
from repro.core.text import flatten
from repro.runs.conditions import setting
from repro.runs.context import Context, read_context
from repro.runs.logs import line_step, read_lines


@dataclass(frozen=True)
class RunResult:
    """What a run has done (`step`), where it ends (`goal`, None if unknown), and what it gave.

    `test` holds the numbers of metrics.json, `validation` those of the last validation, `curve` the
    lines of the epochs. `bits`: those of the last checkpoint, if it was evaluated. `conditions` are
    flat.
    """

    run: str
    step: int
    goal: int | None
    seed: int | None
    seeds: dict[str, int]
    bits: str | None
    test: dict[str, float]
    validation: dict[str, float]
    curve: list[JsonObject]
    conditions: JsonObject

    @property
    def is_finished(self) -> bool:
        return self.goal is not None and self.step >= self.goal

    def metrics(self, source: str) -> dict[str, float]:
        """Return the metrics of the source "test" or "validation"."""
        return self.test if source == "test" else self.validation

    def as_json(self) -> JsonObject:
        """Return the JSON object that `compare --json` prints of a run."""
        return {
            "run": self.run,
            "seed": self.seed,
            "step": self.step,
            "test": {**self.test},
            "validation": {**self.validation},
            "curve": [*self.curve],
        }


def read_result(folder: Path) -> RunResult:
    """Read a run's state, metrics and contexts; UserError if a file of it is damaged."""
    try:
        return _read_whole(folder)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{folder} is damaged ({reason}): restore it, or leave it out") from error


def _read_whole(folder: Path) -> RunResult:
    checkpoints = steps_newest_first(folder / CHECKPOINTS)  # an archive has no links
    state = _object(checkpoints[0] / STATE) if checkpoints else {}
    step = _number(state.get("step", 0))
    config = state.get("config", {})
    if not isinstance(config, dict):
        raise ValueError(f"{STATE} has no config")
    test = _object(folder / EVALUATION)  # of the best checkpoint, where a claim is of that one
    last = _object(evaluation_file(folder, LAST)) or test
    if last and _number(last.get("step")) != step:
        test = last = {}  # it was trained further since
    lines = [line for line in read_lines(folder / METRICS) if "epoch" in line]
    curve = [line for line in lines if line_step(line) <= step]
    contexts = [_context(place) for place in context_folders(folder)]
    bits = last.get("bits")
    return RunResult(
        run=str(folder),
        step=step,
        goal=_goal(config, test, curve),
        seed=contexts[0].seed,
        seeds=contexts[0].seeds,
        bits=bits if isinstance(bits, str) else None,
        test=_floats(test),
        validation=_floats(curve[-1]) if curve else {},
        curve=curve,
        conditions=_flat_conditions(contexts, config),
    )


def _object(path: Path) -> JsonObject:
    """Read a JSON object; empty if the file is missing, ValueError if it is damaged."""
    value = parse_object(path)
    if value is None and path.is_file():
        raise ValueError(f"{path.name} holds no JSON object")
    return value or {}


def _context(folder: Path) -> Context:
    context = read_context(folder)
    if context is None or not context.conditions.lock:
        raise ValueError(f"{CONTEXT} has no conditions")
    return context


def _number(value: Json) -> int:
    if not isinstance(value, int):
        raise ValueError(f"found {value!r}, expected a whole number")
    return value


def _goal(config: JsonObject, test: JsonObject, curve: list[JsonObject]) -> int | None:
    """Return the step at which the training ends, by its evaluation or by its epochs."""
    ends = [test.get("steps")]
    if not ends[0] and curve:
        steps_per_epoch = line_step(curve[-1]) // _number(curve[-1]["epoch"])
        ends = [steps_per_epoch * _number(setting(config, EPOCHS))]
    ends.append(setting(config, MAX_STEPS))
    return min((_number(end) for end in ends if end), default=None)


def _flat_conditions(contexts: list[Context], config: JsonObject) -> JsonObject:
    """Return a run's conditions; what changed when it was resumed tells both values.

    The settings are the checkpoint's: a resumed run may end elsewhere than was meant first.
    """
    settings = {name: value for name, value in config.items() if name not in ("seed", "seeds")}
    conditions: JsonObject = {}
    for context in contexts:
        kinds = context.conditions.as_json()
        here = flatten({**kinds, "hardware": context.hardware_class, "config": settings})
        for name, value in here.items():
            before = conditions.get(name, value)
            conditions[name] = value if before == value else f"{before}, then {value}"
    return conditions


def _floats(values: JsonObject) -> dict[str, float]:
    return {name: value for name, value in values.items() if isinstance(value, float)}
