"""The locks of the template."""

import itertools
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import (
    ROOT,
)
from options import CHOICES, pins
from repro.environment.requirements import requirement_faults

LOCKS = ROOT / "templates" / "locks"


TRACKERS = [name for name in CHOICES["tracker"] if name != "none"]


@pytest.mark.parametrize("name", [*CHOICES["task"], *TRACKERS, "dev"])
def test_the_locks_have_hashes_and_no_settings_of_a_machine(name: str) -> None:
    lock = (LOCKS / f"{name}.lock").read_text()
    assert "make lock" in lock
    for line in lock.splitlines():
        assert not line.startswith("-"), line
        assert "://" not in line, line
        assert " /" not in line, line
    for requirement in re.split(r"\n(?=\S)", re.sub(r"(?m)^\s*#.*\n?", "", lock)):
        if requirement.strip():
            assert re.search(r"--hash=sha256:[0-9a-f]{64}", requirement), requirement


def test_a_package_has_the_same_version_in_every_lock() -> None:
    """So no task and no tracker is a reason for other versions: one environment can hold all."""
    locks = [pins(path.read_text()) for path in LOCKS.glob("*.lock")]
    assert len(locks) == len(CHOICES["task"]) + len(TRACKERS) + 1
    for one, other in itertools.combinations(locks, 2):
        both = one.keys() & other.keys()
        assert {name: one[name] for name in both} == {name: other[name] for name in both}


@pytest.mark.parametrize("task", ["text", "table"])
def test_a_task_has_its_own_packages_only(task: str) -> None:
    locked = pins((LOCKS / f"{task}.lock").read_text())
    assert "torch" in locked
    assert not locked.keys() & {"torchvision", "pillow", "matplotlib"}
    assert ("scikit-learn" in locked) is (task == "table")


def test_an_image_without_requirements_needs_no_packaging(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The image has the locks alone, and only some projects have `packaging` in theirs."""
    monkeypatch.setitem(sys.modules, "packaging.requirements", None)
    pins: dict[str, Any] = {"requirements.lock": {}}
    assert not [*requirement_faults(tmp_path, pins)]
    (tmp_path / "requirements.in").write_text("torch\n")
    (line,) = requirement_faults(tmp_path, pins)
    assert "packaging is not installed" in line
