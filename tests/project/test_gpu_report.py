"""`make test-gpu` with the GPU faked: what it prints, when it ends, what it leaves."""

import re
import subprocess
from pathlib import Path

import pytest
from conftest import ROOT, TEMPLATE, Project

# A GPU that is none: trainings write the same files at once, and programs end well.
FAKES = """
import time
import torch
import gpu_report


def pytest_collection_finish(session):  # on a busy machine what comes before takes long
    plugin = session.config.pluginmanager.get_plugin("gpu-report")
    plugin.ends = time.monotonic() + 10**6


def pytest_runtest_setup(item):
    plugin = item.config.pluginmanager.get_plugin("gpu-report")
    if item.name == "test_takes_for_ever":
        plugin.ends = time.monotonic() + float(item.config.getini("gpu_seconds"))


torch.cuda.is_available = lambda: True
torch.cuda.get_device_capability = lambda: (8, 0)
gpu_report.gpu = lambda: "Fake GPU, driver 1.2, torch 9.9"
gpu_report.SPARE = 0.0


def train(self, name, *settings, **_):
    for path in (METRICS, TRACE, f"{CHECKPOINTS}/{LAST}/state.json"):
        (self.folder / name / path).parent.mkdir(parents=True, exist_ok=True)
        (self.folder / name / path).write_text("the same")
    return self.folder / name


Commands.train = train
told = subprocess.CompletedProcess([], 0, "ratio 1.02\\n", "")
Commands.run = Commands.script = lambda *_, **__: told
"""
SLOW = """
import subprocess, sys
import pytest
from pathlib import Path
pytestmark = pytest.mark.gpu


def test_quick(record_property):
    record_property("trace", "1.04")


@pytest.mark.parametrize("case", [1, 2])
def test_fails_once(case):
    assert case == 1


def test_takes_for_ever():
    Path("started").touch()
    code = f"import time; time.sleep(98765)  # {Path.cwd()}"
    subprocess.run([sys.executable, "-c", code])


@pytest.mark.parametrize("case", ["a", "b"])
def test_behind_it(case):
    Path("never").touch()
"""


@pytest.fixture
def faked(own_project: Project) -> Project:
    conftest = own_project.path / "tests" / "conftest.py"
    conftest.write_text(f"{conftest.read_text()}{FAKES}")
    return own_project


def paths(project: Project) -> set[Path]:
    return set(project.path.rglob("*"))


def test_every_test_of_the_gpu_gets_a_line(faked: Project, tmp_path: Path) -> None:
    before = paths(faked)
    (tmp_path / "tmp").mkdir()
    done = faked.make("test-gpu", TMPDIR=str(tmp_path / "tmp"))
    assert "Fake GPU, driver 1.2, torch 9.9" in done.stdout, done.stdout + done.stderr
    told = set(re.findall(r"(?m)^\| `(test_\w+)` \| .* \| Fake GPU, driver 1.2, ", done.stdout))
    text = (faked.path / "tests" / "test_gpu.py").read_text()
    assert told == set(re.findall(r"(?m)^def (test_\w+)", text))
    assert "| `test_twice_on_a_gpu` | 1 passed in " in done.stdout
    assert "| small_cnn with the trace 1.02; resnet18 with the trace 1.02 |" in done.stdout
    assert paths(faked) == before
    assert list((tmp_path / "tmp").iterdir()) == []


# The CPU taken for a GPU: what the tests do, and not what only a GPU can show.
ON_CPU = {
    "device=cuda": "device=cpu",
    "device='cuda'": "device='cpu'",
    "torch.cuda.set_sync_debug_mode(": "str(",
    "torch.cuda.synchronize()": "None",
    "session = Checked(": (
        '__import__("repro.training.pending").training.pending.LATE_ON.add("cpu")\n'
        "session = Checked("
    ),
}
SEEN = """
import torch
import gpu_report

gpu_report.gpu = lambda: "a CPU"
torch.cuda.is_available = lambda: True
torch.cuda.get_device_capability = lambda: (7, 5)
"""


def test_what_the_tests_of_the_gpu_do_passes_on_a_cpu(own_project: Project) -> None:
    """No GPU has run these, so they would not be known to be right in themselves."""
    tests = own_project.path / "tests"
    text = (tests / "test_gpu.py").read_text()
    for of_gpu, of_cpu in ON_CPU.items():
        assert of_gpu in text
        text = text.replace(of_gpu, of_cpu)
    (tests / "test_gpu.py").write_text(text)
    conftest = tests / "conftest.py"
    conftest.write_text(f"{conftest.read_text()}{SEEN}")
    chosen = "no_step_waits or not_finite or (computed_twice and 4)"
    done = own_project.module("pytest", "-m", "gpu", "-k", chosen, str(tests / "test_gpu.py"))
    assert done.returncode == 0, done.stdout + done.stderr
    rows = re.findall(r"(?m)^\| `test_\w+` \| (\d) passed in ", done.stdout)
    assert rows == ["1", "3", "1"]


def test_what_is_over_time_is_dropped_by_name(faked: Project) -> None:
    """The test that runs is stopped with its command, and those behind it are not begun."""
    (faked.path / "tests" / "test_gpu.py").write_text(SLOW)
    done = faked.make("test-gpu", "ARGS=-o gpu_seconds=4")
    assert done.returncode != 0  # a test failed
    lines = done.stdout.splitlines()
    rows = [line for line in lines if line.startswith("| `test_")]
    assert len(rows) == 4, done.stdout + done.stderr
    assert rows[0].startswith("| `test_quick` | 1 passed in ")
    assert rows[0].endswith("| trace 1.04 |")
    assert rows[1].startswith("| `test_fails_once` | 1 passed, 1 failed in ")
    assert rows[2].startswith("| `test_takes_for_ever` | 1 dropped in ")
    assert rows[3].startswith("| `test_behind_it` | 2 dropped in ")
    dropped = [line.rpartition(": ")[2] for line in lines if line.startswith("dropped, ")]
    assert dropped == ["test_takes_for_ever", "test_behind_it[a]", "test_behind_it[b]"]
    assert (faked.path / "started").is_file()
    assert not (faked.path / "never").exists()
    listed = subprocess.run(["ps", "-ww", "-eo", "args"], capture_output=True, text=True).stdout
    assert f"time.sleep(98765)  # {faked.path}" not in listed


def test_without_a_gpu_it_says_so(own_project: Project) -> None:
    done = own_project.make("test-gpu", CUDA_VISIBLE_DEVICES="")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "finds no GPU here: nothing was run" in done.stdout
    assert "| `test_" not in done.stdout


def test_the_guarantees_say_of_every_test_whether_it_ran_on_this_torch() -> None:
    page = (ROOT / "docs" / "guarantees.md").read_text()
    text = (TEMPLATE / "tests" / "test_gpu.py").read_text()
    rows = dict(re.findall(r"(?m)^\| `(test_\w+)` \| [^|]+ \| ([^|]+) \|[^|]*\|$", page))
    lacking = set(re.findall(r"(?m)^def (test_\w+)", text)) - rows.keys()
    assert not lacking, "add a row to docs/guarantees.md, Tests of the GPU"
    locked = re.search(r"(?m)^torch==(\S+)", (ROOT / "templates/locks/images.lock").read_text())
    assert locked
    version = locked[1].rstrip(" \\")
    for name, where in rows.items():
        assert f"never on torch {version}" in where or f"torch {version}" in where, name
