"""Find the first metric that differs between two runs whose steps agree.

The trace holds what happens in steps, so it does not tell what an evaluation made of the weights.
Metrics are compared where both runs have them: the lines of metrics.jsonl of one step and split,
then the evaluations of one step in files of the same name.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from repro.core.bounded import read_json_file
from repro.core.errors import UserError
from repro.core.files import Json, JsonObject
from repro.core.layout import EVALUATION, METRICS, evaluation_file
from repro.runs.logs import line_step, read_lines
from repro.runs.metric_values import differing_metrics, metrics_of


@dataclass(frozen=True)
class MetricDifference:
    """The first metric that differs, and its values in A and B; None where a run has none.

    `file`: its name in both runs. `split`: None if the line has none. `differing`: all metrics of
    that line, or of that file, that differ.
    """

    file: str
    step: int
    split: str | None
    metric: str
    a: Json
    b: Json
    differing: list[str]


class _Place(NamedTuple):
    """What two runs' metrics must have in common to be compared.

    `number`: how many lines of this step and split come before it.
    """

    file: str
    step: int
    split: str | None
    number: int = 0


def find_metric_difference(a: Path, b: Path, last: int) -> MetricDifference | None:
    """Compare the metrics of two runs until step `last`; UserError if a file is damaged.

    Returns None if all that both runs have are equal, or if there are none.
    """
    for read in (_logged, _evaluated):
        there = read(b)
        for place, metrics in read(a).items():
            if place.step <= last and place in there:
                difference = _difference(place, metrics, there[place])
                if difference:
                    return difference
    return None


def _difference(place: _Place, a: JsonObject, b: JsonObject) -> MetricDifference | None:
    differing = differing_metrics(a, b)
    if not differing:
        return None
    first = differing[0]
    return MetricDifference(
        file=place.file,
        step=place.step,
        split=place.split,
        metric=first,
        a=a.get(first),
        b=b.get(first),
        differing=differing,
    )


def _logged(run: Path) -> dict[_Place, JsonObject]:
    """Read the lines of metrics.jsonl, in the file's order."""
    lines: dict[_Place, JsonObject] = {}
    alike: Counter[_Place] = Counter()  # lines of one step and split, told apart by their number
    path = run / METRICS
    for line in read_lines(path):
        split = line.get("split")
        first = _Place(METRICS, line_step(line), None if split is None else str(split))
        lines[first._replace(number=alike[first])] = _metrics_in(path, line)
        alike[first] += 1
    return lines


def _evaluated(run: Path) -> dict[_Place, JsonObject]:
    """Read the evaluations of a run's checkpoints: metrics.json, metrics-best.json and others."""
    return {
        _Place(path.name, step, None): _metrics_in(path, evaluation)
        for path, evaluation in _evaluations(run)
        if isinstance(step := evaluation.get("step"), int)
    }


def _evaluations(run: Path) -> Iterator[tuple[Path, JsonObject]]:
    """Yield path and content of each JSON object in metrics.json and in metrics-*.json."""
    named = evaluation_file(run, "*").name
    for path in (run / EVALUATION, *sorted(run.glob(named))):
        if not path.is_file():
            continue
        value = read_json_file(path, "evaluate again, or move it away")
        if isinstance(value, dict):
            yield path, value


def _metrics_in(path: Path, values: JsonObject) -> JsonObject:
    """Return the metrics of a line or of a whole file; UserError if they are nested too deeply."""
    try:
        return metrics_of(values)
    except ValueError as error:
        raise UserError(f"{path} is damaged: {error}; restore it, or move it away") from error
