"""Find boxes: images of several sizes with any number of boxes, collated into lists."""

from pathlib import Path
from typing import Any

import torch
from repro.tasks import Outputs, Task
from repro.training import Weighted
from torch import Tensor, nn
from torch.utils.data import Dataset


def prepare(settings: Any, folders: Any) -> dict[str, Any]:
    (folders.out / "seed.txt").write_text("7")  # the images are drawn from it
    return {"samples": 60, "colours": ("red", "green", "blue")}


def datasets(config: Any, folder: Path, facts: Any) -> dict[str, Any]:
    seed = int((folder / "seed.txt").read_text())
    starts = {"train": 0, "validation": 40, "test": 50}
    return {name: Scenes(seed + start, 40 if not start else 10) for name, start in starts.items()}


class Scenes(Dataset[Any]):
    def __init__(self, seed: int, samples: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        sides = torch.randint(8, 14, (samples, 2), generator=generator).tolist()
        self.images = [torch.rand(3, *side, generator=generator) for side in sides]
        counts = torch.randint(0, 4, (samples,), generator=generator).tolist()
        self.boxes = [torch.rand(count, 4, generator=generator) for count in counts]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Any:
        return self.images[index], self.boxes[index]

    def collate(self, samples: list[Any]) -> list[list[Tensor]]:
        images, boxes = zip(*samples, strict=True)
        return [[*images], [*boxes]]


class Finder(Task):
    best = ("distance", "min")

    def __init__(self, config: Any, facts: Any) -> None:
        assert facts["colours"] == ["red", "green", "blue"]
        self.model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(2))
        self.model.append(nn.AdaptiveAvgPool1d(1)).append(nn.Flatten()).append(nn.Linear(8, 4))

    def optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.model.parameters(), lr=0.05)

    def found(self, images: list[Tensor]) -> Tensor:
        return torch.cat([self.model(image[None]) for image in images])

    def loss(self, batch: Any) -> Weighted:
        images, boxes = batch
        total = images[0].new_zeros(())
        for found, own in zip(self.found(images), boxes, strict=True):
            total = total + (own - found).square().sum()
        return Weighted(total + 0 * found.sum(), weight=max(1, sum(map(len, boxes))))

    def evaluate(self, batch: Any) -> Outputs:
        images, boxes = batch
        near = [own - found for own, found in zip(boxes, self.found(images), strict=True)]
        return Outputs(rows={"distances": near, "found": self.found(images)})

    def metrics(self, outputs: Outputs) -> dict[str, float]:
        distances = torch.cat([*outputs.rows["distances"]])
        return {"distance": distances.double().square().mean().item()}
