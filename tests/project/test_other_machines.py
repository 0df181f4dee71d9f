"""The verdict on a machine that nobody has recorded on: faked here (tests/faked_machine.py).

The weights are those of the native profile on this machine, other ones than the recorded ones.
"""

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from conftest import (
    PORTABLE,
    Project,
    commit,
    faults,
    generate,
    last_line,
    record_claims,
    weights,
)
from faked_machine import ARM_CLASS, ARM_SERVER, MAC, MAC_CLASS, FakedMachine
from repro.core.errors import UserError
from repro.environment.profile import PROFILES
from repro.training import choose_device

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
    record_claims(own, CLAIMS)
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


def verify_on_a_new_machine(there: FakedMachine, name: str) -> None:
    """The verdict, in the words that a person needs there."""
    done = there.run("repro", "verify")
    assert (done.returncode, last_line(done.stdout)) == (0, "EQUIVALENT"), done.stdout + done.stderr
    for words in (
        "conditions code, config, data, lock, packages: as recorded",
        f"bits       recorded on {PORTABLE_CLASS}\n",
        f"not compared: this is {name}",
        "the value was compared and not the bits: it lies inside the interval",
        "to compare bits here, too: make record",
        "beside the recorded ones, which stay as they are",
    ):
        assert words in done.stdout


def test_a_mac_is_equivalent(clone: Project, tmp_path: Path) -> None:
    there = FakedMachine(clone, MAC, tmp_path)
    verify_on_a_new_machine(there, MAC_CLASS)
    (line,) = faults(there.run("repro", "verify", "--prefix", "2"))
    assert "verify the whole, without --quick, --prefix and --segments" in line


def test_a_new_machine_is_equivalent_then_added_then_identical(
    clone: Project, tmp_path: Path
) -> None:
    there = FakedMachine(clone, ARM_SERVER, tmp_path)
    name = ARM_CLASS
    verify_on_a_new_machine(there, name)

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
    assert "learning_rate is 0.004, recorded 0.003" in done.stdout
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


def test_the_portable_variables_of_make_or_an_image_are_taken_back_there(
    clone: Project, tmp_path: Path
) -> None:
    """The command starts anew without them, and they are in no condition."""
    done = FakedMachine(clone, ARM_SERVER, tmp_path).run(
        "experiment.train", "--conditions", **PORTABLE
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(last_line(done.stdout))
    assert told["hardware_class"] == ARM_CLASS
    assert told["conditions"]["environment"] == {**PROFILES["native"], "profile": "native"}


def test_no_variable_makes_another_machine_of_this_one(clone: Project) -> None:
    """Unlike the hook, which is a file that `doctor` and `verify` see."""
    done = clone.module("experiment.train", "--conditions", REPRO_MACHINE="aarch64")
    assert json.loads(last_line(done.stdout))["hardware_class"] == PORTABLE_CLASS


@pytest.mark.parametrize("task", ["images", "text", "table"])
def test_a_training_on_a_mac_has_the_same_bits_with_workers(task: str, tmp_path: Path) -> None:
    """They start anew there: each task's data set and collate go to them by pickle."""
    mac = FakedMachine(generate(tmp_path / "p", f"task={task}"), MAC, tmp_path)
    found = []
    for workers in (0, 2):
        run = tmp_path / f"with-{workers}"
        settings = ["training.max_steps=2", "output.trace=true", f"num_workers={workers}"]
        done = mac.run("experiment.train", f"run_dir={run}", *settings)
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stderr == ""
        found.append((weights(run), (run / "trace.jsonl").read_bytes()))
    assert found[0] == found[1]
    context = json.loads((tmp_path / "with-2" / "experiment_context.json").read_text())
    assert (context["hardware_class"], context["hardware"]["cpu_features"]) == (MAC_CLASS, [])


def test_apples_gpu_is_refused_with_the_reason(clone: Project) -> None:
    (line,) = faults(clone.module("experiment.train", "device=mps"))
    assert line.startswith("error: device=mps: Apple's GPUs have no float64")
    with pytest.raises(UserError, match="device=mps: Apple's GPUs have no float64"):
        choose_device("mps")


def test_make_takes_the_profile_of_the_machine(clone: Project, tmp_path: Path) -> None:
    """`uname` is faked: what make exports must not be what the project's own tests refuse."""
    for system, profile in (
        ("Linux x86_64", "portable"),
        ("Linux aarch64", "native"),
        ("Darwin arm64", "native"),
    ):
        folder = tmp_path / system
        folder.mkdir()
        (folder / "uname").write_text(f"#!/bin/sh\necho {system}\n")
        (folder / "uname").chmod(0o755)
        show = "--eval=show:\n\t@echo $$REPRO_PROFILE $$MKL_CBWR"
        done = clone.run("make", show, "show", PATH=f"{folder}:{os.environ['PATH']}")
        cbwr = ["COMPATIBLE"] if profile == "portable" else []
        assert done.stdout.split() == [profile, *cbwr]
