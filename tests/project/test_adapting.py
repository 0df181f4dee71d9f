"""docs/adapting.md: each step is applied to a project, which is then checked and trained."""

import json
import math
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass

import pytest
from conftest import ROOT, Project, last_line

sys.path.insert(0, str(ROOT / "tools"))

import methods

PAGE = methods.PAGE.read_text()
FRAMEWORKS = ROOT / ".build" / "frameworks"  # transformers is there alone
TRANSFORMERS = "A model of transformers"
ANOTHER = "Another task"
SHORT = (
    *("training.max_steps=6", "output.log_every=1", "evaluation.every=3"),
    *("training.shards=2", "training.batch_size=16"),
)


@dataclass(frozen=True)
class Step:
    """A section of the page: what an author does, and the settings to train with."""

    text: str
    settings: list[str]

    def apply(self, project: Project) -> None:
        """Do what the section says, after the step that it starts from."""
        if f"starts from the project of [{ANOTHER}]" in self.text:
            STEPS[ANOTHER].apply(project)
        for commands in re.findall(r"(?ms)^```bash\n(rm .*?)^```", self.text):
            subprocess.run(["sh", "-e", "-c", commands], cwd=project.path, check=True)
        written = r"(?ms)^`(experiment/\w+\.py)`:\n\n```python\n(.*?)^```"
        for name, content in re.findall(written, self.text):
            (project.path / name).write_text(content)
        for patch in re.findall(r"(?ms)^```diff\n(.*?)^```", self.text):
            command = ["git", "apply", "-"]
            subprocess.run(command, cwd=project.path, input=patch, text=True, check=True)


def steps() -> dict[str, Step]:
    """The sections of the page that say how to train with them."""
    found = {}
    for section in re.split("(?m)^## ", PAGE)[1:]:
        title = section.partition("\n")[0]
        if trained := re.search(
            r"(?m)^Train with it: `python -m experiment\.train ?(.*?)`", section
        ):
            found[title] = Step(section, trained[1].split())
    return found


STEPS = steps()
IN_MAKE_TEST = [title for title in STEPS if title != TRANSFORMERS]


def test_the_page_has_its_steps() -> None:
    assert list(STEPS) == [
        "A data set",
        "A model",
        "A loss and a metric",
        "A setting",
        "Learning rates",
        "Which samples a step takes",
        TRANSFORMERS,
        ANOTHER,
        "Segmentation",
        "Sequences of different lengths",
        "Large data",
        "Two networks with two optimizers",
        "An average of the weights, and a diffusion model",
    ]
    assert PAGE.count("```diff") == len(STEPS)


def test_the_list_of_methods_is_that_of_the_kit() -> None:
    renewed = methods.written(PAGE)
    assert renewed == PAGE, "run .build/venv/bin/python tools/methods.py"
    assert "`loss(batch) -> Weighted`: **Must be there.**" in renewed


def answer(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def files(project: Project, name: str) -> dict[str, bytes]:
    """What must be equal byte for byte: metrics, trace, all of the last checkpoint."""
    run = project.path / "runs" / name
    last = run / "checkpoints" / "last"
    paths = [run / "metrics.jsonl", run / "trace.jsonl", *sorted(last.iterdir())]
    return {path.name: path.read_bytes() for path in paths}


def train_and_evaluate(project: Project, settings: list[str]) -> None:
    """In one go; in two processes, stopped, and on in one with two workers; then the metrics."""
    one = ("experiment.train", "run_dir=runs/one", *SHORT, *settings)
    two = ("experiment.train", "run_dir=runs/two", *SHORT, *settings)
    answer(project.module(*one))
    answer(project.processes(2, *two, "training.max_steps=4"))
    assert "resuming after step 4" in answer(project.module(*two, "num_workers=2", "resume=auto"))
    assert files(project, "two") == files(project, "one")
    last = "runs/two/checkpoints/last"
    answer(project.module("experiment.evaluate", "--checkpoint", last))
    claims = (project.path / "configs" / "claims.yaml").read_text()
    (metric,) = re.findall(r"(?m)^  metric: (\w+)", claims)
    assert math.isfinite(json.loads((project.path / "runs/two/metrics.json").read_text())[metric])


@pytest.mark.parametrize("title", IN_MAKE_TEST)
def test_each_step_of_adapting_works(own_project: Project, title: str, mypy_cache: str) -> None:
    STEPS[title].apply(own_project)
    answer(own_project.make("lint", MYPY_CACHE_DIR=mypy_cache))
    train_and_evaluate(own_project, STEPS[title].settings)


def test_a_changed_project_is_not_the_recorded_one(own_project: Project) -> None:
    STEPS["A setting"].apply(own_project)
    done = own_project.module("repro", "verify")
    assert done.returncode != 0
    assert "conditions differ" in done.stdout


def test_patience_ends_a_training(own_project: Project) -> None:
    """Also one that was stopped and resumed in between; nothing is left to train then."""
    settings = ["evaluation.every=1", "training.patience=2", "optimizer.learning_rate=1e-12"]
    command = ("experiment.train", *settings, "output.log_every=1", "training.batch_size=16")
    assert "step 3/" in answer(own_project.module(*command, "run_dir=runs/one"))
    answer(own_project.module(*command, "run_dir=runs/two", "training.max_steps=2"))
    answer(own_project.module(*command, "run_dir=runs/two", "resume=auto"))
    assert files(own_project, "two") == files(own_project, "one")
    again = own_project.module(*command, "run_dir=runs/two", "resume=auto")
    assert "nothing is left to train" in answer(again)


def test_a_notebook_loads_the_task_of_a_run(own_project: Project) -> None:
    (snippet,) = re.findall(r"(?s)## In a notebook.*?```python\n(.*?)```", PAGE)
    answer(own_project.train("training.max_steps=2"))
    shutil.rmtree(own_project.path / "data")  # it is not needed
    (own_project.path / "notebook.py").write_text(snippet)
    done = own_project.run("python", "notebook.py", PYTHONPATH=str(own_project.path))
    assert re.fullmatch(r"tensor\(\[\[(\d\.\d+,?\s*){10}\]\]\)", answer(done).strip())


@pytest.mark.long
def test_a_model_of_transformers_with_its_lock_and_weights(
    own_project: Project, mypy_cache: str
) -> None:
    """`make lock` finds the packages; weights of a file are taken, and known by their SHA-256."""
    step = STEPS[TRANSFORMERS]
    step.apply(own_project)
    answer(own_project.make("lock"))
    assert "\ntransformers==" in (own_project.path / "requirements.lock").read_text()
    project = Project(own_project.path, FRAMEWORKS)
    answer(project.make("lint", MYPY_CACHE_DIR=mypy_cache))
    train_and_evaluate(project, step.settings)
    (project.path / "save.py").write_text(SAVE)
    digest = answer(project.run("python", "save.py", PYTHONPATH=str(project.path))).strip()
    given = (*step.settings, f"model.weights_sha256={digest}", "training.max_steps=1")
    done = project.train(*given, "weights=weights.safetensors")
    assert "40 tensors; random: none" in answer(done)
    (project.path / "weights.safetensors").write_bytes(b"other")
    done = project.train(*given, "weights=weights.safetensors")
    assert done.returncode == 2
    assert f"expected SHA-256 {digest}" in last_line(done.stderr)


SAVE = """
from pathlib import Path
from safetensors.torch import save_file
from repro.core.hashing import sha256_file
from repro.tasks import load_task

task = load_task("runs/one/checkpoints/last")
save_file(task.model.network.state_dict(), "weights.safetensors")
print(sha256_file(Path("weights.safetensors")))
"""


@pytest.mark.long
@pytest.mark.parametrize("title", IN_MAKE_TEST)
def test_a_project_with_a_step_passes_all_its_tests(own_project: Project, title: str) -> None:
    step = STEPS[title]
    step.apply(own_project)
    group, _, choice = (step.settings or ["seed=42"])[0].partition("=")
    if group in ("dataset", "model"):  # make it the default
        old = {"dataset": "digits", "model": "small_cnn"}[group]
        own_project.edit("configs/config.yaml", f"  - {group}: {old}", f"  - {group}: {choice}")
    answer(own_project.make("test"))
