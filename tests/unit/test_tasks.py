"""The tasks' files in templates/tasks/, and their placeholders in the project's folder."""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
from conftest import ROOT, TEMPLATE

TASKS = json.loads((ROOT / "cookiecutter.json").read_text())["task"]


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("tasks_tool", ROOT / "tools" / "tasks.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["tasks_tool"] = module
    spec.loader.exec_module(module)
    return module


def test_every_file_of_a_task_has_its_placeholder(tool: ModuleType) -> None:
    """Else a project would lack it, or have a file of another task: `make tasks` writes them."""
    wanted = tool.placeholders()
    assert wanted.keys() == tool.written().keys()
    for name, content in wanted.items():
        there = TEMPLATE / name
        if isinstance(content, Path):
            assert there.read_bytes() == content.read_bytes(), name
        else:
            assert there.read_text() == content, name


def test_every_task_that_can_be_chosen_has_its_folder() -> None:
    folders = {path.name for path in (ROOT / "templates" / "tasks").iterdir()}
    assert folders == {*TASKS}


@pytest.mark.parametrize("task", TASKS)
def test_the_files_of_a_task_have_no_jinja(task: str) -> None:
    """They are inserted as text: whatever looks like Jinja in them would stay."""
    folder = ROOT / "templates" / "tasks" / task
    for kind in ("experiment", "configs"):
        for path in (folder / kind).rglob("*.*"):
            if "__pycache__" not in path.parts:
                assert "cookiecutter" not in path.read_text(), path
