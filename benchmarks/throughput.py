"""Measure training throughput beside a plain PyTorch loop, without and with a trace.

Same model, data, batch size, optimizer, threads and profile; all in one process, in turn, epoch by
epoch, so that a machine whose speed drifts slows all of them. Run it with `make bench`.

    python benchmarks/throughput.py PROJECT [key=value ...]
"""

import statistics
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path

project = Path(sys.argv[1]).resolve()
sys.path.insert(0, str(project))

from experiment.config import LOADER  # noqa: E402
from repro import environment  # noqa: E402

config = LOADER.load(sys.argv[2:])
environment.enter(config.profile, config.threads)

import torch  # noqa: E402
from repro.runs.trace import Trace  # noqa: E402
from sessions import Bench  # noqa: E402
from torch import nn  # noqa: E402
from torch.utils.data import DataLoader  # noqa: E402

ROUNDS = 101
LOOPS = ("plain", "ours", "traced")


def plain_epoch(bench: Bench, loader: DataLoader, rate: float) -> None:
    """Train as an author would without this template: no seeds, no shards, no checks."""
    model = bench.task.model
    optimizer = bench.optimizer
    device = bench.session.device
    model.train()
    for images, labels in loader:
        images, labels = images.to(device), labels.to(device)
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(images), labels)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), config.training.gradient_clip or float("inf"))
        optimizer.step()
        loss.item()


def our_epoch(bench: Bench, trace: Trace | None) -> None:
    """Train as the kit's loop does, in a session."""
    bench.session.trace = trace
    for step in islice(bench.steps, bench.session.steps_per_epoch):
        bench.train(step)


def main() -> None:
    # The same task for all: where a model lies in memory makes a percent or two.
    bench = Bench(config, epochs=2 * (ROUNDS + 2))
    loader = DataLoader(
        bench.data,
        config.training.batch_size,
        shuffle=True,
        drop_last=config.training.drop_last,
        num_workers=config.num_workers,
    )
    folder = tempfile.TemporaryDirectory()
    trace = bench.trace_into(Path(folder.name))
    seconds: dict[str, list[float]] = {name: [] for name in LOOPS}
    for round_number in range(ROUNDS + 2):
        first = round_number % len(LOOPS)
        for name in LOOPS[first:] + LOOPS[:first]:
            torch.use_deterministic_algorithms(name != "plain")
            started = time.perf_counter()
            if name == "plain":
                plain_epoch(bench, loader, config.optimizer.learning_rate)
            else:
                our_epoch(bench, trace if name == "traced" else None)
            seconds[name].append(time.perf_counter() - started)
    counted = {name: values[2:] for name, values in seconds.items()}
    samples = len(bench.data)
    for name, values in counted.items():
        rate = samples / statistics.median(values)
        print(f"{name:6}  {rate:8.0f} samples/s  (median of {ROUNDS} epochs)")
    for name in LOOPS[1:]:
        ratios = [a / b for a, b in zip(counted["plain"], counted[name], strict=True)]
        low, middle, high = min(ratios), statistics.median(ratios), max(ratios)
        print(f"throughput {name}/plain {middle:.3f}  ({low:.3f} to {high:.3f}, epoch by epoch)")


if __name__ == "__main__":
    main()
