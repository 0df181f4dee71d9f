"""Draw the curves of a run and of several, as PNG files.

Drawn without a display, from what metrics.json, metrics.jsonl and traces hold; the same numbers
give the same bytes. Narrow, so that a telephone shows their letters large enough.
"""

import statistics
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import TypeAlias

import matplotlib as mpl

mpl.use("Agg")  # no display needed
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from repro.core.errors import UserError
from repro.core.layout import TRACE
from repro.runs.compare import Group
from repro.runs.logs import Line, is_validation, line_step, read_trace_lines

Curve: TypeAlias = "dict[int, float]"  # values by step


def draw_curves(path: Path, lines: Sequence[Line]) -> None:
    """Draw each number that a run validated, and the loss of its training batches, by step.

    Nothing is drawn where the run validated none.
    """
    epochs = _epochs(lines)
    names = _validated(epochs)
    if not names:
        return
    training = _curve([line for line in lines if not is_validation(line)], "loss")
    with _panels(path, names) as panels:
        for name, axes in zip(names, panels, strict=True):
            if name == "loss" and training:
                axes.plot(list(training), list(training.values()), "C1", label="training batch")
            _band(axes, [_curve(epochs, name)], "validation")
            axes.set(ylabel=name if name == "loss" else f"validation {name}")


def draw_seeds(folder: Path, runs: Mapping[str, Sequence[Line]]) -> None:
    """Draw each number that runs of several seeds validated by step: mean, range, every run.

    `runs`: the lines of metrics.jsonl by seed; of a single run, its learning curves are drawn.
    Nothing is drawn where no run validated any.
    """
    path = folder / "learning_curves_seeds.png"
    if len(runs) == 1:
        draw_curves(path, *runs.values())
        return
    epochs = [_epochs(lines) for lines in runs.values()]
    names = _validated(list(chain(*epochs)))
    if not names:
        return
    with _panels(path, names) as panels:
        for name, axes in zip(names, panels, strict=True):
            curves = [_curve(lines, name) for lines in epochs]
            _band(axes, curves, f"mean of {len(runs)}, lowest to highest")
            for curve in curves:
                axes.plot(list(curve), list(curve.values()), color="C0", alpha=0.35, linewidth=0.7)
            axes.set(ylabel=f"validation {name}")


def draw_groups(path: Path, groups: list[Group]) -> None:
    """Draw validation by step of compared runs, a band over the seeds for each group.

    UserError without a metric that all runs validated.
    """
    runs = [run for group in groups for run in group.runs]
    names = [name for name in runs[0].validation if all(name in run.validation for run in runs)]
    if not names:
        raise UserError("no picture: expected a validation of all runs in metrics.jsonl")
    size = (5 * len(names), 4.2)
    figure, rows = plt.subplots(1, len(names), figsize=size, layout="constrained", squeeze=False)
    for number, group in enumerate(groups, 1):
        label = _label(number, group)
        for name, axes in zip(names, rows[0], strict=True):
            _band(axes, [_curve(run.curve, name) for run in group.runs], label)
            axes.set(xlabel="step", ylabel=f"validation {name}")
    figure.legend(*rows[0][0].get_legend_handles_labels(), loc="outside lower center")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150, format="png")
    plt.close(figure)


def _label(number: int, group: Group) -> str:
    settings = [
        f"{name.removeprefix('config: ')}={value}"
        for name, value in group.conditions.items()
        if value is not None
    ]
    return textwrap.shorten(f"{number}: {' '.join(settings)}", 60, placeholder=" ...")


def draw_parting(path: Path, runs: tuple[Path, Path], step: int | None) -> None:
    """Draw the loss curves of two runs' traces, and mark the step where they part."""
    figure, axes = plt.subplots(figsize=(8, 4), layout="constrained")
    for run, style, label in zip(runs, ("-", "--"), "AB", strict=True):
        curve = {
            line.step: float.fromhex(line.quantities["loss"])
            for line in read_trace_lines(run / TRACE).values()
            if "loss" in line.quantities
        }
        axes.plot(list(curve), list(curve.values()), style, label=f"{label}: {run.name}")
    if step is not None:
        axes.axvline(step, color="k", linewidth=0.8)
        axes.annotate(f" step {step}", (step, 0.95), xycoords=("data", "axes fraction"))
    axes.set(xlabel="step", ylabel="training loss", yscale="log")
    axes.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150, format="png")
    plt.close(figure)


@contextmanager
def _panels(path: Path, names: list[str]) -> Iterator[list[Axes]]:
    """Yield one panel for each name, below each other; save them when the block ends."""
    size = (4.4, 2.2 * len(names))
    figure, rows = plt.subplots(
        len(names), sharex=True, squeeze=False, figsize=size, layout="constrained"
    )
    panels = list(rows[:, 0])
    yield panels
    for name, axes in zip(names, panels, strict=True):
        if name == "loss" and axes.dataLim.y0 > 0:
            axes.set(yscale="log")
    panels[0].legend()
    panels[-1].set(xlabel="step")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def _band(axes: Axes, curves: list[Curve], label: str) -> None:
    """Draw the mean and the range of curves at the steps that all have."""
    steps = sorted(set.intersection(*map(set, curves)))
    values = [[curve[step] for curve in curves] for step in steps]
    means = [statistics.fmean(at) for at in values]
    lowest = [min(at) for at in values]
    highest = [max(at) for at in values]
    (line,) = axes.plot(steps, means, label=label)
    axes.fill_between(steps, lowest, highest, color=line.get_color(), alpha=0.2, linewidth=0)


def _epochs(lines: Sequence[Line]) -> list[Line]:
    return [line for line in lines if is_validation(line)]


def _validated(epochs: list[Line]) -> list[str]:
    """Return the names of the numbers that any line of an epoch has."""
    names = dict.fromkeys(name for line in epochs for name in line)
    return [name for name in names if name not in ("step", "epoch") and _curve(epochs, name)]


def _curve(lines: Sequence[Line], name: str) -> Curve:
    """Return a number by step, of the lines that have it."""
    curve = {}
    for line in lines:
        value = line.get(name)
        if isinstance(value, int | float) and not isinstance(value, bool):
            curve[line_step(line)] = value
    return curve
