"""Links that lead back to themselves, and a working folder that is gone: a line each."""

import subprocess
from pathlib import Path

import pytest
from conftest import VENV, Project, clean_environ, faults

TINY = ("training.max_steps=1", "model.width=4", "threads=1")
LOOP = "a link on the way leads back to itself"


@pytest.fixture
def looped(own_project: Project) -> Project:
    """A project with a link that leads to itself, and runs/latest that does so, too."""
    runs = own_project.path / "runs"
    runs.mkdir(exist_ok=True)
    for link in (runs / "latest", own_project.path / "x"):
        link.unlink(missing_ok=True)
        link.symlink_to(link.name)
    return own_project


@pytest.mark.parametrize(
    "words",
    [
        ("repro", "diff", "x", "runs/a"),
        ("repro", "trace-step", "x", "--step", "1"),
        ("experiment.evaluate", "--checkpoint", "x"),
        ("experiment.evaluate",),
        ("experiment.train", "run_dir=x", *TINY),
        ("experiment.train", "resume=auto", *TINY),
    ],
)
def test_a_link_to_itself_is_named_by_every_command(
    looped: Project, words: tuple[str, ...]
) -> None:
    (line,) = faults(looped.module(*words))
    assert LOOP in line


def test_a_link_to_itself_among_checkpoints_ends_no_training(looped: Project) -> None:
    run = looped.path / "runs" / "a"
    (run / "checkpoints").mkdir(parents=True)
    (run / "checkpoints" / "best").symlink_to("best")
    settings = ("run_dir=runs/a", "output.checkpoint_every=1", "output.keep_checkpoints=1")
    done = looped.train(*settings, *TINY, "training.max_steps=3")
    assert done.returncode == 0, done.stderr


def test_a_working_folder_that_is_gone_is_told(project: Project, tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.mkdir()
    command = f"rmdir {place}; exec {VENV}/bin/python -m repro diff runs/a runs/b"
    variables = clean_environ(PYTHONPATH=str(project.path))
    done = subprocess.run(
        ["bash", "-c", command], cwd=place, env=variables, capture_output=True, text=True
    )
    assert not place.exists()
    (line,) = faults(done)
    assert line.startswith("error: this folder was removed while this shell was in it; cd to")


def test_compare_lists_a_run_by_its_own_name_and_not_as_latest(own_project: Project) -> None:
    done = own_project.train("run_dir=runs/zeta", *TINY)
    assert done.returncode == 0, done.stderr
    assert (own_project.path / "runs" / "latest").is_symlink()
    (line,) = faults(own_project.module("repro", "compare", "runs"))
    assert "runs/zeta" in line  # it is not finished
    assert "runs/latest" not in line
