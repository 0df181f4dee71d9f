"""Runs the project's real commands, as a user would, each in a process of its own."""

import os
import subprocess
import sys
import warnings
from contextlib import suppress
from pathlib import Path

import pytest

from repro.core.errors import UserError
from repro.core.layout import METRICS
from repro.results.claims import stale
from repro.runs.logs import read_lines

ROOT = Path(__file__).resolve().parent.parent
# Crosses the end of an epoch in the default config: 20 steps. Raise it to cross one of yours.
STEPS = 25
# New memory is filled with NaN: who reads it before writing to it gets a loss that is not finite.
FILLED = {"REPRO_FILL_MEMORY": "1"}


class Commands:
    """`train` returns the folder of a run of STEPS steps of the author's own config."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def run(self, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", *arguments],
            cwd=ROOT,
            env={**os.environ, **FILLED, **environ},
            capture_output=True,
            text=True,
        )

    def script(self, path: Path) -> subprocess.CompletedProcess[str]:
        """Run a Python file that may import the project."""
        environ = {**os.environ, "PYTHONPATH": str(ROOT)}
        command = [sys.executable, str(path)]
        return subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True)

    def train(self, name: str, *settings: str, steps: int = STEPS, processes: int = 1) -> Path:
        run, several = self.folder / name, ()
        if processes > 1:  # an address: the machine's name may not be known to itself
            options = ("--standalone", "--local-addr=127.0.0.1", f"--nproc-per-node={processes}")
            several = ("torch.distributed.run", *options, "-m")
        done = self.run(
            *several,
            "experiment.train",
            f"run_dir={run}",
            f"training.max_steps={steps}",
            "output.log_every=1",
            "output.trace=true",
            *settings,
        )
        assert done.returncode == 0, done.stderr
        return run

    @staticmethod
    def files(run: Path) -> dict[str, bytes]:
        """What must be equal byte for byte: metrics, trace, every file of the last checkpoint."""
        last = run / "checkpoints" / "last"
        paths = [run / "metrics.jsonl", run / "trace.jsonl", *sorted(last.iterdir())]
        return {path.name: path.read_bytes() for path in paths}


@pytest.fixture(scope="session")
def commands(tmp_path_factory: pytest.TempPathFactory) -> Commands:
    return Commands(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="session")
def reference(commands: Commands) -> Path:
    """An uninterrupted run; a warning if it tells nothing of what happens when an epoch ends."""
    run = commands.train("reference")
    if not any("epoch" in line for line in read_lines(run / METRICS)):
        warnings.warn(
            f"no epoch ends within {STEPS} steps: raise STEPS in conftest.py", stacklevel=1
        )
    return run


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """A line if results/ and REPRODUCE.md are of other code or another lock than today's."""
    with suppress(UserError):  # nothing is recorded yet
        if lines := stale(ROOT, quick=True):
            more = f" and {len(lines) - 1} more" * (len(lines) > 1)
            words = f"REPRODUCE.md is not of this code ({lines[0]}{more}): make record"
            terminalreporter.write_line(words)
