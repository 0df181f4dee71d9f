"""Projects of a text and of a table as a whole: their own tests, and their recorded results."""

from pathlib import Path

import pytest
from conftest import Project, generate, last_line
from forks import forking_environment


@pytest.mark.parametrize("task", ["text", "table"])
def test_the_own_tests_of_a_task_pass(task: str, tmp_path: Path) -> None:
    project = generate(tmp_path / "project", f"task={task}")
    done = Project(project.path, forking_environment(tmp_path / "venv")).make("test")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "skipped" not in last_line(done.stdout)


@pytest.mark.parametrize("task", ["text", "table"])
def test_a_fresh_project_of_a_task_is_identical(task: str, tmp_path: Path) -> None:
    project = generate(tmp_path, f"task={task}")
    done = project.module("repro", "verify", "--require", "identical")
    assert done.returncode == 0, done.stdout + done.stderr
    assert last_line(done.stdout) == "IDENTICAL"
