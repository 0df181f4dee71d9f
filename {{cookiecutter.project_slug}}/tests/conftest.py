"""Run the project's real commands, as a user would, each in a process of its own."""

import os
import subprocess
import sys
import warnings
from contextlib import suppress
from pathlib import Path

import pytest

from experiment.config import LOADER
from repro.core.errors import UserError
from repro.core.layout import CHECKPOINTS, LAST, METRICS, TRACE
from repro.core.text import listed
from repro.results.claims import stale
from repro.runs.logs import is_validation, read_lines

ROOT = Path(__file__).resolve().parent.parent
STEPS = 25
EVERY = 20  # steps between two validations, where the config has that setting
# New memory is filled with NaN: who reads it before writing to it gets a loss that is not finite.
FILLED = {"REPRO_FILL_MEMORY": "1"}


class Commands:
    """The project's commands, on the author's own config."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.validating: list[str] = []
        if hasattr(getattr(LOADER.load([]), "evaluation", None), "every"):
            self.validating.append(f"evaluation.every={EVERY}")

    def run(self, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
        """Run `python -m` with these arguments."""
        return subprocess.run(
            [sys.executable, "-m", *arguments],
            cwd=ROOT,
            env={**os.environ, **FILLED, **environ},
            capture_output=True,
            text=True,
        )

    def script(self, path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a Python file that may import the project."""
        environ = {**os.environ, "PYTHONPATH": str(ROOT)}
        command = [sys.executable, str(path), *arguments]
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
            *self.validating,
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
    """Train without interruption; warn if the run is not validated."""
    run = commands.train("reference")
    if not any(map(is_validation, read_lines(run / METRICS))):
        warnings.warn(
            f"nothing is validated within {STEPS} steps: raise STEPS in conftest.py", stacklevel=1
        )
    return run


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addini(
        "gpu_seconds", "what all tests of `make test-gpu` together may take", default="600"
    )


def pytest_configure(config: pytest.Config) -> None:
    if config.option.markexpr == "gpu":
        from gpu_report import GpuReport  # it imports torch

        report = GpuReport(float(config.getini("gpu_seconds")))
        config.pluginmanager.register(report, "gpu-report")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print a line if results/ and REPRODUCE.md are of other code or another lock than today's."""
    with suppress(UserError):  # nothing is recorded yet
        if lines := stale(ROOT, quick=True):
            shown = listed(lines, shown=1)
            terminalreporter.write_line(f"REPRODUCE.md is not of this code ({shown}): make record")
