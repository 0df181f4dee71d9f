"""How long a generated project's commands take to start, beside what they cannot do without.

    python benchmarks/start.py PROJECT

Each pair is run in turn, five times, and the medians are compared:
1. a training of one step, beside a script that imports torch and does one step of a fused AdamW;
2. `--help`, beside Python's bare start (processor time);
3. the message about a misspelt setting, beside importing hydra, omegaconf and pydantic (processor
   time).
"""

import os
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

ROUNDS = 5
# Not in a newcomer's shell: what make sets for the tests, and a profile that is in force already.
SET_BY_US = (
    "PYTHONDONTWRITEBYTECODE",
    "REPRO_",
    "PYTHONHASHSEED",
    "CUBLAS_",
    "ATEN_",
    "ONEDNN_",
    "MKL_",
    "NPY_",
    "OPENBLAS_",
)

ONE_STEP = """
import torch
torch.set_num_threads(1)
layers = torch.nn.Conv2d(1, 32, 3, padding=1), torch.nn.Flatten(), torch.nn.Linear(2048, 10)
model = torch.nn.Sequential(*layers)
optimizer = torch.optim.AdamW(model.parameters(), fused=True)
labels = torch.arange(64) % 10
loss = torch.nn.functional.cross_entropy(model(torch.rand(64, 1, 8, 8)), labels)
loss.backward()
optimizer.step()
"""
# `import pydantic` alone imports next to nothing: its modules come with the first name in use.
CONFIGURATION = "import hydra, omegaconf; from pydantic import BaseModel"


class Cost(NamedTuple):
    """What a command took, with the processes that it started."""

    wall: float  # seconds
    processor: float  # seconds


def measure(project: Path, arguments: list[str], code: int = 0) -> Cost:
    """Run Python with `arguments` in the project, as a newcomer whose shell sets no profile."""
    environ = {k: v for k, v in os.environ.items() if not k.startswith(SET_BY_US)}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.perf_counter()
    command = [sys.executable, *arguments]
    done = subprocess.run(command, cwd=project, env=environ, capture_output=True, text=True)
    wall = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == code, done.stderr
    processor = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    return Cost(wall, processor)


def compare(
    project: Path, ours: list[str], beside: list[str], code: int = 0
) -> tuple[list[Cost], list[Cost]]:
    """Measure both in turn, after one round to warm up: files are compiled and in memory then.

    ROUND in the arguments is replaced by the number of the round.
    """
    costs: tuple[list[Cost], list[Cost]] = ([], [])
    for number in range(ROUNDS + 1):
        for place in (0, 1) if number % 2 else (1, 0):
            arguments = [text.replace("ROUND", str(number)) for text in (ours, beside)[place]]
            cost = measure(project, arguments, 0 if place else code)
            if number:
                costs[place].append(cost)
    return costs


def print_comparison(name: str, ours: list[float], beside: list[float]) -> None:
    one = statistics.median(ours)
    two = statistics.median(beside)
    spread = f"{min(ours):.2f} to {max(ours):.2f}, beside {min(beside):.2f} to {max(beside):.2f}"
    print(f"{name}: {one / two:.2f} times, {one - two:+.2f} s  ({spread})", flush=True)


def cpu_model() -> str:
    model = re.search(r"(?m)^model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return f"{model[1] if model else 'an unknown CPU'}, {os.cpu_count()} cores"


def main() -> None:
    project = Path(sys.argv[1]).resolve()
    print(f"on {cpu_model()}, median of {ROUNDS} in turn")
    measure(project, ["-m", "experiment.prepare"])
    with tempfile.TemporaryDirectory() as folder:
        train = ["-m", "experiment.train", "training.max_steps=1", f"run_dir={folder}/ROUND"]
        ours, beside = compare(project, train, ["-c", ONE_STEP])
    print_comparison(
        "a training of one step / torch and one step of AdamW",
        [cost.wall for cost in ours],
        [cost.wall for cost in beside],
    )
    ours, beside = compare(project, ["-m", "experiment.train", "--help"], ["-c", "pass"])
    print_comparison(
        "--help / bare Python, processor time",
        [cost.processor for cost in ours],
        [cost.processor for cost in beside],
    )
    typo = ["-m", "experiment.train", "training.epoch=1"]
    ours, beside = compare(project, typo, ["-c", CONFIGURATION], code=2)
    print_comparison(
        "a typo's message / import hydra, omegaconf, pydantic, processor time",
        [cost.processor for cost in ours],
        [cost.processor for cost in beside],
    )


if __name__ == "__main__":
    main()
