"""A LightningModule on the digits."""

from typing import Any

import lightning
import torch
from experiment.lightning_session import fit
from repro.core.hashing import sha256_bytes
from repro.runs import EvaluationSession, Session
from repro.training import split_indices
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import TensorDataset


class Digits(lightning.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(64, 64), nn.ReLU(), nn.Dropout(0.2), nn.Linear(64, 10)
        )

    def training_step(self, batch: list[Tensor], index: int) -> Tensor:
        return functional.cross_entropy(self.layers(batch[0]), batch[1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=0.003, fused=True)


def load(session: Session) -> dict[str, TensorDataset]:
    images, labels = load_digits(return_X_y=True)
    digest = sha256_bytes(images.tobytes() + labels.tobytes())
    session.data({"dataset": "digits of scikit-learn", "samples": len(labels), "sha256": digest})
    names = ("test", "validation", "train")
    split = split_indices(len(labels), (0.2, 0.1, 1.0), session.seeds.data_split)
    x = torch.tensor(images, dtype=torch.float32) / 16
    y = torch.tensor(labels)
    return {name: TensorDataset(x[part], y[part]) for name, part in zip(names, split, strict=True)}


def score(session: Session, module: Digits, samples: TensorDataset) -> dict[str, float]:
    def compute(batch: list[Tensor]) -> tuple[Tensor, Tensor]:
        return module.layers(batch[0]), batch[1]

    logits, labels = session.predict(samples, 256, compute)
    return {"accuracy": (logits.argmax(1) == labels).double().mean().item()}


def train(session: Session) -> None:
    settings = session.config.training
    data = load(session)
    with session.seeded("init"):
        module = Digits()
    fit(
        session,
        module,
        data["train"],
        settings.batch_size,
        settings.epochs,
        validate=lambda: score(session, module, data["validation"]),
        best=("accuracy", "max"),
    )


def evaluate(session: EvaluationSession) -> dict[str, Any]:
    data = load(session)
    module = Digits()
    session.register(model=module)
    return score(session, module, data["test"])
