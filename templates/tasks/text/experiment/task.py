"""The task: to predict the next character of a text. Its model, loss, and what is measured of it.

The kit's loop (repro/tasks/loop.py) calls these methods; repro/tasks/task.py says what each gets
and returns. A step is a function of (config, weights, optimizer state, step).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from experiment.config import Config
from experiment.data import RandomWindows
from experiment.model import Transformer, build_model
from repro.core.files import JsonObject
from repro.tasks import Outputs, Task, warmup_and_cosine
from repro.training import Weighted

OPTIMIZERS: dict[str, type[torch.optim.Optimizer]] = {
    "adamw": torch.optim.AdamW,
    "sgd": torch.optim.SGD,
}


class LanguageModel(Task):
    """A model of text, measured by its loss per character, in nats."""

    best = ("loss", "min")

    model: Transformer

    def __init__(self, config: Config, facts: Any) -> None:
        self.config = config
        self.vocabulary: list[str] = facts["vocabulary"]
        self.model = build_model(config, len(self.vocabulary))

    def initialize(self, datasets: Mapping[str, Any]) -> None:
        """Count the pairs of characters of the training text, for the baseline."""
        train: RandomWindows = datasets["train"]
        self.model.count_bigrams(train.text)

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
        return warmup_and_cosine(step, steps, self.config.training.warmup_steps)

    def loss(self, batch: Tensor) -> Weighted:
        """Return the loss of a shard's characters, summed, and their number.

        `batch`: windows (batch, context + 1); every character but the first is predicted.
        """
        losses = self.losses(batch)
        return Weighted(losses.sum(), weight=losses.numel())

    def losses(self, batch: Tensor) -> Tensor:
        """Return the loss of each character (batch * context), in nats, float32."""
        logits = self.model(batch[:, :-1]).float()
        targets = batch[:, 1:].flatten()
        return functional.cross_entropy(logits.flatten(0, 1), targets, reduction="none")

    def evaluate(self, batch: Tensor) -> Outputs:
        """Add up the losses of windows (batch, context + 1), by the model and by the baseline."""
        losses = self.losses(batch)
        bigram = -self.model.bigram[batch[:, :-1], batch[:, 1:]]
        return Outputs(
            counts={"characters": torch.tensor(losses.numel())},
            sums={"loss": losses.double().sum(), "bigram": bigram.double().sum()},
        )

    def metrics(self, outputs: Outputs) -> dict[str, float]:
        """Return the loss per character, in nats, of the model and of the bigram table."""
        characters = int(outputs.counts["characters"])
        return {
            "loss": float(outputs.sums["loss"]) / characters,
            "bigram_loss": float(outputs.sums["bigram"]) / characters,
        }

    def details(self, outputs: Outputs) -> JsonObject:
        """Return the number of characters, and a text that the model makes up."""
        return {
            "characters": int(outputs.counts["characters"]),
            "sampled_text": self.sample(self.config.evaluation.sampled),
        }

    def figures(self, outputs: Outputs, folder: Path) -> None:
        """Write the text that the model makes up."""
        text = self.sample(self.config.evaluation.sampled)
        (folder / "sampled_text.txt").write_text(text, encoding="utf-8")

    def sample(self, length: int) -> str:
        """Draw a text of so many characters, as if after a new line: each time the same one.

        The numbers are drawn on the CPU, so another device draws the same ones.
        """
        device = self.model.positions.device
        generator = torch.Generator().manual_seed(self.config.seeds.evaluation)
        text = torch.tensor([self.vocabulary.index("\n")])
        for _ in range(length):
            logits = self.model(text[None, -self.model.context :].to(device))[0, -1]
            drawn = torch.multinomial(logits.float().cpu().softmax(0), 1, generator=generator)
            text = torch.cat([text, drawn])
        return "".join(self.vocabulary[character] for character in text[1:].tolist())
