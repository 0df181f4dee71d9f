"""Measure training throughput beside a plain PyTorch loop, without and with a trace.

Same model, data, batch size, optimizer, threads and profile, for any task with one optimizer; all
in one process, in turn, stretch by stretch, so that a machine whose speed drifts slows all of them.
Run it with `make bench`.

    python benchmarks/throughput.py PROJECT [key=value ...]
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import count, islice
from pathlib import Path
from typing import Any

project = Path(sys.argv[1]).resolve()
sys.path.insert(0, str(project))

from experiment.config import LOADER  # noqa: E402
from repro import environment  # noqa: E402

config = LOADER.load(sys.argv[2:])
environment.enter(config.profile, config.threads)

import torch  # noqa: E402
from repro.runs.trace import Trace  # noqa: E402
from repro.tasks.samples import collate_of  # noqa: E402
from repro.training.batches import moved  # noqa: E402
from sessions import Bench  # noqa: E402
from torch import nn  # noqa: E402
from torch.utils.data import DataLoader  # noqa: E402

ROUNDS = 61
SECONDS = 0.4  # that a stretch takes, about
LOOPS = ("plain", "ours", "traced")


class Batches:
    """The batches that a data set chooses, without end, for torch's own loader."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __iter__(self) -> Iterator[list[int]]:
        for step in count():
            yield self.dataset.batch(0, step)


def plain_batches(bench: Bench) -> Iterator[Any]:
    """Yield batches for ever, as an author would make them without this template."""
    options: dict[str, Any] = {"collate_fn": collate_of(bench.data)}
    if hasattr(bench.data, "batch"):
        options["batch_sampler"] = Batches(bench.data)
    else:
        options["batch_size"] = config.training.batch_size
        options["shuffle"] = True
        options["drop_last"] = config.training.drop_last
    loader: DataLoader[Any] = DataLoader(bench.data, num_workers=config.num_workers, **options)
    while True:
        yield from loader


def plain(bench: Bench, batches: Iterator[Any], steps: int) -> None:
    """Train as an author would without this template: no seeds, no shards, no checks."""
    model = bench.task.model
    model.train()
    limit = config.training.gradient_clip or float("inf")
    for batch in islice(batches, steps):
        here = moved(batch, bench.session.device)
        for group in bench.optimizer.param_groups:
            group["lr"] = config.optimizer.learning_rate
        bench.optimizer.zero_grad()
        loss = bench.task.loss(here).mean()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), limit)
        bench.optimizer.step()
        loss.item()


def ours(bench: Bench, trace: Trace | None, steps: int) -> None:
    """Train as the kit's loop does, in a session."""
    bench.session.trace = trace
    for step in islice(bench.steps, steps):
        bench.train(step)


def main() -> None:
    # The same task for all: where a model lies in memory makes a percent or two.
    bench = Bench(config)
    batches = plain_batches(bench)
    folder = tempfile.TemporaryDirectory()
    trace = bench.trace_into(Path(folder.name))
    plain(bench, batches, 5)
    started = time.perf_counter()
    plain(bench, batches, 10)
    steps = max(5, round(SECONDS / ((time.perf_counter() - started) / 10)))
    seconds: dict[str, list[float]] = {name: [] for name in LOOPS}
    for round_number in range(ROUNDS + 2):
        first = round_number % len(LOOPS)
        for name in LOOPS[first:] + LOOPS[:first]:
            torch.use_deterministic_algorithms(name != "plain")
            started = time.perf_counter()
            if name == "plain":
                plain(bench, batches, steps)
            else:
                ours(bench, trace if name == "traced" else None, steps)
            seconds[name].append(time.perf_counter() - started)
    counted = {name: values[2:] for name, values in seconds.items()}
    for name, values in counted.items():
        each = 1000 * statistics.median(values) / steps
        print(f"{name:6}  {each:8.3f} ms a step  (median of {ROUNDS} stretches of {steps} steps)")
    for name in LOOPS[1:]:
        ratios = [a / b for a, b in zip(counted["plain"], counted[name], strict=True)]
        low, middle, high = min(ratios), statistics.median(ratios), max(ratios)
        print(f"throughput {name}/plain {middle:.3f}  ({low:.3f} to {high:.3f}, by stretches)")


if __name__ == "__main__":
    main()
