"""A model for transformers' Trainer, on the digits."""

from typing import Any

import torch
from experiment.transformers_session import fit
from repro.core.hashing import sha256_bytes
from repro.runs import EvaluationSession, Session
from repro.training import split_indices
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import Dataset


class Digits(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(64, 64), nn.ReLU(), nn.Dropout(0.2), nn.Linear(64, 10)
        )

    def forward(self, pixels: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:
        logits = self.layers(pixels)
        if labels is None:
            return {"logits": logits}
        return {"loss": functional.cross_entropy(logits, labels), "logits": logits}


class Samples(Dataset):
    def __init__(self, x: Tensor, y: Tensor) -> None:
        self.x = x
        self.y = y

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"pixels": self.x[index], "labels": self.y[index]}


def load(session: Session) -> dict[str, Samples]:
    images, labels = load_digits(return_X_y=True)
    digest = sha256_bytes(images.tobytes() + labels.tobytes())
    session.data({"dataset": "digits of scikit-learn", "samples": len(labels), "sha256": digest})
    names = ("test", "validation", "train")
    split = split_indices(len(labels), (0.2, 0.1, 1.0), session.seeds.data_split)
    x = torch.tensor(images, dtype=torch.float32) / 16
    y = torch.tensor(labels)
    return {name: Samples(x[part], y[part]) for name, part in zip(names, split, strict=True)}


def score(session: Session, model: Digits, samples: Samples) -> dict[str, float]:
    def compute(batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        return model.layers(batch["pixels"]), batch["labels"]

    logits, labels = session.predict(samples, 256, compute)
    return {"accuracy": (logits.argmax(1) == labels).double().mean().item()}


def train(session: Session) -> None:
    settings = session.config.training
    data = load(session)
    with session.seeded("init"):
        model = Digits()
    fit(
        session,
        model,
        torch.optim.AdamW(model.parameters(), lr=0.003, fused=True),
        data["train"],
        settings.batch_size,
        settings.epochs,
        validate=lambda: score(session, model, data["validation"]),
        best=("accuracy", "max"),
        folder="runs/of-the-trainer",
    )


def evaluate(session: EvaluationSession) -> dict[str, Any]:
    data = load(session)
    model = Digits()
    session.register(model=model)
    return score(session, model, data["test"])
