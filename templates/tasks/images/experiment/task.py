"""The task: to tell what is on an image. Its model, its loss, and what is measured of it.

The kit's loop (repro/tasks/loop.py) calls these methods; repro/tasks/task.py says what each gets
and returns. A step is a function of (config, weights, optimizer state, step).
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from experiment.config import Config
from experiment.metrics import accuracy_of, class_accuracies, confusion_of, draw_confusion
from experiment.model import build_model, load_pretrained
from repro.core.files import JsonObject
from repro.tasks import Outputs, Task, warmup_and_cosine
from repro.training import Weighted

OPTIMIZERS: dict[str, type[torch.optim.Optimizer]] = {
    "adamw": torch.optim.AdamW,
    "sgd": torch.optim.SGD,
}


class Classifier(Task):
    """A classifier of images, measured by its accuracy."""

    best = ("accuracy", "max")

    def __init__(self, config: Config, facts: Any) -> None:
        self.config = config
        self.classes: list[str] = facts["classes"]
        channels, height, width = facts["shape"]
        self.model = build_model(config, (channels, height, width), len(self.classes))

    def initialize(self, datasets: object) -> None:
        """Start from weights that were trained before, if the config names some."""
        load_pretrained(self.config, self.model)

    def optimizers(self) -> torch.optim.Optimizer:
        """Return the optimizer that the config names.

        Fused: the default implementations take the root with MKL, whose last bit depends on the CPU
        model even in the portable profile (measured); the fused kernels do not.
        """
        settings = self.config.optimizer.model_dump(exclude={"name", "learning_rate"})
        make: Any = OPTIMIZERS[self.config.optimizer.name]
        optimizer: torch.optim.Optimizer = make(
            self.model.parameters(),
            lr=self.config.optimizer.learning_rate,
            fused=True,
            **settings,
        )
        return optimizer

    def rate(self, step: int, steps: int) -> float:
        """Return a linear warm-up, then half a cosine to zero."""
        training = self.config.training
        warmup = steps * training.warmup_epochs / training.epochs if training.epochs else 0
        return warmup_and_cosine(step, steps, warmup)

    def loss(self, batch: list[Tensor]) -> Weighted:
        """Return the loss of a shard's images, summed, and their number."""
        images, labels = batch
        logits = self.model(images)
        total = functional.cross_entropy(logits.float(), labels, reduction="sum")
        return Weighted(total, weight=len(labels))

    def evaluate(self, batch: list[Tensor]) -> Outputs:
        """Count what images are taken for; logits (batch, classes)."""
        images, labels = batch
        logits = self.model(images).float()
        loss = functional.cross_entropy(logits.double(), labels, reduction="sum")
        return Outputs(counts={"confusion": confusion_of(logits, labels)}, sums={"loss": loss})

    def metrics(self, outputs: Outputs) -> dict[str, float]:
        """Return the mean cross-entropy, in nats, and the accuracy."""
        confusion = outputs.counts["confusion"]
        loss = outputs.sums["loss"] / confusion.sum().item()
        return {"loss": loss, "accuracy": accuracy_of(confusion)}

    def details(self, outputs: Outputs) -> JsonObject:
        """Return the accuracy on each class, and the confusion matrix."""
        confusion = outputs.counts["confusion"]
        return {
            "samples": int(confusion.sum()),
            "class_accuracy": {**class_accuracies(confusion, self.classes)},
            "confusion": confusion.tolist(),
        }

    def figures(self, outputs: Outputs, folder: Path) -> None:
        """Draw the confusion matrix."""
        confusion = outputs.counts["confusion"].tolist()
        draw_confusion(folder / "confusion_matrix.png", confusion, self.classes)
