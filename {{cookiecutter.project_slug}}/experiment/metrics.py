"""What is told of a classifier: accuracy, loss, each class, the confusion matrix."""

from typing import Any

from torch import Tensor
from torch.nn import functional


def classification_metrics(logits: Tensor, labels: Tensor, classes: list[str]) -> dict[str, Any]:
    """As JSON, of `logits` (samples, classes) and `labels` (samples) on the CPU.

    `confusion` has a row for each true class; `loss` is the mean cross-entropy, in nats. A
    class without samples has the accuracy None.
    """
    size = len(classes)
    confusion = (labels * size + logits.argmax(1)).bincount(minlength=size**2).view(size, size)
    correct, per_class = confusion.diagonal(), confusion.sum(1)
    return {
        "accuracy": correct.sum().item() / len(labels),
        "loss": functional.cross_entropy(logits.double(), labels).item(),
        "samples": len(labels),
        "class_accuracy": {
            name: correct[i].item() / per_class[i].item() if per_class[i] else None
            for i, name in enumerate(classes)
        },
        "confusion": confusion.tolist(),
    }
