"""Measure a classifier by its confusion matrix, and draw that."""

from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

MOST_NAMED = 30  # classes; of more, names and numbers could not be read


def confusion_of(logits: Tensor, labels: Tensor) -> Tensor:
    """Count the samples of each true class (rows) by the class they are taken for (columns).

    `logits` (samples, classes), `labels` (samples); int64 on the CPU.
    """
    classes = logits.shape[1]
    pairs = (labels * classes + logits.argmax(1)).cpu()
    return torch.bincount(pairs, minlength=classes**2).view(classes, classes)


def accuracy_of(confusion: Tensor) -> float:
    """Return the part of the samples that were taken for what they are."""
    return confusion.diagonal().sum().item() / confusion.sum().item()


def class_accuracies(confusion: Tensor, classes: list[str]) -> dict[str, float | None]:
    """Return the accuracy on each class; None for a class without samples."""
    correct = confusion.diagonal().tolist()
    samples = confusion.sum(1).tolist()
    return {
        name: right / count if count else None
        for name, right, count in zip(classes, correct, samples, strict=True)
    }


def draw_confusion(path: Path, confusion: list[list[int]], classes: list[str]) -> None:
    """Draw how many samples of each true class were predicted as each class."""
    import matplotlib as mpl  # only here: a training draws nothing

    mpl.use("Agg")  # no display needed
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(5.5, 5), layout="constrained")
    axes.imshow([[count**0.5 for count in row] for row in confusion], cmap="Blues")
    axes.set(xlabel="predicted class", ylabel="true class", title="Test samples")
    if len(classes) <= MOST_NAMED:
        _write_counts(axes, confusion)
        # A folder's name may be any bytes, and hold two $.
        names = [name[:24].encode(errors="replace").decode() for name in classes]
        turned = 90 if max(map(len, names)) > 3 else 0
        axes.set_xticks(range(len(names)), names, rotation=turned, parse_math=False)
        axes.set_yticks(range(len(names)), names, parse_math=False)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def _write_counts(axes: Any, confusion: list[list[int]]) -> None:
    half = max(map(max, confusion)) / 4  # of the root's scale: where white letters read better
    for x, y in product(range(len(confusion)), repeat=2):
        if count := confusion[y][x]:
            color = "w" if count > half else "k"
            axes.text(x, y, str(count), ha="center", va="center", color=color)
