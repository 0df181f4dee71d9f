"""REPRODUCE.md taken at its word, by the path of Docker."""

import os
from pathlib import Path

from conftest import Project
from engine import BASE, Engine
from published import commands, run


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
