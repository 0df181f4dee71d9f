"""Measure what determinism costs: a training step's seconds beside those of the fastest settings.

    python benchmarks/determinism.py PROJECT [DEVICE]

Each ratio is the median over rounds in which both are measured in turn; above 1 is slower.
1. determinism=strict beside determinism=off (cuDNN's benchmark, TF32, bf16 sums allowed).
2. training.shards=4 beside training.shards=1, both strict.
For the digits CNN at its own batch size, and for ResNet-18 with batches of 128 images of 32 x 32
pixels, in fp32 and in bf16.
"""

import statistics
import sys
import time
from pathlib import Path

project = Path(sys.argv[1]).resolve()
device = sys.argv[2] if len(sys.argv) > 2 else "auto"
sys.path.insert(0, str(project))

from experiment.config import LOADER  # noqa: E402
from repro import environment  # noqa: E402

environment.enter("native", 1)

import torch  # noqa: E402
from experiment.trainer import Trainer  # noqa: E402
from repro.training.determinism import set_determinism  # noqa: E402
from torch import Tensor  # noqa: E402

CASES = {
    "digits CNN, fp32": ["model=small_cnn"],
    "ResNet-18, fp32": ["model=resnet18", "training.batch_size=128"],
    "ResNet-18, bf16": ["model=resnet18", "training.batch_size=128", "training.precision=bf16"],
}


def seconds(trainer: Trainer, mode: str, batch: list[Tensor], steps: int) -> float:
    """Measure a step, after three to warm up; each step's loss is read, which waits for the GPU."""
    set_determinism(mode)
    for step in range(3):
        trainer.train_step(step, batch)
    started = time.perf_counter()
    for step in range(steps):
        trainer.train_step(step, batch)
    return (time.perf_counter() - started) / steps


def trainer_with(settings: list[str], shards: int) -> Trainer:
    common = [*settings, f"device={device}", "profile=native"]
    return Trainer(LOADER.load([*common, f"training.shards={shards}"]))


def main() -> None:
    for name, settings in CASES.items():
        one = trainer_with(settings, shards=1)
        four = trainer_with(settings, shards=4)
        size = one.config.training.batch_size
        side = 8 if "CNN" in name else 32
        generator = torch.Generator().manual_seed(0)
        images = torch.rand(size, one.data.shape[0], side, side, generator=generator)
        batch = [images, torch.randint(10, (size,), generator=generator)]
        steps = 100 if one.device.type == "cuda" else 3
        strict: list[float] = []
        off: list[float] = []
        sharded: list[float] = []
        measured = [(one, "strict", strict), (one, "off", off), (four, "strict", sharded)]
        for _ in range(7):
            measured.reverse()  # what runs first differs from round to round
            for trainer, mode, times in measured:
                times.append(seconds(trainer, mode, batch, steps))
        cost = statistics.median(a / b for a, b in zip(strict, off, strict=True))
        shards = statistics.median(a / b for a, b in zip(sharded, strict, strict=True))
        milliseconds = 1000 * statistics.median(strict)
        print(f"{name}: strict / off {cost:.2f}, shards=4 / 1 {shards:.2f}, {milliseconds:.2f} ms")


if __name__ == "__main__":
    main()
