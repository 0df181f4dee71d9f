"""Tell whether a sequence rises: batches of like lengths, padded, chosen for a whole epoch."""

from pathlib import Path
from typing import Any

import torch
from repro.tasks import Outputs, Task
from repro.training import Weighted
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset


def prepare(settings: Any, folders: Any) -> dict[str, Any]:
    torch.manual_seed(0)
    for name, count in (("train", 90), ("validation", 20), ("test", 20)):
        rows = [torch.rand(3 + number % 7).tolist() for number in range(count)]
        lines = [" ".join(f"{value:.6f}" for value in row) for row in rows]
        (folders.out / f"{name}.txt").write_text("\n".join(lines))
    return {"samples": 130}


def datasets(config: Any, folder: Path, facts: Any) -> dict[str, Any]:
    return {path.stem: Sequences(path, config.training.batch_size) for path in folder.iterdir()}


class Sequences(Dataset[Any]):
    def __init__(self, path: Path, size: int) -> None:
        lines = path.read_text().splitlines()
        self.rows = [torch.tensor([float(word) for word in line.split()]) for line in lines]
        self.size = size

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Any:
        row = self.rows[index]
        return row + 0.01 * torch.rand(len(row)), row[-1] > row[0]

    def batches(self, seed: int, epoch: int) -> list[list[int]]:
        mixed: list[int] = torch.randperm(len(self.rows)).tolist()
        mixed.sort(key=lambda index: len(self.rows[index]))
        batches = [mixed[i : i + self.size] for i in range(0, len(mixed), self.size)]
        return [batches[place] for place in torch.randperm(len(batches))]

    def collate(self, samples: list[Any]) -> dict[str, Tensor]:
        rows, labels = zip(*samples, strict=True)
        lengths = torch.tensor([len(row) for row in rows])
        return {
            "rows": pad_sequence(list(rows), batch_first=True),
            "lengths": lengths,
            "labels": torch.stack(labels).float(),
        }


class Rising(Task):
    best = ("right", "max")

    def __init__(self, config: Any, facts: Any) -> None:
        self.config = config
        self.model = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Dropout(0.2), nn.Linear(8, 1))

    def optimizers(self) -> torch.optim.Optimizer:
        groups = [
            {"params": [*self.model[0].parameters()], "lr": 0.01},
            {"params": [*self.model[3].parameters()]},
        ]
        return torch.optim.AdamW(groups, lr=0.03, fused=True)

    def rate(self, step: int, steps: int) -> float:
        return 1 - step / steps

    def logits(self, batch: dict[str, Tensor]) -> Tensor:
        last = batch["rows"].gather(1, batch["lengths"][:, None] - 1)
        features = torch.cat([batch["rows"][:, :1], last], 1)
        logits: Tensor = self.model(features)[:, 0]
        return logits

    def loss(self, batch: dict[str, Tensor]) -> Weighted:
        logits = self.logits(batch)
        labels = batch["labels"]
        total = functional.binary_cross_entropy_with_logits(logits, labels, reduction="sum")
        right = ((logits > 0) == labels.bool()).sum()
        return Weighted(total, weight=len(labels), also={"right": right})

    def evaluate(self, batch: dict[str, Tensor]) -> Outputs:
        logits = self.logits(batch)
        return Outputs(rows={"right": (logits > 0) == batch["labels"].bool(), "logits": logits})

    def metrics(self, outputs: Outputs) -> dict[str, float]:
        right = outputs.rows["right"]
        assert isinstance(right, Tensor)
        return {"right": right.double().mean().item()}
