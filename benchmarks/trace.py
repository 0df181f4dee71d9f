"""What the trace costs: the seconds of training with it, beside those without.

    python benchmarks/trace.py PROJECT [DEVICE]

In one process, 20 steps by 20 steps in turn (digits CNN), step by step (ResNet-18, batch 64, images
of 32 x 32 pixels); medians of the ratios. Above 1 is slower.
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
    "digits CNN": (["model=small_cnn"], 20, 101),
    "ResNet-18": (["model=resnet18"], 1, 9),
}


def seconds(trainer: Trainer, trace: Trace | None, batches: list[list[Tensor]]) -> float:
    """Of a step, in CPU time where that is all: other work on the machine does not count."""
    clock = time.perf_counter if trainer.device.type == "cuda" else time.process_time
    indices, started = torch.arange(64), clock()
    for batch in batches:
        metrics = trainer.train_step(trainer.step, batch)
        trainer.step += 1
        if trace:
            quantities, _ = trainer.quantities(indices, batch, metrics)
            assert quantities
            trace.log(trainer.step, quantities)
    return (clock() - started) / len(batches)


def main() -> None:
    torch.set_num_threads(1)
    for name, (settings, steps, rounds) in CASES.items():
        # The same trainer for both: where a model lies in memory makes a percent or two.
        trainer = Trainer(LOADER.load([*settings, f"device={device}", "training.batch_size=64"]))
        side = 8 if "CNN" in name else 32
        images = torch.rand(64, 1, side, side, generator=torch.Generator().manual_seed(0))
        batches = [[images, torch.arange(64) % 10]] * (steps * (10 if device == "cuda" else 1))
        with tempfile.TemporaryDirectory() as folder:
            header = {"conditions": {"config": {"training": {}}}}
            trace = Trace(Path(folder), header, trainer.model, 0)
            found, times = [], []
            for number in range(rounds + 1):
                took = {}
                for traced in (True, False)[:: 1 if number % 2 else -1]:
                    took[traced] = seconds(trainer, trace if traced else None, batches)
                    trainer.step = 0
                found.append(took[True] / took[False])
                times.append(took[False])
        found = found[1:]
        print(
            f"{name}: {statistics.median(found):.3f}  ({min(found):.3f} to {max(found):.3f}), "
            f"{1000 * statistics.median(times):.1f} ms a step",
            flush=True,
        )


if __name__ == "__main__":
    main()
