"""Pictures of a run (the confusion matrix, the learning curves) and of several, as PNG files.

Drawn without a display, from what metrics.json and metrics.jsonl hold.
"""

import textwrap
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")  # no display needed
from matplotlib import pyplot as plt

from repro.command import UserError


def draw(
    folder: Path, confusion: list[list[int]], classes: list[str], entries: list[dict[str, Any]]
) -> None:
    """The confusion matrix and, where metrics.jsonl tells them, the learning curves, as PNG."""
    folder.mkdir(exist_ok=True)
    figure, axes = plt.subplots(figsize=(5.5, 5), layout="constrained")
    axes.imshow([[count**0.5 for count in row] for row in confusion], cmap="Blues")
    half = max(map(max, confusion)) / 4  # of the root's scale: where white letters read better
    for y, row in enumerate(confusion):
        for x, count in enumerate(row):
            if count:
                axes.text(
                    x, y, str(count), ha="center", va="center", color="w" if count > half else "k"
                )
    ticks = range(len(classes))
    axes.set(xticks=ticks, yticks=ticks, xticklabels=classes, yticklabels=classes)
    axes.set(xlabel="predicted class", ylabel="true class", title="Test samples")
    figure.savefig(folder / "confusion_matrix.png", dpi=150)
    steps = [entry for entry in entries if "epoch" not in entry]
    epochs = [entry for entry in entries if "epoch" in entry]
    if steps and epochs:
        figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.5), layout="constrained")
        at = [entry["step"] for entry in epochs]
        left.plot([e["step"] for e in steps], [e["loss"] for e in steps], label="training batch")
        left.plot(at, [entry["loss"] for entry in epochs], label="validation")
        left.set(xlabel="step", ylabel="cross-entropy", yscale="log")
        left.legend()
        right.plot(at, [entry["accuracy"] for entry in epochs], color="C1")
        right.set(xlabel="step", ylabel="validation accuracy")
        figure.savefig(folder / "learning_curves.png", dpi=150)
    plt.close("all")


def draw_groups(path: Path, groups: list[dict[str, Any]]) -> None:
    """Validation by step of what `compare.compare` found: each group's mean over the seeds as a
    line, lowest to highest as a band. UserError without a metric that all runs validated.
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
            steps = sorted(set.intersection(*map(set, curves)))
            values = [[curve[step] for curve in curves] for step in steps]
            axes.plot(steps, [sum(v) / len(v) for v in values], label=label)
            axes.fill_between(steps, [*map(min, values)], [*map(max, values)], alpha=0.25)
            axes.set(xlabel="step", ylabel=f"validation {name}")
    figure.legend(*row[0][0].get_legend_handles_labels(), loc="outside lower center")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150, format="png")
    plt.close(figure)
