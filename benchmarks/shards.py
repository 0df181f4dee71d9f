"""What shards and processes cost: ratios of throughput, each pair measured in turn.

    python benchmarks/shards.py PROJECT

1. One process, training.shards=1, beside the same step without the kit's backward_in_shards.
2. ResNet-18, batch 64, images of 32 x 32 pixels: training.shards=4 beside 1.
3. Two processes of one thread beside one (training.shards=2), whole trainings with ResNet-18 and
   such images, and with the digits CNN: needs two idle cores. ResNet-18's epoch is longer than
   what is measured: no validation and no checkpoint falls into it.
"""

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

project = Path(sys.argv[1]).resolve()
sys.path.insert(0, str(project))

from experiment.config import LOADER  # noqa: E402
from repro import environment  # noqa: E402

environment.enter("portable", 1)

import numpy as np  # noqa: E402
import torch  # noqa: E402
from experiment import trainer as room  # noqa: E402
from experiment.trainer import Trainer  # noqa: E402
from PIL import Image  # noqa: E402
from torch import Tensor, nn  # noqa: E402


def plain_backward(
    model: nn.Module,
    batch: list[Tensor],
    size: int,
    processes: object,
    forward: Callable[..., Tensor],
) -> Tensor:
    """What backward_in_shards replaces."""
    loss = forward(0, *batch) / size
    loss.backward()
    return loss.detach()


def seconds(
    trainer: Trainer, backward: Callable[..., Tensor], batches: list[list[Tensor]]
) -> float:
    room.backward_in_shards = backward
    started = time.perf_counter()
    for step, batch in enumerate(batches):
        trainer.train_step(step, batch)
    return time.perf_counter() - started


def ratio(
    name: str,
    first: tuple[Trainer, Callable[..., Tensor]],
    second: tuple[Trainer, Callable[..., Tensor]],
    steps: int,
    rounds: int,
) -> None:
    trainer = first[0]
    batches = [batch for _, batch in trainer.steps(range(steps))]
    found = []
    for number in range(rounds + 1):
        order = (first, second) if number % 2 else (second, first)
        times = {id(pair): seconds(*pair, batches) for pair in order}
        found.append(times[id(first)] / times[id(second)])
    found = found[1:]
    print(
        f"{name}: {statistics.median(found):.3f}  ({min(found):.3f} to {max(found):.3f})",
        flush=True,
    )


def trained_steps_per_second(processes: int, settings: list[str]) -> float:
    """Of the second half of a training, from the times of its lines."""
    run = f"runs/bench-{os.getpid()}-{time.monotonic_ns()}"
    words = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(processes)]
    words = words if processes > 1 else [sys.executable]
    words += ["-m", "experiment.train", f"run_dir={run}", "output.log_every=1", *settings]
    process = subprocess.Popen(
        words, cwd=project, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    metrics, seen = project / run / "metrics.jsonl", []
    while process.poll() is None:
        count = metrics.read_bytes().count(b"\n") if metrics.is_file() else 0
        if not seen or count > seen[-1][0]:
            seen.append((count, time.perf_counter()))
        time.sleep(0.02)  # often enough for steps of a second; more would take from the two cores
    half = [entry for entry in seen if entry[0] >= 5]
    return (half[-1][0] - half[0][0]) / (half[-1][1] - half[0][1])


def main() -> None:
    real = room.backward_in_shards
    cnn = Trainer(LOADER.load([]))
    ratio("digits CNN, shards=1 / without", (cnn, plain_backward), (cnn, real), 20, 41)
    images = project / "runs" / "bench-images"
    for number in range(0 if images.is_dir() else 1800):  # drawn: their content costs nothing
        pixels = np.random.default_rng(number).integers(0, 256, (32, 32, 3), np.uint8)
        (images / str(number % 2)).mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(images / str(number % 2) / f"{number}.png")
    settings = ["model=resnet18", "training.batch_size=64", "dataset=image_folder"]
    settings += ["dataset.size=32", "device=cpu", f"image_dir={images}"]
    one, four = (Trainer(LOADER.load([*settings, f"training.shards={s}"])) for s in (1, 4))
    ratio("ResNet-18, shards=4 / shards=1", (one, real), (four, real), 2, 5)
    for name, more, steps in (("ResNet-18", settings, 20), ("digits CNN", [], 170)):
        more = [
            *more,
            "training.shards=2",
            "training.epochs=9",
            f"training.max_steps={steps}",
            "threads=1",
        ]
        found = []
        for _ in range(3):
            two, one_only = (trained_steps_per_second(n, more) for n in (2, 1))
            found.append(two / one_only)
        print(
            f"{name}, two processes / one: {statistics.median(found):.2f}  {sorted(found)}",
            flush=True,
        )


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
