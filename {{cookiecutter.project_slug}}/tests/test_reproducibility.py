"""Fail when a change of yours makes results depend on more than the conditions.

These tests train your own config (configs/config.yaml) for a few steps, with the real commands.
"""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from conftest import STEPS, Commands

from repro.core.layout import CHECKPOINTS, EVALUATION, LAST, STATE, TENSORS


def state_of(run: Path) -> Any:
    """Read the state of a run's last checkpoint, without its tensors."""
    return json.loads((run / CHECKPOINTS / LAST / STATE).read_text())


def test_the_same_seed_gives_the_same_bits(commands: Commands, reference: Path) -> None:
    again = commands.train("again")
    assert commands.files(again) == commands.files(reference)


def test_another_seed_gives_other_bits(commands: Commands, reference: Path) -> None:
    other = commands.train("other", f"seed={state_of(reference)['config']['seed'] + 1}")
    assert commands.files(other)[TENSORS] != commands.files(reference)[TENSORS]


@pytest.mark.parametrize("workers", [1, 3])
def test_data_workers_do_not_change_the_bits(
    commands: Commands, reference: Path, workers: int
) -> None:
    run = commands.train(f"workers{workers}", f"num_workers={workers}")
    assert commands.files(run) == commands.files(reference)


def test_two_processes_do_not_change_the_bits(commands: Commands) -> None:
    """It would show if a second network, or something that looks at the rank, changed a step.

    The batch is cut in halves only: layers such as BatchNorm1d want two samples in each.
    """
    settings = ("device=cpu", "training.shards=2")
    one = commands.train("one", *settings)
    two = commands.train("two", *settings, processes=2)
    assert commands.files(two) == commands.files(one)


@pytest.mark.parametrize("stop", [1, 7, STEPS - 4])
def test_stopping_and_resuming_does_not_change_the_bits(
    commands: Commands, reference: Path, stop: int
) -> None:
    end = state_of(reference)["step"]  # the whole training may be shorter than STEPS
    commands.train(f"stop{stop}", steps=max(1, min(stop, end - 1)))
    run = commands.train(f"stop{stop}", "resume=auto")
    assert commands.files(run) == commands.files(reference)


def test_the_loss_is_a_sum_with_its_weight(commands: Commands) -> None:
    """A mean passed as a sum would train with a part of the gradient, and nothing would show it."""
    done = commands.run("repro", "audit", "--json")
    assert done.returncode in (0, 1), done.stderr
    assert json.loads(done.stdout)["sums"] == []


def test_a_typo_is_refused_before_anything_is_written(commands: Commands, tmp_path: Path) -> None:
    run = tmp_path / "run"
    done = commands.run("experiment.train", f"run_dir={run}", "trainig.epochs=3", "seed=-1")
    assert done.returncode == 2
    assert "did you mean training" in done.stderr
    assert len(done.stderr.splitlines()) == 2  # one line per fault, all faults at once
    assert not run.exists()


def test_resuming_with_another_config_names_the_setting(
    commands: Commands, reference: Path
) -> None:
    seed = state_of(reference)["config"]["seed"] + 1
    settings = (f"run_dir={reference}", "resume=auto", f"seed={seed}", "training.max_steps=1")
    done = commands.run("experiment.train", *settings)
    assert done.returncode == 2
    assert f"seed is {seed}, recorded" in done.stderr


def test_evaluation_twice_gives_the_same_bytes(commands: Commands, reference: Path) -> None:
    results = []
    for _ in range(2):
        done = commands.run(
            "experiment.evaluate", "--checkpoint", str(reference / CHECKPOINTS / LAST)
        )
        assert done.returncode == 0, done.stderr
        results.append((reference / EVALUATION).read_bytes())
    first, second = results
    assert first == second
    numbers = [value for value in json.loads(first).values() if isinstance(value, int | float)]
    assert all(map(math.isfinite, numbers))
