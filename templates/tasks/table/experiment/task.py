"""The task: to predict a number from a row of a table. Its model, loss, and what is measured of it.

The kit's loop (repro/tasks/loop.py) calls these methods; repro/tasks/task.py says what each gets
and returns. A step is a function of (config, weights, optimizer state, step).
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from experiment.config import Config
from experiment.data import Table
from experiment.model import Standardized, build_model
from repro.core.files import JsonObject
from repro.tasks import Outputs, Task, warmup_and_cosine
from repro.training import Weighted

OPTIMIZERS: dict[str, type[torch.optim.Optimizer]] = {
    "adamw": torch.optim.AdamW,
    "sgd": torch.optim.SGD,
}


class Regression(Task):
    """A regression, measured by its mean absolute error in the target's own unit."""

    best = ("mae", "min")

    model: Standardized

    def __init__(self, config: Config, facts: Any) -> None:
        self.config = config
        self.model = build_model(config, len(facts["columns"]))

    def initialize(self, datasets: Mapping[str, Any]) -> None:
        """Take the means, the spreads and the baselines from the training rows alone."""
        train: Table = datasets["train"]
        self.model.fit_baselines(train.inputs, train.targets)

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
        """Return the squared errors of a shard's rows, summed, and their number.

        Of standardized targets, so that the same learning rate suits a target in another unit.
        """
        inputs, targets = batch
        errors = self.model(inputs).float() - self.model.standardized_targets(targets)
        return Weighted(errors.square().sum(), weight=len(targets))

    def evaluate(self, batch: list[Tensor]) -> Outputs:
        """Predict the targets of rows, in their own unit, by the network and by the baseline."""
        inputs, targets = batch
        return Outputs(
            rows={
                "target": targets,
                "predicted": self.model.predict(inputs).float(),
                "ridge": self.model.predict_ridge(inputs),
            }
        )

    def metrics(self, outputs: Outputs) -> dict[str, float]:
        """Return the mean loss, and the mean absolute errors in the target's own unit.

        `mean_mae` is that of predicting the training rows' mean, `ridge_mae` that of ridge
        regression.
        """
        rows = {name: torch.as_tensor(row).double() for name, row in outputs.rows.items()}
        errors = rows["predicted"] - rows["target"]
        mean = self.model.target_mean.double().cpu()
        spread = self.model.target_spread.double().cpu()
        return {
            "loss": (errors / spread).square().mean().item(),
            "mae": errors.abs().mean().item(),
            "ridge_mae": (rows["ridge"] - rows["target"]).abs().mean().item(),
            "mean_mae": (mean - rows["target"]).abs().mean().item(),
        }

    def details(self, outputs: Outputs) -> JsonObject:
        """Return the number of rows."""
        return {"samples": len(outputs.rows["target"])}
