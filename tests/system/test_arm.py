"""ARM servers, emulated: trainings repeat, resume and verify; which operations differ by CPU model.

Each step has a time limit, and the one that takes longer is named. torch is imported once per CPU
model, by a process that forks for each command.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from background import contents
from conftest import CLAIMS, ROOT, Project, clean_environ, commit, finish, generate, git, last_line
from emulated_arm import NoEmulator, emulated
from fork_client import THREADS
from forks import ForkServer
from repro.environment.profile import MARKER, PROFILES

NATIVE = {**PROFILES["native"], MARKER: "native", **dict.fromkeys(THREADS, "1")}
# Seconds for a step; the longest, torch's import, takes 60 when nothing else runs.
LIMIT = 400
TWO_STEPS = ("training.max_steps=2", "output.log_every=1")
OPERATIONS = ROOT / "tests" / "arm_operations.py"
PLATFORMS = ROOT / "docs" / "platforms.md"


class Arm:
    """An emulated machine: an environment, and a process that answers `python -m` by a fork."""

    def __init__(self, venv: Path) -> None:
        self.venv = venv
        self.server = ForkServer(venv, clean_environ(), NATIVE)
        self.server.ready(LIMIT)

    def run(self, project: Project, *words: str) -> str:
        """What a module prints that ends well within the limit."""
        environ = {**clean_environ(), **NATIVE}
        done = self.server.run(["-m", *words], project.path, [environ], LIMIT)
        assert done.returncode == 0, (words, done.stdout, done.stderr)
        return done.stdout

    def train(self, project: Project, run: str, *settings: str) -> dict[str, bytes]:
        """The files with the bits of a run."""
        self.run(project, "experiment.train", f"run_dir={run}", *TWO_STEPS, *settings)
        found = contents(project.path / run)
        assert found
        return found


def environment(model: str, monkeypatch: pytest.MonkeyPatch | None = None) -> Path:
    """The environment of a CPU model; without an emulator the test is skipped, in CI it fails."""
    import os

    try:
        return emulated(model)
    except NoEmulator as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def arm() -> Iterator[Arm]:
    machine = Arm(environment("neoverse-n1"))
    yield machine
    machine.server.stop()


@pytest.fixture(scope="module")
def trained(arm: Arm, project: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project with a run of two steps, `runs/whole`."""
    copy = project.copy(tmp_path_factory.mktemp("arm") / project.path.name)
    arm.train(copy, "runs/whole")
    return copy


def test_a_training_on_an_emulated_arm_server_repeats_itself_and_resumes(
    arm: Arm, trained: Project
) -> None:
    whole = contents(trained.path / "runs" / "whole")
    assert arm.train(trained, "runs/again") == whole
    arm.train(trained, "runs/stopped", "training.max_steps=1")
    resumed = arm.train(trained, "runs/resumed", "resume=runs/stopped")
    last = "checkpoints/step-000000002/tensors.safetensors"
    assert resumed[last] == whole[last]
    assert arm.train(trained, "runs/other", "seed=1")[last] != whole[last]
