"""Measure a classifier: accuracy, loss, each class, the confusion matrix."""

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class ClassificationMetrics:
    """What the predictions of a classifier are worth; metrics.json has these names.

    `loss` is the mean cross-entropy, in nats. `class_accuracy` is None for a class without
    samples. `confusion` has a row for each true class and a column for each predicted one.
    """

    accuracy: float
    loss: float
    samples: int
    class_accuracy: dict[str, float | None]
    confusion: list[list[int]]


def classification_metrics(
    logits: Tensor, labels: Tensor, classes: list[str]
) -> ClassificationMetrics:
    """Measure `logits` (samples, classes) against `labels` (samples), both on the CPU."""
    count = len(classes)
    pairs = labels * count + logits.argmax(1)
    confusion = pairs.bincount(minlength=count**2).view(count, count)
    correct = confusion.diagonal()
    samples = confusion.sum(1)
    class_accuracy = {
        name: correct[label].item() / samples[label].item() if samples[label] else None
        for label, name in enumerate(classes)
    }
    return ClassificationMetrics(
        accuracy=correct.sum().item() / len(labels),
        loss=functional.cross_entropy(logits.double(), labels).item(),
        samples=len(labels),
        class_accuracy=class_accuracy,
        confusion=confusion.tolist(),
    )
