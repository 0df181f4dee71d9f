"""Pictures of a run and of several seeds: confusion matrix and learning curves, as PNG files.

Drawn without a display, from what metrics.json and metrics.jsonl hold; the same numbers give the
same bytes. Narrow, so that a telephone shows their letters large enough.
"""

import statistics
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")  # no display needed
from matplotlib import pyplot as plt


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
        figure, (upper, lower) = plt.subplots(
            2, figsize=(4.4, 4.4), sharex=True, layout="constrained"
        )
        at = [entry["step"] for entry in epochs]
        upper.plot([e["step"] for e in steps], [e["loss"] for e in steps], label="training batch")
        upper.plot(at, [entry["loss"] for entry in epochs], label="validation")
        upper.set(ylabel="cross-entropy", yscale="log")
        upper.legend()
        lower.plot(at, [entry["accuracy"] for entry in epochs], color="C1")
        lower.set(xlabel="step", ylabel="validation accuracy")
        figure.savefig(folder / "learning_curves.png", dpi=150)
    plt.close("all")


def draw_seeds(folder: Path, runs: dict[str, list[dict[str, Any]]]) -> None:
    """What `runs`, the lines of metrics.jsonl by seed, tell of each epoch, as PNG: mean and range.

    Every number of the epochs' lines gets a curve. Nothing is drawn where no run tells one.
    """
    epochs = {seed: [e for e in entries if "epoch" in e] for seed, entries in runs.items()}
    numbers = {k: 0 for run in epochs.values() for e in run for k, v in e.items() if _is_number(v)}
    names = [name for name in numbers if name not in ("step", "epoch")]
    if not names:
        return
    size = (4.4, 2.2 * len(names))
    figure, rows = plt.subplots(
        len(names), figsize=size, sharex=True, squeeze=False, layout="constrained"
    )
    for name, axes in zip(names, rows[:, 0], strict=True):
        curves = [{e["step"]: e[name] for e in run if name in e} for run in epochs.values()]
        for curve in curves:
            axes.plot(list(curve), list(curve.values()), color="C0", alpha=0.35, linewidth=0.7)
        steps = sorted(set.intersection(*map(set, curves)))  # those that all seeds have
        values = [[curve[step] for curve in curves] for step in steps]
        low, high = [min(at) for at in values], [max(at) for at in values]
        axes.fill_between(steps, low, high, color="C0", alpha=0.2, linewidth=0, label="all seeds")
        means = [statistics.fmean(at) for at in values]
        axes.plot(steps, means, color="C0", label=f"mean of {len(curves)}")
        axes.set(ylabel=f"validation {name}")
        if name == "loss" and low and min(low) > 0:
            axes.set(yscale="log")
    rows[0, 0].legend()
    rows[-1, 0].set(xlabel="step")
    folder.mkdir(parents=True, exist_ok=True)
    figure.savefig(folder / "learning_curves_seeds.png", dpi=150)
    plt.close("all")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
