"""Measure what the trace costs, beside the training steps themselves.

    python benchmarks/trace.py PROJECT [DEVICE]

In one process, a block of steps with the trace and one without it in turn (digits CNN: 40 steps;
ResNet-18, batch 64, images of 32 x 32 pixels: 2). Printed are the time that the trace takes as a
share of the steps' (median of the blocks), and what it does to the steps themselves, whose data it
may push out of the processor's caches: a traced step beside one that is not (ratio of medians).
"""

import statistics
import sys
import tempfile
import time
from pathlib import Path

project = Path(sys.argv[1]).resolve()
device = sys.argv[2] if len(sys.argv) > 2 else "cpu"
sys.path.insert(0, str(project))

from experiment.config import LOADER  # noqa: E402
from repro import environment  # noqa: E402

environment.enter("portable", 1)

import torch  # noqa: E402
from repro.runs.trace import Trace  # noqa: E402
from repro.training.loading import IndexedBatch  # noqa: E402
from sessions import Bench  # noqa: E402

CASES = {
    "digits CNN": (["model=small_cnn"], 8, 40, 61),
    "ResNet-18": (["model=resnet18"], 32, 2, 7),
}


def block(bench: Bench, trace: Trace | None, side: int, steps: int) -> tuple[list[float], float]:
    """Measure each step, and a step's trace; every batch has another place in memory."""
    images = torch.rand(64, 1, side, side, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(64) % 10
    batches = [IndexedBatch(torch.arange(64), [[images.clone(), labels]]) for _ in range(steps)]
    took: list[float] = []
    traced = 0.0
    bench.session.trace = trace
    for index, batch in enumerate(batches):
        step = bench.step(index, batch, size=64)
        started = time.perf_counter()
        numbers = bench.numbers(step)
        ended = time.perf_counter()
        took.append(ended - started)
        step.done(**numbers)
        if trace:
            if len(took) == steps:
                trace.flush()
            traced += time.perf_counter() - ended
    return took[1:] or took, traced / steps


def main() -> None:
    torch.set_num_threads(1)
    for name, (settings, side, steps, blocks) in CASES.items():
        # The same task for both: where a model lies in memory makes a percent or two.
        bench = Bench(LOADER.load([*settings, f"device={device}", "training.batch_size=64"]))
        plain: list[float] = []
        beside: list[float] = []
        shares: list[float] = []
        with (
            tempfile.TemporaryDirectory() as folder,
            bench.trace_into(Path(folder)) as trace,
        ):
            for number in range(blocks + 1):
                for tracing in (True, False)[:: 1 if number % 2 else -1]:
                    took, traced = block(bench, trace if tracing else None, side, steps)
                    if number and tracing:
                        beside += took
                        shares.append(traced / statistics.median(took))
                    elif number:
                        plain += took
        median = statistics.median(plain)
        print(
            f"{name}: the trace takes {100 * statistics.median(shares):.1f} % of a step "
            f"({100 * min(shares):.1f} to {100 * max(shares):.1f}); a step beside it "
            f"{statistics.median(beside) / median:.3f} ({1000 * median:.1f} ms)",
            flush=True,
        )


if __name__ == "__main__":
    main()
