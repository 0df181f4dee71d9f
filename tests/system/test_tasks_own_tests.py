"""The tests that a project of a text or of a table brings: `make test` in it."""

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
