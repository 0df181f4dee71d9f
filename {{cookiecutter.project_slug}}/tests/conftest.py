"""Run the project's real commands, as a user would, each in a process of its own."""

import os
import subprocess
import sys
import warnings
from contextlib import suppress
from pathlib import Path

import pytest

from repro.core.errors import UserError
from repro.core.layout import CHECKPOINTS, LAST, METRICS, TRACE
from repro.core.text import listed
from repro.results.claims import stale
from repro.runs.logs import read_lines

ROOT = Path(__file__).resolve().parent.parent
# Crosses the end of an epoch in the default config: 20 steps. Raise it to cross one of yours.
STEPS = 25
# New memory is filled with NaN: who reads it before writing to it gets a loss that is not finite.
FILLED = {"REPRO_FILL_MEMORY": "1"}


class Commands:
    """The project's commands, on the author's own config."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def run(self, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
        """Run `python -m` with these arguments."""
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
        """Train for some steps in a run of that name, and return the run's folder."""
        run = self.folder / name
        launcher: tuple[str, ...] = ()
        if processes > 1:  # an address: the machine's name may not be known to itself
            options = ("--standalone", "--local-addr=127.0.0.1", f"--nproc-per-node={processes}")
            launcher = ("torch.distributed.run", *options, "-m")
        done = self.run(
            *launcher,
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
        """Read what must be equal byte for byte: metrics, trace, all of the last checkpoint."""
        last = run / CHECKPOINTS / LAST
        paths = [run / METRICS, run / TRACE, *sorted(last.iterdir())]
        return {path.name: path.read_bytes() for path in paths}


@pytest.fixture(scope="session")
def commands(tmp_path_factory: pytest.TempPathFactory) -> Commands:
    return Commands(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="session")
def reference(commands: Commands) -> Path:
    """Train without interruption; warn if the run does not cross the end of an epoch."""
    run = commands.train("reference")
    if not any("epoch" in line for line in read_lines(run / METRICS)):
        warnings.warn(
            f"no epoch ends within {STEPS} steps: raise STEPS in conftest.py", stacklevel=1
        )
    return run


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print a line if results/ and REPRODUCE.md are of other code or another lock than today's."""
    with suppress(UserError):  # nothing is recorded yet
        if lines := stale(ROOT, quick=True):
            shown = listed(lines, shown=1)
            terminalreporter.write_line(f"REPRODUCE.md is not of this code ({shown}): make record")
