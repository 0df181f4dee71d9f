"""Draw the curves of a run and of several, as SVG files.

Drawn from what metrics.json, metrics.jsonl and traces hold; the same numbers give the same bytes.
Narrow, so that a telephone shows their letters large enough.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path

from repro.core.bounded import DamagedFile
from repro.core.errors import UserError
from repro.core.files import write_file
from repro.core.layout import TRACE
from repro.runs.chart import Curve, Mark, Panel, Style, chart
from repro.runs.compare import Group
from repro.runs.logs import Line, is_validation, line_step, read_trace_lines

CURVES = "learning_curves.svg"  # of a run
CURVES_OF_SEEDS = "learning_curves_seeds.svg"
_FIRST_OF_BASELINES = 2  # colour: those before are the validation's and the training's
_LARGEST_NUMBER = 10**308  # a larger whole number is no float


def draw_curves(path: Path, lines: Sequence[Line]) -> None:
    """Draw each number that a run validated, and the loss of its training batches, by step.

    Nothing is drawn where the run validated none.
    """
    epochs = _epochs(lines)
    training = _values([line for line in lines if not is_validation(line)], "loss")
    panels = []
    for name, baselines in _with_baselines([epochs]).items():
        curves = [Curve(_values(epochs, name), "validation")]
        if name == "loss" and training:
            curves = [Curve(training, "training batch", color=1), *curves]
        for color, baseline in enumerate(baselines, _FIRST_OF_BASELINES):
            curves.append(Curve(_values(epochs, baseline), baseline, color, "dashed"))
        label = name if name == "loss" else f"validation {name}"
        panels.append(Panel(label, curves, logarithmic=name == "loss"))
    _write(path, "Learning curves", panels)


def draw_seeds(folder: Path, runs: Mapping[str, Sequence[Line]]) -> None:
    """Draw each number that runs of several seeds validated by step: mean, range, every run.

    `runs`: the lines of metrics.jsonl by seed; of a single run, its learning curves are drawn.
    Nothing is drawn where no run validated any.
    """
    path = folder / CURVES_OF_SEEDS
    if len(runs) == 1:
        draw_curves(path, *runs.values())
        return
    epochs = [_epochs(lines) for lines in runs.values()]
    panels = []
    for name, baselines in _with_baselines(epochs).items():
        seeds = [_values(lines, name) for lines in epochs]
        curves = [Curve(values, "each seed", style="thin") for values in seeds]
        curves.append(_mean(seeds, f"mean of {len(runs)}, lowest to highest"))
        for color, baseline in enumerate(baselines, _FIRST_OF_BASELINES):
            values = [_values(lines, baseline) for lines in epochs]
            curves.append(replace(_mean(values, baseline, color), style="dashed"))
        panels.append(Panel(f"validation {name}", curves, logarithmic=name == "loss"))
    _write(path, f"Learning curves of {len(runs)} seeds", panels)


def draw_groups(path: Path, groups: list[Group]) -> None:
    """Draw validation by step of compared runs, a band over the seeds for each group.

    UserError without a metric that all runs validated.
    """
    runs = [run for group in groups for run in group.runs]
    names = [name for name in runs[0].validation if all(name in run.validation for run in runs)]
    if not names:
        raise UserError("no picture: expected a validation of all runs in metrics.jsonl")
    panels = []
    for name in names:
        curves = [
            _mean([_values(run.curve, name) for run in group.runs], _label(number, group), number)
            for number, group in enumerate(groups)
        ]
        panels.append(Panel(f"validation {name}", curves))
    _write(path, f"Validation of {len(groups)} groups of runs", panels)


def _label(number: int, group: Group) -> str:
    settings = [
        f"{name.removeprefix('config: ')}={value}"
        for name, value in group.conditions.items()
        if value is not None
    ]
    return " ".join([f"{number + 1}:", *settings]) if settings else f"group {number + 1}"


def draw_parting(path: Path, runs: tuple[Path, Path], step: int | None) -> None:
    """Draw the loss curves of two runs' traces, and mark the step where they part."""
    curves = []
    styles: list[Style] = ["solid", "dashed"]
    for color, (run, style) in enumerate(zip(runs, styles, strict=True)):
        values = _losses(run / TRACE)
        curves.append(Curve(values, f"{'AB'[color]}: {run.name}", color, style))
    mark = None if step is None else Mark(step, f"step {step}")
    _write(path, "Two runs", [Panel("training loss", curves, logarithmic=True, mark=mark)])


def _losses(trace: Path) -> dict[int, float]:
    """Return the loss of each step of a trace; UserError for one that is no number."""
    values = {}
    for line in read_trace_lines(trace).values():
        if loss := line.quantities.get("loss"):
            try:
                values[line.step] = float.fromhex(loss)
            except (ValueError, OverflowError) as error:
                reason = f"the loss of step {line.step} is {loss[:40]!a}"
                raise DamagedFile(trace, reason) from error
    return values


def _write(path: Path, what: str, panels: Sequence[Panel]) -> None:
    """Write the picture; nothing where there is no panel."""
    if panels:
        names = ", ".join(panel.label for panel in panels)
        write_file(path, chart(f"{what}: {names} by step", panels).encode())


def _mean(runs: Sequence[Mapping[int, float]], label: str, color: int = 0) -> Curve:
    """Return the mean and the range at the steps that all runs have; NaN where one has a NaN."""
    means = {}
    band = {}
    for step in sorted(set.intersection(*map(set, runs))):
        at = [values[step] for values in runs]
        if all(map(math.isfinite, at)):
            means[step] = float(statistics.mean(at))  # without overflow, unlike fmean
            band[step] = min(at), max(at)
        else:
            means[step] = math.nan
            band[step] = math.nan, math.nan
    return Curve(means, label, color, band=band if len(runs) > 1 else {})


def _epochs(lines: Sequence[Line]) -> list[Line]:
    return [line for line in lines if is_validation(line)]


def _validated(epochs: list[Line]) -> list[str]:
    """Return the names of the numbers that any line of an epoch has."""
    names = dict.fromkeys(name for line in epochs for name in line)
    return [name for name in names if name not in ("step", "epoch") and _values(epochs, name)]


def _with_baselines(runs: Sequence[list[Line]]) -> dict[str, list[str]]:
    """Return the numbers that the runs validated, by name, each with its baselines.

    A baseline of `mae` is a number such as `ridge_mae` that stays as it is at all steps of a run:
    no curve of its own, but a line beside those that are to be better.
    """
    names = _validated(list(chain(*runs)))
    by_length = sorted(names, key=len, reverse=True)
    ends = {name: [other for other in by_length if name.endswith(f"_{other}")] for name in names}
    baselines = [name for name in names if ends[name] and _is_constant(runs, name)]
    found: dict[str, list[str]] = {name: [] for name in names if name not in baselines}
    for name in baselines:
        found[next(other for other in ends[name] if other in found)].append(name)
    return found


def _is_constant(runs: Sequence[list[Line]], name: str) -> bool:
    """Tell whether each run has one value of a number at all of its steps, of which it has some."""
    values = [[*_values(lines, name).values()] for lines in runs]
    return all(len(of_run) > 1 and len({*of_run}) == 1 for of_run in values)


def _values(lines: Sequence[Line], name: str) -> dict[int, float]:
    """Return a number by step, of the lines that have it."""
    values = {}
    for line in lines:
        value = line.get(name)
        if isinstance(value, float) or (type(value) is int and abs(value) < _LARGEST_NUMBER):
            values[line_step(line)] = value
    return values
