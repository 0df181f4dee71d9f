"""REPRODUCE.md taken at its word: its commands, in order, in an empty folder."""

import os
import re
import subprocess
from pathlib import Path

import pytest
from conftest import VENV, Project, clean_environ, generate
from engine import BASE, Engine

URL = "https://example.org/me/clean-room.git"


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> tuple[Project, dict[str, str]]:
    """A project in a repository, and the variables with which git finds it under its URL."""
    folder = tmp_path_factory.mktemp("published")
    project = generate(folder, "project_slug=clean-room", f"repository_url={URL}")
    identity = ("-c", "user.name=A", "-c", "user.email=a@example.org")
    for words in (("init", "-q"), ("add", "."), (*identity, "commit", "-q", "-m", "all")):
        subprocess.run(["git", *words], cwd=project.path, check=True)
    bare = folder / "bare.git"
    subprocess.run(["git", "clone", "-q", "--bare", project.path, bare], check=True)
    found = {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": f"url.{bare}.insteadOf"}
    return project, {**found, "GIT_CONFIG_VALUE_0": URL}


def commands(project: Project) -> list[list[str]]:
    """The blocks of commands of its REPRODUCE.md."""
    text = (project.path / "REPRODUCE.md").read_text()
    blocks = re.findall(r"^```bash\n(.*?)^```$", text, re.M | re.S)
    return [block.splitlines() for block in blocks]


def run(folder: Path, lines: list[str], **variables: str) -> str:
    """What a shell prints that runs these lines and stops at the first that fails."""
    script = "\n".join(["set -euo pipefail", *lines])
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=folder,
        env=clean_environ(**variables),
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def check_pip_path(project: Project, output: str) -> None:
    text = (project.path / "REPRODUCE.md").read_text()
    ((bits, more),) = re.findall(r"\| 42 \| [\d.]+ \| `((\w{8})\w{56})` \|", text)
    assert output.count("\nIDENTICAL\n") == 4  # once for each command that verifies
    assert "DIFFERENT" not in output
    assert f"\nbits {bits}\n" in output, more
    assert "equal to the recorded accuracy and bits of digits_baseline" in output


def test_the_commands_of_reproduce_md_end_as_it_says(
    published: tuple[Project, dict[str, str]], tmp_path: Path
) -> None:
    """The tests' environment stands in for a new one: see the next test."""
    project, variables = published
    start, *_, training, verification = commands(project)
    start.insert(2, f"ln -s '{VENV}' .venv")
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


def test_they_do_by_the_path_of_docker(
    published: tuple[Project, dict[str, str]], engine: Engine, tmp_path: Path
) -> None:
    """No base can be downloaded here: a stand-in is named by the variables of `make image`."""
    project, variables = published
    (docker,) = (block for block in commands(project) if block[0].startswith("make image"))
    variables |= {**engine.variables, "DOCKER": engine.client}
    variables["BUILD_ARGS"] = f"--network host --build-arg BASE_IMAGE={BASE}"
    start = commands(project)[0][:2]
    assert start[1] == "cd clean-room"
    assert not os.environ.get("BUILD_ARGS")
    output = run(tmp_path, [*start, *docker], **variables)
    assert output.endswith("\nIDENTICAL\n"), output[-2000:]
