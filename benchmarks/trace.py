"""What the trace costs: the seconds of training with it, beside those without.

    python benchmarks/trace.py PROJECT [DEVICE]

In one process, epoch by epoch in turn (digits CNN), step by step (ResNet-18, batch 64, images of
32 x 32 pixels); medians of the ratios. Above 1 is slower.
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
from experiment.trainer import Trainer  # noqa: E402
from repro.trace import Trace  # noqa: E402
from torch import Tensor  # noqa: E402

CASES = {
    "digits CNN": (["model=small_cnn"], 20, 41),
    "ResNet-18": (["model=resnet18"], 2, 9),
}


def seconds(trainer: Trainer, trace: Trace | None, batches: list[list[Tensor]]) -> float:
    indices, started = torch.arange(64), time.perf_counter()
    for batch in batches:
        metrics = trainer.train_step(trainer.step, batch)
        trainer.step += 1
        quantities, _ = trainer.quantities(indices, batch, metrics)
        if trace and quantities:
            trace.log(trainer.step, quantities)
    return (time.perf_counter() - started) / len(batches)


def main() -> None:
    torch.set_num_threads(1)
    for name, (settings, steps, rounds) in CASES.items():
        common = [*settings, f"device={device}", "training.batch_size=64"]
        with_trace, without = (
            Trainer(LOADER.load([*common, f"output.trace={value}"])) for value in ("true", "false")
        )
        side = 8 if "CNN" in name else 32
        images = torch.rand(64, 1, side, side, generator=torch.Generator().manual_seed(0))
        batches = [[images, torch.arange(64) % 10]] * (steps * (10 if device == "cuda" else 1))
        with tempfile.TemporaryDirectory() as folder:
            header = {"conditions": {"config": {"training": {}}}}
            trace = Trace(Path(folder), header, with_trace.model, 0)
            found, times = [], []
            for number in range(rounds + 1):
                pairs = ((with_trace, trace), (without, None))
                took = {id(t): seconds(t, w, batches) for t, w in pairs[:: 1 if number % 2 else -1]}
                with_trace.step = without.step = 0
                found.append(took[id(with_trace)] / took[id(without)])
                times.append(took[id(without)])
        found = found[1:]
        print(
            f"{name}: {statistics.median(found):.3f}  ({min(found):.3f} to {max(found):.3f}), "
            f"{1000 * statistics.median(times):.1f} ms a step",
            flush=True,
        )


if __name__ == "__main__":
    main()
