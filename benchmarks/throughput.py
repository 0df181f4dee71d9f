"""Measure training throughput beside a plain PyTorch loop, without and with a trace.

Same model, data, batch size, optimizer, threads and profile; all in one process, in turn, epoch by
epoch, so that a machine whose speed drifts slows all of them. Run it with `make bench`.

    python benchmarks/throughput.py PROJECT [key=value ...]
"""

import statistics
import sys
import tempfile
import time
from pathlib import Path

project = Path(sys.argv[1]).resolve()
sys.path.insert(0, str(project))

from experiment.config import LOADER  # noqa: E402
from repro import environment  # noqa: E402

config = LOADER.load(sys.argv[2:])
environment.enter(config.profile, config.threads)

import torch  # noqa: E402
from experiment.trainer import Trainer  # noqa: E402
from repro.runs.conditions import Conditions, DatasetFacts, Facts, Situation  # noqa: E402
from repro.runs.trace import Trace  # noqa: E402
from torch import nn  # noqa: E402
from torch.utils.data import DataLoader  # noqa: E402

ROUNDS = 101
# What a run depends on is not written here: the times are all that is asked for.
NOTHING = Situation(Conditions({}, {}, "", {}, "", {}), "", DatasetFacts())
FACTS = Facts(NOTHING, flags={}, seed=0, seeds={})
LOOPS = ("plain", "ours", "traced")


def plain_epoch(trainer: Trainer, loader: DataLoader, rate: float) -> None:
    """Train as an author would without this template: no seeds, no shards, no checks."""
    model = trainer.model
    optimizer = trainer.optimizer
    model.train()
    for images, labels in loader:
        images, labels = images.to(trainer.device), labels.to(trainer.device)
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(images), labels)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), config.training.gradient_clip or float("inf"))
        optimizer.step()
        loss.item()


def our_epoch(trainer: Trainer, trace: Trace | None, epoch: int) -> None:
    """Train as Trainer.fit does."""
    length = trainer.schedule.steps_per_epoch
    steps = range(epoch * length, (epoch + 1) * length)
    for step, (indices, batch) in zip(steps, trainer.steps(steps, config.num_workers), strict=True):
        metrics = trainer.train_step(step, batch)
        trainer.step = step + 1
        if trace:
            quantities, _ = trainer.quantities(indices, batch, metrics)
            assert quantities, "the trace is measured here: leave output.trace on"
            trace.log(trainer.step, quantities)


def main() -> None:
    # The same trainer for all: where a model lies in memory makes a percent or two.
    trainer = Trainer(config)
    loader = DataLoader(
        trainer.data.train,
        config.training.batch_size,
        shuffle=True,
        drop_last=config.training.drop_last,
        num_workers=config.num_workers,
    )
    folder = tempfile.TemporaryDirectory()
    trace = Trace(Path(folder.name), FACTS, trainer.model, 0)
    seconds: dict[str, list[float]] = {name: [] for name in LOOPS}
    for round_number in range(ROUNDS + 2):
        first = round_number % len(LOOPS)
        for name in LOOPS[first:] + LOOPS[:first]:
            torch.use_deterministic_algorithms(name != "plain")
            started = time.perf_counter()
            if name == "plain":
                plain_epoch(trainer, loader, config.optimizer.learning_rate)
            else:
                our_epoch(trainer, trace if name == "traced" else None, round_number)
            seconds[name].append(time.perf_counter() - started)
    counted = {name: values[2:] for name, values in seconds.items()}
    samples = len(trainer.data.train)
    for name, values in counted.items():
        rate = samples / statistics.median(values)
        print(f"{name:6}  {rate:8.0f} samples/s  (median of {ROUNDS} epochs)")
    for name in LOOPS[1:]:
        ratios = [a / b for a, b in zip(counted["plain"], counted[name], strict=True)]
        low, middle, high = min(ratios), statistics.median(ratios), max(ratios)
        print(f"throughput {name}/plain {middle:.3f}  ({low:.3f} to {high:.3f}, epoch by epoch)")


if __name__ == "__main__":
    main()
