"""Train in plain PyTorch: `train` is the loop, `Trainer.train_step` what happens in a step of it.

The session (repro/runs/session.py) seeds each step, makes its batch, keeps the run and resumes it.
`train_step` gives the same bits whatever ran before it: a step is a function of (config, weights,
optimizer state, step).
"""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from experiment import data
from experiment.config import Config
from experiment.metrics import classification_metrics
from experiment.model import build_model, load_pretrained
from experiment.optimizer import build_optimizer, learning_rate
from experiment.samples import ImageFiles, Images
from repro.runs import EvaluationSession, Session, Step
from repro.training import Weighted, compiled

Metrics = dict[str, float]
BEST = ("accuracy", "max")  # the checkpoint with the best one is kept; "min": a low one is good


class Trainer:
    """Model, optimizer and data of one training."""

    def __init__(self, session: Session) -> None:
        config: Config = session.config
        self.session = session
        self.config = config
        manifest = session.first(lambda: data.read_manifest(config))
        session.data(data.as_json(manifest))
        self.data = data.load(config, manifest)
        with session.seeded("init"):
            self.model = build_model(config, self.data.shape, len(self.data.classes))
        self.model.to(session.device)
        if session.is_fresh:
            load_pretrained(config, self.model)
        self.forward = compiled(self.model) if config.training.compile else self.model
        self.optimizer = build_optimizer(config, self.model.parameters())

    def train_step(self, step: Step) -> Metrics:
        """Train on the batch of a step; return loss, learning rate and gradient norm."""
        rate = learning_rate(self.config, self.session.steps_per_epoch, step.index)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        loss = step.backward(self.loss)
        norm = step.update(clip=self.config.training.gradient_clip)
        return {"loss": loss.item(), "learning_rate": rate, "gradient_norm": norm}

    def loss(self, batch: list[Tensor]) -> Weighted:
        """Return the loss of a shard's images, summed, and their number."""
        images, labels = batch
        with self.autocast():
            logits = self.forward(images)
        total = functional.cross_entropy(logits.float(), labels, reduction="sum")
        return Weighted(total, weight=len(labels))

    def autocast(self) -> AbstractContextManager[None]:
        """Compute in bfloat16 inside where training.precision asks for it."""
        if self.config.training.precision == "bf16":
            return torch.autocast(self.session.device.type, torch.bfloat16)
        return nullcontext()

    def predict(self, samples: Images | ImageFiles) -> tuple[Tensor, Tensor]:
        """Return logits float32 (samples, classes) and labels int64 (samples), on the CPU."""

        def compute(batch: list[Tensor]) -> tuple[Tensor, Tensor]:
            images, labels = batch
            with self.autocast():
                return self.forward(images).float(), labels

        chunk = self.config.evaluation.batch_size
        logits, labels = self.session.predict(samples, chunk, compute)
        return logits, labels

    def validate(self) -> Metrics:
        """Return loss and accuracy on the validation samples."""
        logits, labels = self.predict(self.data.validation)
        metrics = classification_metrics(logits, labels, self.data.classes)
        return {"loss": metrics.loss, "accuracy": metrics.accuracy}


def train(session: Session) -> None:
    """Train the model of the session's config to its last step."""
    trainer = Trainer(session)
    session.register(model=trainer.model, optimizers=trainer.optimizer, best=BEST)
    settings = trainer.config.training
    for step in session.steps(
        trainer.data.train,
        settings.batch_size,
        epochs=settings.epochs,
        drop_last=settings.drop_last,
    ):
        step.done(**trainer.train_step(step))
        if step.validate_now:
            session.validated(**trainer.validate())


def evaluate(session: EvaluationSession) -> dict[str, Any]:
    """Return the metrics of the test samples, and draw them."""
    from repro.runs.figures import draw  # only here: a training needs no matplotlib

    trainer = Trainer(session)
    session.register(model=trainer.model)
    logits, labels = trainer.predict(trainer.data.test)
    classes = trainer.data.classes
    results = classification_metrics(logits, labels, classes)
    for folder in session.figures:
        draw(folder, results.confusion, classes, session.curves)
    return asdict(results)
