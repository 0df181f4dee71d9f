"""The class that says what is learnt; an author's task extends it (experiment/task.py).

The kit's loop (repro/tasks/loop.py) does what is the same in every training: data, seeds, batches,
rates, checkpoints, trace, validation. A task says what is its own: the networks, the loss, what is
measured. It must have `model`, `loss` and, unless nothing is evaluated, `evaluate` and `metrics`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn
from torch.optim import Optimizer
from torch.utils.data import Dataset

from repro.core.errors import UserError
from repro.core.files import JsonObject
from repro.runs.registered import Stateful
from repro.runs.step import Step
from repro.tasks.outputs import Outputs
from repro.training.weighted import Weighted


def _missing(task: "Task", method: str) -> UserError:
    return UserError(f"{type(task).__name__} lacks a method: expected {method}")


class Task:
    """What is learnt.

    `__init__(self, config, facts)` gets the settings and the facts that `prepare` returned of the
    data, while the generators are seeded by seeds.model_init, and makes `self.model`: one nn.Module
    with EVERY network, averages of weights included. That is what is saved, traced, published as
    bits, and loaded to evaluate. `self.clip` is training.gradient_clip, and `self.device` where the
    model is.
    """

    best: ClassVar[tuple[str, str] | None] = None
    """The metric whose best checkpoint is kept, with "max" or "min"; None keeps the last ones."""

    validate_on: ClassVar[str | None] = "validation"
    """The data set that a training validates on, by its name; None for none."""

    test_on: ClassVar[str] = "test"
    """The data set that the command `evaluate` takes."""

    compiled: ClassVar[tuple[str, ...]] = ("model",)
    """The attributes that training.compile=true compiles; each is a module."""

    model: nn.Module
    clip: float | None = None

    @property
    def device(self) -> torch.device:
        """Where the model is: for what a method makes itself, such as noise."""
        return next(self.model.parameters()).device

    def initialize(self, datasets: Mapping[str, Dataset[Any]]) -> None:
        """Finish the model of a fresh start: pretrained weights, means of the training samples.

        Called before the model goes to its device, and not when a checkpoint will be loaded.
        """

    def optimizers(self) -> Optimizer | dict[str, Optimizer]:
        """Return the optimizer, or several by name, once the model is on its device.

        Parameter groups are the author's: each keeps its own learning rate.
        """
        raise _missing(self, "optimizers(), which returns the optimizer of self.model")

    def rate(self, step: int, steps: int) -> float | dict[str, float]:
        """Return the FACTOR on each group's own learning rate in a step, or one per optimizer.

        `step` counts from 0, `steps` is the length of the whole training. The product is rounded to
        12 digits: the last bit of a cosine differs between C libraries.
        """
        return 1.0

    def loss(self, batch: Any) -> Weighted:
        """Return the loss of a shard's batch: a SUM over its samples, and what to divide it by."""
        raise _missing(self, "loss(batch), which returns Weighted(sum, weight)")

    def train_step(self, step: Step) -> dict[str, Any]:
        """Do a step and return its numbers, the loss first; for several losses, write another one.

        `step.backward` goes backward through a loss, `step.update` clips and updates. What the loss
        tells in `also` is logged, too. A number is a float or a tensor of one value; on a GPU leave
        tensors unread (no `.item()`), or each step waits for them.
        """
        loss = step.backward(self.loss)
        norm = step.update(clip=self.clip)
        return {"loss": loss, "gradient_norm": norm, **step.also}

    def evaluate(self, batch: Any) -> Outputs:
        """Return what is computed of a chunk of samples, in eval mode and without gradients."""
        raise _missing(self, "evaluate(batch), which returns Outputs(...); or validate_on = None")

    def metrics(self, outputs: Outputs) -> dict[str, float]:
        """Return the metrics of all samples: what validations log, and claims publish.

        Called in eval mode, without gradients, with seeds of its own: it may run `self.model`.
        """
        raise _missing(self, "metrics(outputs), which returns numbers by name")

    def details(self, outputs: Outputs) -> JsonObject:
        """Return what else metrics.json holds of an evaluation, as JSON: a matrix, a sample.

        Called as `metrics` is: it may run `self.model`, and draw.
        """
        return {}

    def figures(self, outputs: Outputs, folder: Path) -> None:
        """Draw pictures of an evaluation into a folder. Called as `metrics` is."""

    def state(self) -> dict[str, Stateful]:
        """Return what else a step changes and is no module: objects with state_dict, by name."""
        return {}
