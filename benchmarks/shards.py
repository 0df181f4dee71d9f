"""Measure what shards and processes cost: ratios of throughput, each pair measured in turn.

    python benchmarks/shards.py PROJECT

1. One process, training.shards=1, beside the same step without the kit's backward_in_shards.
2. ResNet-18, batch 64, images of 32 x 32 pixels: training.shards=4 beside 1.
3. Two processes of one thread beside one (training.shards=2), whole trainings with ResNet-18 and
   such images, and with the digits CNN: needs two idle cores. ResNet-18's epoch is longer than
   what is measured: no validation and no checkpoint falls into it.
4. In a project with scale=many: DDP and FSDP2 beside shards, two processes each, as in 3.
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
from PIL import Image  # noqa: E402
from repro.core.layout import METRICS  # noqa: E402
from repro.core.project import fault_without_engines  # noqa: E402
from repro.runs import step as step_module  # noqa: E402
from repro.training.loading import IndexedBatch  # noqa: E402
from repro.training.weighted import Weighted  # noqa: E402
from sessions import Bench  # noqa: E402
from torch import Tensor, nn  # noqa: E402


def plain_backward(
    model: nn.Module,
    shards: list[list[Tensor]],
    size: int,
    processes: object,
    loss_of: Callable[[int, list[Tensor]], Weighted],
) -> Tensor:
    """Do what backward_in_shards replaces."""
    loss = loss_of(0, shards[0]).sum / size
    loss.backward()
    return loss.detach()


def seconds(bench: Bench, backward: Callable[..., Tensor], made: list[IndexedBatch]) -> float:
    step_module.backward_in_shards = backward
    started = time.perf_counter()
    for index, batch in enumerate(made):
        bench.train(bench.step(index, batch, len(batch.indices)))
    return time.perf_counter() - started


def ratio(
    name: str,
    first: tuple[Bench, Callable[..., Tensor]],
    second: tuple[Bench, Callable[..., Tensor]],
    steps: int,
    rounds: int,
) -> None:
    batches = {  # each bench's own: the same samples, cut into other shards
        id(pair): pair[0].batches(range(steps)) for pair in (first, second)
    }
    ratios = []
    for number in range(rounds + 1):
        order = (first, second) if number % 2 else (second, first)
        times = {id(pair): seconds(*pair, batches[id(pair)]) for pair in order}
        ratios.append(times[id(first)] / times[id(second)])
    ratios = ratios[1:]  # the first round warms up
    print(
        f"{name}: {statistics.median(ratios):.3f}  ({min(ratios):.3f} to {max(ratios):.3f})",
        flush=True,
    )


def trained_steps_per_second(processes: int, settings: list[str]) -> float:
    """Measure a training after its first steps, by the times when its lines are written."""
    run = f"runs/bench-{os.getpid()}-{time.monotonic_ns()}"
    command = [sys.executable]
    if processes > 1:
        command += ["-m", "torch.distributed.run", "--nproc-per-node", str(processes)]
    command += ["-m", "experiment.train", f"run_dir={run}", "output.log_every=1", *settings]
    process = subprocess.Popen(
        command, cwd=project, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    metrics = project / run / METRICS
    written = [(0, time.perf_counter())]  # lines, and when there were so many
    while process.poll() is None:
        lines = metrics.read_bytes().count(b"\n") if metrics.is_file() else 0
        if lines > written[-1][0]:
            written.append((lines, time.perf_counter()))
        time.sleep(0.02)  # often enough for steps of a second; more would take from the two cores
    warm = [(lines, moment) for lines, moment in written if lines >= 5]
    first_lines, started = warm[0]
    last_lines, ended = warm[-1]
    return (last_lines - first_lines) / (ended - started)


def main() -> None:
    real = step_module.backward_in_shards
    cnn = Bench(LOADER.load([]))
    ratio("digits CNN, shards=1 / without", (cnn, plain_backward), (cnn, real), 20, 41)
    images = project / "runs" / "bench-images"
    for number in range(0 if images.is_dir() else 1800):  # drawn: their content costs nothing
        pixels = np.random.default_rng(number).integers(0, 256, (32, 32, 3), np.uint8)
        (images / str(number % 2)).mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(images / str(number % 2) / f"{number}.png")
    resnet = ["model=resnet18", "training.batch_size=64", "dataset=image_folder"]
    resnet += ["dataset.size=32", "device=cpu", f"image_dir={images}"]
    one = Bench(LOADER.load([*resnet, "training.shards=1"]))
    four = Bench(LOADER.load([*resnet, "training.shards=4"]))
    ratio("ResNet-18, shards=4 / shards=1", (one, real), (four, real), 2, 5)
    for name, more, steps in (("ResNet-18", resnet, 20), ("digits CNN", [], 170)):
        common = ["training.shards=2", "training.epochs=9", "threads=1"]
        settings = [*more, *common, f"training.max_steps={steps}"]
        ratios = []
        for _ in range(3):
            two = trained_steps_per_second(2, settings)
            one_only = trained_steps_per_second(1, settings)
            ratios.append(two / one_only)
        print(
            f"{name}, two processes / one: {statistics.median(ratios):.2f}  {sorted(ratios)}",
            flush=True,
        )
    if not fault_without_engines():
        compare_engines([*resnet, "training.shards=2", "training.epochs=9", "threads=1"])


def compare_engines(settings: list[str]) -> None:
    """Measure DDP and FSDP2 beside shards: ResNet-18, two processes."""
    settings = [*settings, "training.max_steps=20"]
    for parallel in ("ddp", "fsdp"):
        chosen = [f"training.parallel={parallel}", "training.processes=2"]
        ratios = []
        for _ in range(7):
            engine = trained_steps_per_second(2, [*settings, *chosen])
            ratios.append(engine / trained_steps_per_second(2, settings))
        print(
            f"ResNet-18, {parallel} / shards: {statistics.median(ratios):.2f}  {sorted(ratios)}",
            flush=True,
        )


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
