"""REPRODUCE.md taken at its word: its commands, in order, in an empty folder."""

import re
from pathlib import Path

import pytest
from conftest import Project
from forks import forking_environment
from published import commands, run


def check_pip_path(project: Project, output: str) -> None:
    text = (project.path / "REPRODUCE.md").read_text()
    ((bits, more),) = re.findall(r"\| 42 \| [\d.]+ \| `((\w{8})\w{56})` \|", text)
    assert output.count("\nIDENTICAL\n") == 4  # once for each command that verifies
    assert "DIFFERENT" not in output
    assert f"\nbits {bits}\n" in output, more
    assert "equal to the recorded accuracy and bits of short" in output


def test_the_commands_of_reproduce_md_end_as_it_says(
    published: tuple[Project, dict[str, str]], tmp_path: Path
) -> None:
    """Forks in the tests' environment stand in for a new one: see the next test."""
    project, variables = published
    start, *_, training, verification = commands(project)
    start.insert(2, f"ln -s '{forking_environment(tmp_path / 'venv')}' .venv")
    assert start[1:4:2] == ["cd clean-room", "make setup"]
    output = run(tmp_path, [*start, *training, *verification], **variables)
    check_pip_path(project, output)


@pytest.mark.long
def test_they_do_with_a_new_environment(
    published: tuple[Project, dict[str, str]], tmp_path: Path
) -> None:
    project, variables = published
    start, *_, training, verification = commands(project)
    output = run(tmp_path, [*start, *training, *verification], **variables)
    check_pip_path(project, output)
