"""Read what a finished run gave: how far it came, its metrics, the conditions of all its times.

And choose which metrics of several runs can stand in one table.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from repro.core.errors import UserError, reason_of
from repro.core.files import Json, JsonObject, parse_object
from repro.core.layout import (
    BEST,
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
from repro.core.project import MAX_STEPS, PROCESSES
from repro.core.text import flatten, listed
from repro.runs.config_values import setting
from repro.runs.context import Context, read_context
from repro.runs.evaluation import best_step
from repro.runs.logs import is_validation, line_step, read_lines
from repro.runs.metric_values import metrics_of

LAST_EVALUATION = evaluation_file(Path(), LAST).name
_PROCESSES = f"config: {PROCESSES}"


class Measured(NamedTuple):
    """What a file of a run says of the weights after `step` steps.

    `metrics`: all, those in groups with dotted names. `numbers`: the floats outside groups, which
    `compare` averages.
    """

    step: int
    metrics: JsonObject
    numbers: dict[str, float]


@dataclass(frozen=True)
class RunResult:
    """What a run has done (`step`), where it ends (`goal`, None if unknown), and what it gave.

    `measured`: by the names of files: EVALUATION and LAST_EVALUATION, if they are of what they say
    today, and METRICS, its last validation. `checkpoints`: what EVALUATION is of: LAST, BEST or
    both, in this order; none without it. `bits`: those of the last checkpoint, if it was evaluated.
    `curve`: the lines of the validations. `conditions` are flat.
    """

    run: str
    step: int
    goal: int | None
    seed: int | None
    seeds: dict[str, int]
    bits: str | None
    measured: dict[str, Measured]
    checkpoints: list[str]
    curve: list[JsonObject]
    conditions: JsonObject

    @property
    def is_finished(self) -> bool:
        """Whether the training came to its end; False where that is not known."""
        return self.goal is not None and self.step >= self.goal

    @property
    def is_evaluated(self) -> bool:
        """Whether it has test metrics of its last or of its best checkpoint."""
        return bool(self.numbers(EVALUATION) or self.numbers(LAST_EVALUATION))

    @property
    def validation(self) -> dict[str, float]:
        """Return the numbers of the last validation."""
        return self.numbers(METRICS)

    def numbers(self, file: str) -> dict[str, float]:
        """Return the numbers of a file, which `measured` names; none where the run lacks it."""
        return self.measured[file].numbers if file in self.measured else {}

    def as_json(self) -> JsonObject:
        """Return the JSON object that `compare --json` prints of a run."""
        return {
            "run": self.run,
            "seed": self.seed,
            "step": self.step,
            "test": {**self.numbers(EVALUATION)},
            "checkpoints": [*self.checkpoints],
            "last": {**self.numbers(LAST_EVALUATION)},
            "validation": {**self.validation},
            "curve": [*self.curve],
        }


class MetricsOrigin(NamedTuple):
    """Where the metrics of all compared runs are from.

    `source`: "test" or "validation". `file`: its name in each run. `checkpoints`: what it is of,
    LAST, BEST, or both where these are one checkpoint in each run; none of a validation.
    """

    source: str
    file: str
    checkpoints: list[str]

    def __str__(self) -> str:
        if self.file == METRICS:
            return f"last validation in {METRICS}"
        told = f"{self.file} of the {' and '.join(self.checkpoints)} checkpoint"
        if self.file == LAST_EVALUATION:
            told += f", because {EVALUATION} is not of one kind in all runs"
        return told


def choose_origin(runs: list[RunResult]) -> MetricsOrigin:
    """Choose the metrics that all runs have: tests if all were evaluated, else validations.

    Tests are those of metrics.json if it is of one kind of checkpoint in all runs, else those of
    metrics-last.json: UserError if a run lacks that. A run whose best checkpoint is its last one
    has both kinds.
    """
    if not all(run.is_evaluated for run in runs):
        return MetricsOrigin("validation", METRICS, [])
    kinds = [set(run.checkpoints) if run.numbers(EVALUATION) else set() for run in runs]
    common = [kind for kind in runs[0].checkpoints if all(kind in has for has in kinds)]
    if common:
        return MetricsOrigin("test", EVALUATION, common)
    missing = [run.run for run in runs if not run.numbers(LAST_EVALUATION)]
    if missing:
        raise UserError(
            f"{EVALUATION} is not of one kind of checkpoint, last or best, in all runs, and "
            f"{listed(missing)} has no {LAST_EVALUATION} of its last step: evaluate "
            f"{CHECKPOINTS}/{LAST} of all runs: make evaluate "
            f'ARGS="--checkpoint {Path(missing[0], CHECKPOINTS, LAST)}"'
        )
    return MetricsOrigin("test", LAST_EVALUATION, [LAST])


def read_result(folder: Path) -> RunResult:
    """Read a run's state, metrics and contexts; UserError if a file of it is damaged."""
    try:
        return _read_whole(folder)
    except (OSError, ValueError) as error:
        reason = reason_of(error)
        raise UserError(f"{folder} is damaged ({reason}): restore it, or leave it out") from error


def _read_whole(folder: Path) -> RunResult:
    checkpoints = steps_newest_first(folder / CHECKPOINTS)  # an archive has no links
    state = _object(checkpoints[0] / STATE) if checkpoints else {}
    step = _number(state.get("step", 0))
    config = state.get("config", {})
    if not isinstance(config, dict):
        raise ValueError(f"{STATE} has no config")
    named = {LAST: step, BEST: best_step(checkpoints[0]) if checkpoints else 0}
    test = _object(folder / EVALUATION)
    kinds = [name for name in named if test and _number(test.get("step")) == named[name]]
    if not kinds:
        test = {}  # it was trained further since
    last = _object(folder / LAST_EVALUATION)
    if last and _number(last.get("step")) != step:
        last = {}
    evaluated = last or (test if LAST in kinds else {})
    lines = [line for line in read_lines(folder / METRICS) if is_validation(line)]
    curve = [line for line in lines if line_step(line) <= step]
    contexts = [_context(place) for place in context_folders(folder)]
    bits = evaluated.get("bits")
    files = {EVALUATION: test, LAST_EVALUATION: last, METRICS: curve[-1] if curve else {}}
    return RunResult(
        run=str(folder),
        step=step,
        goal=_goal_of_state(state) or _goal(config, evaluated),
        seed=contexts[0].seed,
        seeds=contexts[0].seeds,
        bits=bits if isinstance(bits, str) else None,
        measured={name: _measured(values) for name, values in files.items() if values},
        checkpoints=kinds,
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


def _goal_of_state(state: JsonObject) -> int | None:
    """Return the step at which the training ends, by what its last checkpoint says of it.

    A training that ended early has come to its goal. None for a checkpoint that does not say.
    """
    goal = state.get("step") if state.get("finished") else state.get("steps")
    return goal if isinstance(goal, int) else None


def _goal(config: JsonObject, last: JsonObject) -> int | None:
    """Return the step at which the training ends, by the last checkpoint's evaluation.

    Not by that of the best one: the training may have been lengthened since.
    """
    ends = (last.get("steps"), setting(config, MAX_STEPS))
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
        if _PROCESSES in here:  # it may be resumed with others
            here[_PROCESSES] = setting(context.conditions.config, PROCESSES)
        for name, value in here.items():
            before = conditions.get(name, value)
            conditions[name] = value if before == value else f"{before}, then {value}"
    return conditions


def _measured(values: JsonObject) -> Measured:
    numbers = {name: value for name, value in values.items() if isinstance(value, float)}
    return Measured(_number(values.get("step")), metrics_of(values), numbers)
