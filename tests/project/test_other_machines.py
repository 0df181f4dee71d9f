"""The verdict on a machine that nobody has recorded on: faked here (tests/faked_machine.py).

The weights are those of the native profile on this machine, other ones than the recorded ones.
"""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from conftest import Project, commit, faults, git, last_line
from faked_machine import ARM_CLASS, ARM_SERVER, MAC, MAC_CLASS, FakedMachine

PORTABLE_CLASS = "cpu x86-64-v3 portable"
RESULTS = "results/expected_metrics.json"
CLAIMS = """
- name: tiny
  text: A few steps
  arguments: [training.max_steps=12, model.width=4]
  metric: accuracy
  seeds: [3, 4, 5]
"""


@pytest.fixture(scope="module")
def shipped(project: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project with results that were recorded on x86-64, as an author publishes it."""
    own = project.copy(tmp_path_factory.mktemp("shipped") / "p")
    (own.path / "configs" / "claims.yaml").write_text(CLAIMS)
    git(own, "init", "--quiet")
    commit(own)
    done = own.module("repro", "record")
    assert done.returncode == 0, done.stdout + done.stderr
    shutil.rmtree(own.path / "runs")
    commit(own)
    return own


@pytest.fixture
def clone(shipped: Project, tmp_path: Path) -> Project:
    shutil.copytree(shipped.path, tmp_path / "p", symlinks=True)
    return Project(tmp_path / "p", shipped.venv)


def recorded(project: Project) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((project.path / RESULTS).read_text())["claims"]["tiny"]
    return found


@pytest.mark.parametrize(
    ("machine", "name"), [(ARM_SERVER, ARM_CLASS), (MAC, MAC_CLASS)], ids=["arm", "mac"]
)
def test_a_new_machine_is_equivalent_then_added_then_identical(
    clone: Project, tmp_path: Path, machine: Any, name: str
) -> None:
    there = FakedMachine(clone, machine, tmp_path)
    done = there.run("repro", "verify")
    assert (done.returncode, last_line(done.stdout)) == (0, "EQUIVALENT"), done.stdout + done.stderr
    for words in (
        "conditions code, config, data, lock, packages: as recorded",
        f"bits       recorded on {PORTABLE_CLASS}\n",
        f"not compared: this is {name}",
        "the value was compared and not the bits: it lies inside the interval",
        "make record",
        "beside the recorded ones",
    ):
        assert words in done.stdout

    before = (clone.path / RESULTS).read_text().splitlines()
    kept = {
        path: path.read_bytes()
        for folder in ("figures", "trace")
        for path in (clone.path / "results" / folder).rglob("*")
        if path.is_file()
    }
    first = recorded(clone)
    done = there.run("repro", "record")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{name} is added, beside {PORTABLE_CLASS}, which stays" in done.stdout
    now = recorded(clone)
    assert now["bits"].keys() == {PORTABLE_CLASS, name}
    assert now["bits"][PORTABLE_CLASS] != now["bits"][name]
    assert now["environments"][name]["profile"] == "native"
    assert now["added"][name]["values"].keys() == now["values"].keys()
    after = iter((clone.path / RESULTS).read_text().splitlines())
    assert [line for line in before if line not in after] == []  # all are there, in their order
    for of_class in ("bits", "environments"):
        assert now[of_class].pop(name)
    del now["added"]
    assert now == first
    assert {path: path.read_bytes() for path in kept} == kept
    document = (clone.path / "REPRODUCE.md").read_text()
    assert f"| `tiny` | {name} | 3 |" in document
    assert f"| `tiny` | {PORTABLE_CLASS} | 3 |" in document
    assert re.search(f"Added under the same conditions: `{re.escape(name)}`, commit", document)

    done = there.run("repro", "verify", "--require", "identical")
    assert (done.returncode, last_line(done.stdout)) == (0, "IDENTICAL"), done.stdout
    done = there.run("repro", "verify", "--prefix", "2")
    assert (done.returncode, last_line(done.stdout)) == (0, "IDENTICAL"), done.stdout
    done = clone.module("repro", "verify")  # at home nothing has changed
    assert (done.returncode, last_line(done.stdout)) == (0, "IDENTICAL"), done.stdout
    assert PORTABLE_CLASS in done.stdout


def test_a_changed_hyperparameter_is_different_before_training(
    clone: Project, tmp_path: Path
) -> None:
    clone.edit("configs/optimizer/adamw.yaml", "learning_rate: 0.003", "learning_rate: 0.004")
    done = FakedMachine(clone, ARM_SERVER, tmp_path).run("repro", "verify")
    assert (done.returncode, last_line(done.stdout)) == (1, "DIFFERENT"), done.stdout
    assert "nothing was trained" in done.stdout
    assert "config: optimizer: learning_rate is 0.004, recorded 0.003" in done.stdout
    assert not [*clone.path.glob("runs/**/checkpoints")]


def test_what_another_code_recorded_is_not_kept(clone: Project, tmp_path: Path) -> None:
    clone.edit("configs/claims.yaml", "seeds: [3, 4, 5]", "seeds: [3]")
    clone.edit("configs/optimizer/adamw.yaml", "learning_rate: 0.003", "learning_rate: 0.004")
    commit(clone)
    done = FakedMachine(clone, ARM_SERVER, tmp_path).run("repro", "record")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "is added" not in done.stdout
    assert recorded(clone)["bits"].keys() == {ARM_CLASS}
    assert "added" not in recorded(clone)


def test_portable_is_refused_there_in_one_line(clone: Project, tmp_path: Path) -> None:
    for machine, words in ((ARM_SERVER, "Linux on aarch64"), (MAC, "macOS on arm64")):
        there = FakedMachine(clone, machine, tmp_path)
        (line,) = faults(there.run("experiment.train", "profile=portable"))
        assert "profile=portable needs Linux on an x86-64 CPU with AVX2 and FMA" in line
        assert f"this is {words}, where no kernels with the same bits on every CPU are" in line


def test_no_variable_makes_another_machine_of_this_one(clone: Project) -> None:
    """Unlike the hook, which is a file that `doctor` and `verify` see."""
    done = clone.module("experiment.train", "--conditions", REPRO_MACHINE="aarch64")
    assert json.loads(last_line(done.stdout))["hardware_class"] == PORTABLE_CLASS
