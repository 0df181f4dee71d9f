"""Pictures of a run and of several: confusion matrix and learning curves, as PNG files.

Drawn without a display, from what metrics.json, metrics.jsonl and traces hold; the same numbers
give the same bytes. Narrow, so that a telephone shows their letters large enough.
"""

import statistics
import textwrap
from itertools import product
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")  # no display needed
from matplotlib import pyplot as plt

from repro.core.errors import UserError
from repro.core.layout import TRACE
from repro.runs.logs import read_lines

MOST_NAMED = 30  # classes; of more, names and numbers could not be read


def draw(
    folder: Path, confusion: list[list[int]], classes: list[str], entries: list[dict[str, Any]]
) -> None:
    """The confusion matrix and, where metrics.jsonl tells them, the learning curves, as PNG."""
    folder.mkdir(exist_ok=True)
    figure, axes = plt.subplots(figsize=(5.5, 5), layout="constrained")
    axes.imshow([[count**0.5 for count in row] for row in confusion], cmap="Blues")
    axes.set(xlabel="predicted class", ylabel="true class", title="Test samples")
    if len(classes) <= MOST_NAMED:
        half = max(map(max, confusion)) / 4  # of the root's scale: where white letters read better
        for x, y in product(range(len(classes)), repeat=2):
            if count := confusion[y][x]:
                color = "w" if count > half else "k"
                axes.text(x, y, str(count), ha="center", va="center", color=color)
        # A folder's name may be any bytes, and hold two $.
        names = [name[:24].encode(errors="replace").decode() for name in classes]
        turned = 90 if max(map(len, names)) > 3 else 0
        axes.set_xticks(range(len(names)), names, rotation=turned, parse_math=False)
        axes.set_yticks(range(len(names)), names, parse_math=False)
    figure.savefig(folder / "confusion_matrix.png", dpi=150)
    plt.close(figure)
    draw_seeds(folder, {"": entries}, "learning_curves")


def draw_groups(path: Path, groups: list[dict[str, Any]]) -> None:
    """Validation by step of what `compare.compare` found, a band over the seeds for each group.

    UserError without a metric that all runs validated.
    """
    runs = [run for group in groups for run in group["runs"]]
    common = set.intersection(*(set(run["validation"]) for run in runs))
    names = [name for name in runs[0]["validation"] if name in common]
    if not names:
        raise UserError("no picture: expected a validation of all runs in metrics.jsonl")
    size = (5 * len(names), 4.2)
    figure, row = plt.subplots(1, len(names), figsize=size, layout="constrained", squeeze=False)
    for number, group in enumerate(groups, 1):
        settings = [(k.removeprefix("config: "), v) for k, v in group["conditions"].items()]
        words = " ".join(f"{k}={v}" for k, v in settings if v is not None)
        label = textwrap.shorten(f"{number}: {words}", 60, placeholder=" ...")
        for name, axes in zip(names, row[0], strict=True):
            curves = [{e["step"]: e[name] for e in run["curve"]} for run in group["runs"]]
            _band(axes, curves, label)
            axes.set(xlabel="step", ylabel=f"validation {name}")
    figure.legend(*row[0][0].get_legend_handles_labels(), loc="outside lower center")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150, format="png")
    plt.close(figure)


def draw_seeds(
    folder: Path, runs: dict[str, list[dict[str, Any]]], file: str = "learning_curves_seeds"
) -> None:
    """What `runs`, the lines of metrics.jsonl by seed, tell of each epoch, as PNG: mean and range.

    Every number of the epochs' lines gets a curve; of a single run, the loss of its steps as well.
    Nothing is drawn where no run tells one.
    """
    epochs = {seed: [e for e in entries if "epoch" in e] for seed, entries in runs.items()}
    numbers = {k: 0 for run in epochs.values() for e in run for k, v in e.items() if _is_number(v)}
    names = [name for name in numbers if name not in ("step", "epoch")]
    if not names:
        return
    (first, *others) = runs.values()
    steps = {e["step"]: e["loss"] for e in first if "epoch" not in e and "loss" in e}
    panels: Any = {"figsize": (4.4, 2.2 * len(names)), "layout": "constrained"}
    figure, rows = plt.subplots(len(names), sharex=True, squeeze=False, **panels)
    for name, axes in zip(names, rows[:, 0], strict=True):
        if name == "loss" and steps and not others:
            axes.plot(list(steps), list(steps.values()), "C1", label="training batch")
        curves = [{e["step"]: e[name] for e in run if name in e} for run in epochs.values()]
        _band(axes, curves, f"mean of {len(runs)}, lowest to highest" if others else "validation")
        for curve in curves if others else ():
            axes.plot(list(curve), list(curve.values()), color="C0", alpha=0.35, linewidth=0.7)
        axes.set(ylabel=f"validation {name}" if others or name != "loss" else name)
        if name == "loss" and axes.dataLim.y0 > 0:
            axes.set(yscale="log")
    rows[0, 0].legend()
    rows[-1, 0].set(xlabel="step")
    folder.mkdir(parents=True, exist_ok=True)
    figure.savefig(folder / f"{file}.png", dpi=150)
    plt.close(figure)


def draw_parting(path: Path, runs: tuple[Path, Path], step: int | None) -> None:
    """The two loss curves of the traces as a PNG file, the step where they part marked."""
    figure, axes = plt.subplots(figsize=(8, 4), layout="constrained")
    for run, style, label in zip(runs, ("-", "--"), "AB", strict=True):
        lines = [line for line in read_lines(run / TRACE) if "loss" in line]
        losses = [float.fromhex(line["loss"]) for line in lines]
        axes.plot([line["step"] for line in lines], losses, style, label=f"{label}: {run.name}")
    if step is not None:
        axes.axvline(step, color="k", linewidth=0.8)
        axes.annotate(f" step {step}", (step, 0.95), xycoords=("data", "axes fraction"))
    axes.set(xlabel="step", ylabel="training loss", yscale="log")
    axes.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150, format="png")
    plt.close(figure)


def _band(axes: Any, curves: list[dict[int, float]], label: str) -> None:
    """Draw the mean and the range of curves at the steps that all have."""
    steps = sorted(set.intersection(*map(set, curves)))
    values = [[curve[step] for curve in curves] for step in steps]
    low, high = [min(at) for at in values], [max(at) for at in values]
    (line,) = axes.plot(steps, [statistics.fmean(at) for at in values], label=label)
    axes.fill_between(steps, low, high, color=line.get_color(), alpha=0.2, linewidth=0)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
