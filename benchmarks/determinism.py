"""Measure what determinism costs: a training step's seconds beside those of the fastest settings.

    python benchmarks/determinism.py PROJECT [DEVICE]

Each ratio is the median over rounds in which both are measured in turn; above 1 is slower.
1. determinism=strict beside determinism=off (cuDNN's benchmark, sums in 16 bits allowed). TF32 is
   off in both: it is a precision of its own.
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
from repro.training.determinism import set_determinism  # noqa: E402
from repro.training.loading import IndexedBatch  # noqa: E402
from repro.training.parallel import shard_slices  # noqa: E402
from sessions import Bench  # noqa: E402
from torch import Tensor  # noqa: E402

CASES = {
    "digits CNN, fp32": ["model=small_cnn"],
    "ResNet-18, fp32": ["model=resnet18", "training.batch_size=128"],
    "ResNet-18, bf16": ["model=resnet18", "training.batch_size=128", "training.precision=bf16"],
}


def seconds(bench: Bench, mode: str, batch: list[Tensor], steps: int) -> float:
    """Measure a step, after three to warm up; a GPU's numbers are read before and at the end."""
    set_determinism(mode)
    size = len(batch[0])
    slices = shard_slices(size, bench.session.processes.shards)
    device = bench.session.device
    shards = [[part[cut].to(device) for part in batch] for cut in slices]
    made = IndexedBatch(torch.arange(size), shards)
    for index in range(3):
        bench.train(bench.step(index, made, size))
    bench.session.read_numbers()
    started = time.perf_counter()
    for index in range(steps):
        bench.train(bench.step(index, made, size))
    bench.session.read_numbers()
    return (time.perf_counter() - started) / steps


def bench_with(settings: list[str], shards: int) -> Bench:
    common = [*settings, f"device={device}", "profile=native"]
    return Bench(LOADER.load([*common, f"training.shards={shards}"]))


def main() -> None:
    for name, settings in CASES.items():
        one = bench_with(settings, shards=1)
        four = bench_with(settings, shards=4)
        size = one.session.config.training.batch_size
        side = 8 if "CNN" in name else 32
        generator = torch.Generator().manual_seed(0)
        image, _ = one.data[0]
        images = torch.rand(size, len(image), side, side, generator=generator)
        batch = [images, torch.randint(10, (size,), generator=generator)]
        steps = 100 if one.session.device.type == "cuda" else 3
        strict: list[float] = []
        off: list[float] = []
        sharded: list[float] = []
        measured = [(one, "strict", strict), (one, "off", off), (four, "strict", sharded)]
        for _ in range(7):
            measured.reverse()  # what runs first differs from round to round
            for bench, mode, times in measured:
                times.append(seconds(bench, mode, batch, steps))
        cost = statistics.median(a / b for a, b in zip(strict, off, strict=True))
        shards = statistics.median(a / b for a, b in zip(sharded, strict, strict=True))
        milliseconds = 1000 * statistics.median(strict)
        print(f"{name}: strict / off {cost:.2f}, shards=4 / 1 {shards:.2f}, {milliseconds:.2f} ms")


if __name__ == "__main__":
    main()
