"""The tasks that a project may start from beside the images: a text, and a table.

Each trains, stops, resumes and is evaluated with the same bits in any number of workers and
processes, and is better than the baselines that stand beside it.
"""

import ast
import json
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from background import contents
from conftest import IMAGES, PORTABLE, TASKS, Project, faults, generate

MOST_LINES = 250  # of code, in what a task has beside the images' config.py


class Start(NamedTuple):
    """How the tests of a task train it in seconds, and what it measures."""

    short: tuple[str, ...]
    metrics: set[str]


STARTS = {
    "text": Start(
        (
            "training.steps=24",
            "training.warmup_steps=4",
            "training.batch_size=5",
            "evaluation.every=9",
            "evaluation.sampled=20",
            "dataset.validation_fraction=0.005",
            "dataset.test_fraction=0.01",
            "model.width=8",
            "model.depth=1",
            "model.dropout=0.1",
        ),
        {"loss", "bigram_loss"},
    ),
    "table": Start(
        ("training.epochs=3", "training.batch_size=31"),
        {"loss", "mae", "ridge_mae", "mean_mae"},
    ),
}


@pytest.fixture(scope="module", params=STARTS)
def task(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def started(task: str, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project of a task; tests train in it with names of their own."""
    return generate(tmp_path_factory.mktemp(task), f"task={task}")


def train(project: Project, task: str, name: str, *settings: str, processes: int = 1) -> Path:
    """Train a short training of a task to its end; the run's folder."""
    words = ("experiment.train", f"run_dir=runs/{name}", "output.log_every=1")
    done = project.processes(processes, *words, *STARTS[task].short, *settings)
    assert done.returncode == 0, done.stdout + done.stderr
    return project.path / "runs" / name


@pytest.fixture(scope="module")
def one(task: str, started: Project) -> Path:
    return train(started, task, "one")


def evaluated(project: Project, run: Path) -> dict[str, Any]:
    """Evaluate the last checkpoint of a run; its metrics."""
    done = project.module("experiment.evaluate", "--checkpoint", str(run / "checkpoints" / "last"))
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, Any] = json.loads((run / "metrics.json").read_text())
    return found


# Bits ----------------------------------------------------------------------------------------


def of_the_end(run: Path) -> dict[str, bytes]:
    """The numbers of all steps, and the last checkpoint: an earlier one says where to stop."""
    last = (run / "checkpoints" / "last").resolve().name
    logs = ("metrics.jsonl", "trace.jsonl", f"checkpoints/{last}/")
    return {name: data for name, data in contents(run).items() if name.startswith(logs)}


def test_a_stop_and_workers_do_not_change_the_bits(task: str, started: Project, one: Path) -> None:
    assert contents(train(started, task, "workers", "num_workers=2")) == contents(one)
    train(started, task, "stopped", "training.max_steps=13")
    resumed = train(started, task, "stopped", "resume=auto")
    assert of_the_end(resumed) == of_the_end(one)


def test_two_processes_give_the_bits_of_one(task: str, started: Project) -> None:
    settings = ("training.shards=2", "training.max_steps=12")
    alone = train(started, task, "alone", *settings)
    two = train(started, task, "two", *settings, processes=2)
    assert contents(two) == contents(alone)


def test_a_project_passes_its_lint(started: Project, mypy_cache: str) -> None:
    done = started.make("lint", MYPY_CACHE_DIR=mypy_cache)
    assert done.returncode == 0, done.stdout + done.stderr


# What is measured ----------------------------------------------------------------------------


def test_an_evaluation_writes_the_metrics_and_the_details(
    task: str, started: Project, one: Path
) -> None:
    found = evaluated(started, one)
    assert {name for name, value in found.items() if isinstance(value, float)} == STARTS[
        task
    ].metrics
    if task == "text":
        assert len(found["sampled_text"]) == 20
        assert found["characters"] % 64 == 0
    else:
        assert found["samples"] == 88
    assert evaluated(started, one) == found


LOADED = """
import torch
from repro.tasks import load_task

task = load_task("runs/one/checkpoints/last")
with torch.no_grad():
"""
PREDICTIONS = {
    # 97 characters; a text that goes on where the context ends.
    "text": """
    print(tuple(task.model(torch.zeros(2, 64, dtype=torch.int64)).shape))
    print(len(task.sample(70)))
""",
    # A patient as measured: the first of the study.
    "table": """
    patient = torch.tensor([[59.0, 2, 32.1, 101, 157, 93.2, 38, 4, 4.8598, 87]])
    print(tuple(task.model.predict(patient).shape))
    print(25 < task.model.predict(patient).item() < 346)
""",
}
PREDICTED = {"text": "(2, 64, 97)\n70\n", "table": "(1,)\nTrue\n"}


def test_a_loaded_task_predicts(task: str, started: Project, one: Path) -> None:
    assert one.is_dir()
    done = started.run("python", "-c", LOADED + PREDICTIONS[task].lstrip("\n"), **PORTABLE)
    assert (done.returncode, done.stdout) == (0, PREDICTED[task]), done.stderr


SPLIT = """
from pathlib import Path

import torch
from experiment import ROOT
from experiment.config import LOADER
from experiment.data import datasets
from repro.tasks.author import preparation
from repro.training.seeding import seed_generators
from safetensors.torch import load_file

config = LOADER.load([])
prepared = preparation(ROOT, config).read()
parts = datasets(config, prepared.folder, prepared.facts)
"""
# Each file is in one part as a whole; each row, too.
OF_PARTS = {
    "text": """
everything = load_file(prepared.folder / "data.safetensors")
files = everything["characters"].split(everything["lengths"].tolist())
whole = {name: bytes(part.text.tolist()) for name, part in parts.items()}
found = [[bytes(file.tolist()) in text for text in whole.values()] for file in files]
assert sum(map(len, whole.values())) == everything["lengths"].sum()
assert all(map(any, found))
train = parts["train"]
seed_generators(1)
starts = train.batch(1, 0)
assert len(set(starts)) == config.training.batch_size and max(starts) < len(train)
assert bytes(train[starts[0]].tolist()) == whole["train"][starts[0] :][: config.model.context + 1]
test = parts["test"]
rest = len(test.text) - 1 - len(test) * config.model.context
assert 0 <= rest < config.model.context
assert test[0][-1] == test[1][0]
print(len(parts["train"]) > 3_000_000)
""",
    "table": """
import numpy
everything = numpy.loadtxt(prepared.folder / "table.csv", delimiter=",", skiprows=1)
rows = [part.inputs for part in parts.values()]
inputs = torch.from_numpy(everything[:, :-1]).float()
assert sorted(torch.cat(rows).tolist()) == sorted(inputs.tolist())
state = load_file("runs/one/checkpoints/last/tensors.safetensors")
(mean,) = [tensor for name, tensor in state.items() if name.endswith("model.mean")]
assert torch.equal(mean, parts["train"].inputs.mean(0))
print([len(part) for part in parts.values()] == [266, 88, 88])
""",
}


def test_the_parts_share_no_file_and_no_row(task: str, started: Project, one: Path) -> None:
    assert one.is_dir()
    done = started.run("python", "-c", SPLIT + OF_PARTS[task], **PORTABLE)
    assert (done.returncode, done.stdout) == (0, "True\n"), done.stderr


# What is not needed --------------------------------------------------------------------------

WITHOUT = """
import runpy, sys

for name in {missing}:
    sys.modules[name] = None
sys.argv[1:] = {arguments}
runpy.run_module("{module}", run_name="__main__", alter_sys=True)
"""


def without(project: Project, missing: list[str], module: str, *arguments: str) -> None:
    """Run a module where others cannot be imported."""
    code = WITHOUT.format(missing=missing, module=module, arguments=[*arguments])
    done = project.run("python", "-c", code, **PORTABLE)
    assert done.returncode == 0, done.stdout + done.stderr


def test_no_package_for_images_is_needed(task: str, started: Project, tmp_path: Path) -> None:
    """matplotlib draws the curves of an evaluation, and needs Pillow: a training needs neither."""
    images = ["torchvision", "PIL", "matplotlib"]
    data = f"data_dir={tmp_path / 'data'}"
    run = f"run_dir={tmp_path / 'run'}"
    without(started, images, "experiment.prepare", data)
    without(started, images, "experiment.train", data, run, *STARTS[task].short)
    checkpoint = str(tmp_path / "run" / "checkpoints" / "last")
    without(started, ["torchvision"], "experiment.evaluate", "--checkpoint", checkpoint)


def test_another_version_of_the_data_is_refused(
    task: str, started: Project, tmp_path: Path
) -> None:
    """What lies in the wheel is known by its SHA-256; data that were changed are named."""
    own = started.copy(tmp_path / "own")
    text = (own.path / "experiment" / "data.py").read_text()
    digest = {"text": "b1d98905", "table": "8e53f65e"}[task]
    (own.path / "experiment" / "data.py").write_text(text.replace(digest, "00000000"))
    (line,) = faults(own.train(*STARTS[task].short))
    assert digest in line
    assert "install" in line


# Results -------------------------------------------------------------------------------------


def lines_of(text: str) -> list[str]:
    """The lines of code: without docstrings, comments and blanks."""
    documented: set[int] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(
            node
        ):
            first = node.body[0]
            documented |= {*range(first.lineno, (first.end_lineno or 0) + 1)}
    return [
        line
        for number, line in enumerate(text.splitlines(), 1)
        if number not in documented and line.strip() and not line.strip().startswith("#")
    ]


@pytest.mark.long
@pytest.mark.parametrize("seed", [42, 43])
def test_the_defaults_are_better_than_the_baselines(task: str, started: Project, seed: int) -> None:
    done = started.train(f"run_dir=runs/seed-{seed}", f"seed={seed}")
    assert done.returncode == 0, done.stderr
    run = started.path / "runs" / f"seed-{seed}"
    found = evaluated(started, run)
    print(task, seed, {name: found[name] for name in sorted(STARTS[task].metrics)})
    if task == "text":
        assert found["loss"] < 0.85 * found["bigram_loss"]
        assert "def " in found["sampled_text"] or "    " in found["sampled_text"]
    else:
        assert found["mae"] < 0.75 * found["mean_mae"]


@pytest.mark.parametrize("name", STARTS)
def test_a_task_is_short(name: str) -> None:
    own = TASKS / name / "experiment"
    images = lines_of((IMAGES / "experiment" / "config.py").read_text())
    count = sum(line not in images for line in lines_of((own / "config.py").read_text()))
    for part in ("data", "model", "task"):
        count += len(lines_of((own / f"{part}.py").read_text()))
    assert count <= MOST_LINES
