"""Learn the next character of a text: windows that are drawn for each step, without epochs."""

from pathlib import Path
from typing import Any

import torch
from repro.tasks import Outputs, Task
from repro.training import Weighted
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import Dataset

LENGTH = 12


def prepare(settings: Any, folders: Any) -> dict[str, Any]:
    text = "the quick brown fox jumps over the lazy dog, and so on; " * 20
    (folders.out / "text.txt").write_text(text)
    return {"samples": len(text), "source": "a pangram", "characters": "".join(sorted({*text}))}


def datasets(config: Any, folder: Path, facts: Any) -> dict[str, Any]:
    text = (folder / "text.txt").read_text()
    codes = torch.tensor([facts["characters"].index(character) for character in text])
    parts = codes.split([800, 160, len(codes) - 960])
    names = ("train", "validation", "test")
    return {name: Windows(part) for name, part in zip(names, parts, strict=True)}


class Windows(Dataset[Any]):
    def __init__(self, codes: Tensor) -> None:
        self.codes = codes

    def __len__(self) -> int:
        return len(self.codes) - LENGTH

    def __getitem__(self, index: int) -> Any:
        window = self.codes[index : index + LENGTH + 1]
        return window[:-1], window[1:]

    def batch(self, seed: int, step: int) -> Tensor:
        return torch.randint(len(self), (10,))


class Language(Task):
    best = ("loss", "min")

    def __init__(self, config: Any, facts: Any) -> None:
        self.config = config
        characters = len(facts["characters"])
        layers = nn.Embedding(characters, 16), nn.Dropout(0.1), nn.Linear(16, characters)
        self.model = nn.Sequential(*layers)

    def optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.model.parameters(), lr=0.01, fused=True)

    def loss(self, batch: Any) -> Weighted:
        codes, following = batch
        logits = self.model(codes).flatten(0, 1)
        right = (logits.argmax(1) == following.flatten()).sum()
        total = functional.cross_entropy(logits, following.flatten(), reduction="sum")
        return Weighted(total, weight=following.numel(), also={"right": right})

    def evaluate(self, batch: Any) -> Outputs:
        weighted = self.loss(batch)
        count = torch.tensor(weighted.weight)
        return Outputs(counts={"characters": count}, sums={"loss": weighted.sum})

    def metrics(self, outputs: Outputs) -> dict[str, float]:
        return {"loss": float(outputs.sums["loss"]) / int(outputs.counts["characters"])}
