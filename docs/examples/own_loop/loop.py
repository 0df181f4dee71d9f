"""Train a network on the handwritten digits by a loop of my own."""

from typing import Any

import torch
from repro.core.hashing import sha256_bytes
from repro.runs import EvaluationSession, Session
from repro.training import Weighted, split_indices
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import TensorDataset


def load(session: Session) -> dict[str, TensorDataset]:
    """Read the data, tell the session what identifies them, and split them."""
    images, labels = load_digits(return_X_y=True)
    digest = sha256_bytes(images.tobytes() + labels.tobytes())
    session.data({"dataset": "digits of scikit-learn", "samples": len(labels), "sha256": digest})
    names = ("test", "validation", "train")
    split = split_indices(len(labels), (0.2, 0.1, 1.0), session.seeds.data_split)
    x = torch.tensor(images, dtype=torch.float32) / 16
    y = torch.tensor(labels)
    return {name: TensorDataset(x[part], y[part]) for name, part in zip(names, split, strict=True)}


def build(session: Session) -> nn.Module:
    with session.seeded("init"):
        layers = (nn.Linear(64, 64), nn.ReLU(), nn.Dropout(0.2), nn.Linear(64, 10))
        return nn.Sequential(*layers).to(session.device)


def score(session: Session, model: nn.Module, samples: TensorDataset) -> dict[str, float]:
    def compute(batch: list[Tensor]) -> tuple[Tensor, Tensor]:
        return model(batch[0]), batch[1]

    logits, labels = session.predict(samples, 256, compute)
    accuracy = (logits.argmax(1) == labels).double().mean()
    return {"loss": functional.cross_entropy(logits, labels).item(), "accuracy": accuracy.item()}


def train(session: Session) -> None:
    settings = session.config.training
    data = load(session)
    model = build(session)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.003, fused=True)
    session.register(model=model, optimizers=optimizer, best=("accuracy", "max"))

    def loss(batch: list[Tensor]) -> Weighted:
        logits = model(batch[0])
        total = functional.cross_entropy(logits, batch[1], reduction="sum")
        return Weighted(total, weight=len(logits))

    for step in session.steps(data["train"], settings.batch_size, epochs=settings.epochs):
        mean = step.backward(loss)
        norm = step.update(clip=1.0)
        step.done(loss=mean, gradient_norm=norm)
        if step.validate_now:
            session.validated(**score(session, model, data["validation"]))


def evaluate(session: EvaluationSession) -> dict[str, Any]:
    data = load(session)
    model = build(session)
    session.register(model=model)
    return score(session, model, data["test"])
