"""Measure training throughput beside a plain PyTorch loop, without and with a trace.

Same model, data, batch size, optimizer, threads and profile, for any task with one optimizer; all
in one process, in turn, stretch by stretch, so that a machine whose speed drifts slows all of them.
Exit code 1: a ratio misses its bound (benchmarks/bounds.toml) by more than its spread. Run it with
`make bench`.

    python benchmarks/throughput.py PROJECT [--task NAME] [--rounds N] [--steps N] [key=value ...]

`--task`: whose bounds hold. `--steps`: those of a stretch, instead of as many as take 0.4 s.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from spread import BOUNDS, missed, ratios, read_bounds

parser = argparse.ArgumentParser()
parser.add_argument("project", type=Path)
parser.add_argument("settings", nargs="*")
parser.add_argument("--task")
parser.add_argument("--rounds", type=int, default=61)
parser.add_argument("--steps", type=int)
parser.add_argument("--bounds", type=Path, default=BOUNDS)
arguments = parser.parse_intermixed_args()
project = arguments.project.resolve()
sys.path.insert(0, str(project))

from experiment.config import LOADER  # noqa: E402
from repro import environment  # noqa: E402

config = LOADER.load(arguments.settings)
environment.enter(config.profile, config.threads)

import torch  # noqa: E402
from peer_loops import endless, limit_of, loader_of, plain_step  # noqa: E402
from repro.runs.trace import Trace  # noqa: E402
from sessions import Bench  # noqa: E402

ROUNDS = arguments.rounds
SECONDS = 0.4  # that a stretch takes, about
LOOPS = ("plain", "ours", "traced")


def plain(bench: Bench, batches: Iterator[Any], steps: int) -> None:
    """Train as an author would without this template: no seeds, no shards, no checks."""
    bench.task.model.train()
    limit = limit_of(config)
    for batch in islice(batches, steps):
        plain_step(bench, batch, limit)


def ours(bench: Bench, trace: Trace | None, steps: int) -> None:
    """Train as the kit's loop does, in a session."""
    bench.session.trace = trace
    for step in islice(bench.steps, steps):
        bench.train(step)


def main() -> int:
    # The same task for all: where a model lies in memory makes a percent or two.
    bench = Bench(config)
    batches = endless(loader_of(bench.data, config))
    folder = tempfile.TemporaryDirectory()
    trace = bench.trace_into(Path(folder.name))
    plain(bench, batches, 5)
    started = time.perf_counter()
    plain(bench, batches, 10)
    taken = (time.perf_counter() - started) / 10
    steps = arguments.steps or max(5, round(SECONDS / taken))
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
    found = {name: ratios(counted["plain"], counted[name]) for name in LOOPS[1:]}
    for name, ratio in found.items():
        print(f"throughput {name}/plain {ratio:.3f}  (quartiles, by stretches)")
    faults = missed(found, read_bounds(arguments.bounds).get(arguments.task, {}))
    for line in faults:
        print(f"error: {arguments.task}: {line}", file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    raise SystemExit(main())
