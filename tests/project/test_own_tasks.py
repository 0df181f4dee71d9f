"""Tasks of an author's own, by the real commands: steps without epochs, patience, batches that the
data set chooses, samples of any shape, and what a step changes behind the kit's back.
"""

import json
import re
import shutil
from pathlib import Path

import pytest
from background import contents
from conftest import ROOT, Project, faults

TASKS = ROOT / "tests" / "data" / "tasks"
CLASSES = {"windows": "Language", "buckets": "Rising", "boxes": "Finder"}
BY_STEPS = ("training.steps=24", "training.epochs=null", "training.warmup_epochs=0.0")
SETTINGS = ("output.log_every=1", "output.keep_checkpoints=9", "evaluation.every=7")
SMALL = ("model.width=8", *BY_STEPS, *SETTINGS)  # of the template's own task


def train(project: Project, name: str, *settings: str, processes: int = 1) -> dict[str, bytes]:
    """Train in runs/<name>; every byte that must be the same."""
    words = ("experiment.train", f"run_dir=runs/{name}", *settings)
    done = project.processes(processes, *words)
    assert done.returncode == 0, done.stdout + done.stderr
    return contents(project.path / "runs" / name)


def log(project: Project, name: str) -> list[dict[str, float]]:
    lines = (project.path / "runs" / name / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def state(project: Project, name: str) -> dict[str, object]:
    path = project.path / "runs" / name / "checkpoints" / "last" / "state.json"
    return {**json.loads(path.read_text())}


def same_after(stop: int, one: dict[str, bytes], other: dict[str, bytes]) -> bool:
    """Compare all but the checkpoints up to a stop, whose configs say where the training ends."""

    def kept(files: dict[str, bytes]) -> dict[str, bytes]:
        steps = {name: re.match(r"checkpoints/step-(\d+)/", name) for name in files}
        return {
            name: files[name] for name, step in steps.items() if not step or int(step[1]) > stop
        }

    assert any("checkpoints/step-" in name for name in kept(one))
    return kept(other) == kept(one)


# The template's own task -----------------------------------------------------------------------


def test_a_training_of_steps_that_is_stopped_goes_on_with_the_same_bits(project: Project) -> None:
    one = train(project, "steps", *SMALL)
    validated = [line["step"] for line in log(project, "steps") if "split" in line]
    assert validated == [7, 14, 21, 24]
    train(project, "stopped-steps", *SMALL, "training.max_steps=10")
    again = train(project, "stopped-steps", *SMALL, "resume=auto", "num_workers=1")
    assert same_after(10, one, again)
    assert state(project, "stopped-steps")["finished"] == "steps"


IMPATIENT = ("training.epochs=40", "training.patience=2", "optimizer.learning_rate=0.05")
IMPATIENT = ("model.width=8", "evaluation.every=5", "output.log_every=1", *IMPATIENT)


def test_a_training_without_patience_ends_early_and_resumed_has_the_same_bits(
    project: Project,
) -> None:
    one = train(project, "patient", *IMPATIENT)
    assert state(project, "patient")["finished"] == "early"
    scores = {line["step"]: line["accuracy"] for line in log(project, "patient") if "split" in line}
    end = max(scores)
    assert end < 40 * 21
    best = max(scores, key=lambda step: scores[step])  # the first of equal ones
    assert end == best + 10
    # Before, between and after the validations that count, and at the end itself.
    for stop in (end - 7, end - 5, end - 1, end):
        name = f"patient-{stop}"
        train(project, name, *IMPATIENT, f"training.max_steps={stop}")
        again = train(project, name, *IMPATIENT, "resume=auto")
        assert state(project, name)["finished"] == "early"
        last = f"checkpoints/step-{end:09d}/tensors.safetensors"
        for file in ("metrics.jsonl", "trace.jsonl", last):
            assert again[file] == one[file], (stop, file)
    done = project.train("run_dir=runs/patient", *IMPATIENT, "resume=auto")
    assert f"has done {end} steps: nothing is left to train" in done.stdout


def test_patience_without_a_validation_is_refused_before_the_first_step(
    own_project: Project,
) -> None:
    task, best = "experiment/task.py", '    best = ("accuracy", "max")\n'
    own_project.edit(task, best, "")
    (line,) = faults(own_project.train("training.patience=3"))
    assert "training.patience=3 counts validations without a better one: expected Class" in line
    own_project.edit(task, "    def initialize(", '    validate_on = "dev"\n\n    def initialize(')
    (line,) = faults(own_project.train())
    told = (
        "error: there is no data set dev: datasets() returns test, validation, train; the task's "
    )
    assert line == f"{told}validate_on and test_on name those that it takes"
    assert not (own_project.path / "runs").exists()


CHANGES = {
    "self.mean of Classifier changes in a step and is in no checkpoint": (
        "self.mean = torch.zeros(2)",
        "self.mean += 1",
    ),
    "self.seen of Classifier changes in a step and is in no checkpoint": (
        "self.seen = 0",
        "self.seen += len(images)",
    ),
    "self.last of Classifier changes in a step and is in no checkpoint": (
        "self.last = None",
        "self.last = logits.detach().mean(0)",
    ),
    "self.average of Classifier": (
        "self.average = torch.nn.Linear(1, 1)",
        "self.average.weight.data += 1",
    ),
}


@pytest.mark.parametrize("told", CHANGES)
def test_what_a_step_changes_in_a_task_is_refused_by_its_name(
    own_project: Project, told: str
) -> None:
    made, changed = CHANGES[told]
    task, config = "experiment/task.py", "        self.config = config\n"
    own_project.edit(task, config, f"{config}        {made}\n")
    total = "        total = functional.cross_entropy("
    own_project.edit(task, total, f"        {changed}\n{total}")
    lines = faults(own_project.train(*SMALL, "run_dir=runs/one"))
    assert any(line.startswith(f"error: {told}") for line in lines), lines
    assert not list(own_project.path.glob("runs/one/checkpoints/step-*"))


STATEFUL = '''

class Scale:
    """A number that follows the loss, as an object with a state."""

    def __init__(self) -> None:
        self.value = torch.ones(1)

    def state_dict(self) -> dict[str, Any]:
        return {"value": self.value}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.value = state["value"]


class Classifier(Task):'''


def test_what_a_step_changes_and_the_task_registers_is_resumed(own_project: Project) -> None:
    task, config = "experiment/task.py", "        self.config = config\n"
    own_project.edit(task, "\n\nclass Classifier(Task):", STATEFUL)
    own_project.edit(task, config, f"{config}        self.scale = Scale()\n")
    state = '    def state(self) -> Any:\n        return {"scale": self.scale}\n\n'
    own_project.edit(task, "    def loss(", f"{state}    def loss(")
    total = "        total = functional.cross_entropy("
    follows = "self.scale.value = 0.9 * self.scale.value + 0.2 * logits.detach().abs().mean()"
    own_project.edit(
        task, total, f"        {follows}\n        logits = logits * self.scale.value\n{total}"
    )
    one = train(own_project, "one", *SMALL)
    train(own_project, "two", *SMALL, "training.max_steps=9")
    assert same_after(9, one, train(own_project, "two", *SMALL, "resume=auto"))


STEPS_THAT_ARE_NONE = {
    "train_step returned norm: expected a number called loss, too": '{"norm": 1.0}',
    "train_step: loss is a tensor [2]: expected one number": '{"loss": torch.ones(2)}',
    "train_step returned None: expected numbers by name": "None",
    "train_step returned learning_rate, which the kit tells by itself": (
        '{"loss": 1.0, "learning_rate": 1.0}'
    ),
    "step 1 is done, and nobody asked for its batch": '{"loss": 1.0}',
}


@pytest.mark.parametrize("told", STEPS_THAT_ARE_NONE)
def test_a_step_that_returns_no_numbers_is_one_line(own_project: Project, told: str) -> None:
    returned = f"    def train_step(self, step):\n        return {STEPS_THAT_ARE_NONE[told]}\n\n"
    own_project.edit("experiment/task.py", "    def loss(", f"{returned}    def loss(")
    (line,) = faults(own_project.train(*SMALL))
    assert told in line


def test_an_optimizer_with_other_bits_on_other_cpus_is_refused(own_project: Project) -> None:
    own_project.edit("experiment/task.py", "fused=True", "fused=False")
    (line,) = faults(own_project.train(*SMALL))
    assert "the optimizer model is AdamW without fused=True: with profile=portable" in line
    done = own_project.train(*SMALL, "profile=native", "training.max_steps=1")
    assert done.returncode == 0, done.stderr


# Tasks of an author's own ----------------------------------------------------------------------


def with_task(project: Project, folder: Path, name: str) -> Project:
    """A copy of the project that has a task and data of tests/data/tasks/ instead of its own."""
    found = project.copy(folder / name)
    for module in ("task", "data", "images", "samples", "sources", "metrics", "model"):
        (found.path / "experiment" / f"{module}.py").unlink()
    shutil.copy(TASKS / f"{name}.py", found.path / "experiment")
    found.edit("pyproject.toml", "experiment.task:Classifier", f"experiment.{name}:{CLASSES[name]}")
    found.edit("pyproject.toml", 'data = "experiment.data"', f'data = "experiment.{name}"')
    return found


@pytest.fixture(scope="module", params=CLASSES)
def tasked(
    project: Project, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Project:
    """A project with a task of an author's own; no test changes it."""
    return with_task(project, tmp_path_factory.mktemp("tasked"), request.param)


def settings_of(project: Project) -> tuple[str, ...]:
    size = "training.batch_size=10"
    return (*BY_STEPS, *SETTINGS, size, "training.shards=2", "evaluation.batch_size=6")


def test_an_own_task_has_the_same_bits_with_workers_processes_and_a_resume(tasked: Project) -> None:
    settings = settings_of(tasked)
    one = train(tasked, "one", *settings)
    assert len([name for name in one if name.startswith("checkpoints/step-")]) > 6
    assert [line["step"] for line in log(tasked, "one") if "split" in line] == [7, 14, 21, 24]
    assert train(tasked, "workers", *settings, "num_workers=2") == one
    assert train(tasked, "two", *settings, processes=2) == one
    train(tasked, "stopped", *settings, "training.max_steps=10", processes=2)
    again = train(tasked, "stopped", *settings, "resume=auto", "num_workers=1")
    assert same_after(10, one, again)
    losses = [line["loss"] for line in log(tasked, "one") if "split" not in line]
    assert sum(losses[-5:]) < sum(losses[:5])


def test_an_own_task_is_evaluated_audited_and_replayed(tasked: Project) -> None:
    train(tasked, "known", *settings_of(tasked))
    checkpoint = "runs/known/checkpoints/last"
    done = tasked.module("experiment.evaluate", "--checkpoint", checkpoint)
    assert done.returncode == 0, done.stderr
    metrics = json.loads((tasked.path / "runs/known/metrics.json").read_text())
    assert {"loss", "right", "distance"} & metrics.keys()
    assert metrics["step"] == 24
    done = tasked.module("repro", "audit", *settings_of(tasked), "--json")
    told = json.loads(done.stdout)
    assert (told["evaluated"], told["sums"]) == (True, []), told
    done = tasked.module("repro", "trace-step", "runs/known", "--step", "9")
    assert done.returncode == 0, done.stderr
    assert json.loads((tasked.path / "runs/known/step-9.json").read_text())["parted"] is None


LOADS = """
import sys
from experiment import ROOT
from repro.tasks import load_task

task = load_task(sys.argv[1], ROOT)
print(type(task).__name__, task.model.training, {p.device.type for p in task.model.parameters()})
if len(sys.argv) > 2:
    from repro.training.model_state import weights_digest

    print(weights_digest(task.model.state_dict()))
"""


def test_a_task_is_loaded_in_a_script_without_its_data(tasked: Project, tmp_path: Path) -> None:
    found = tasked.copy(tmp_path / "copy")
    trained = found.train("run_dir=runs/one", *settings_of(found), "training.max_steps=3")
    assert trained.returncode == 0, trained.stderr
    shutil.rmtree(found.path / "data")
    checkpoint = found.path / "runs/one/checkpoints/last"
    done = found.run("python", "-c", LOADS, str(checkpoint), "bits")
    name = CLASSES[found_task(found)]
    first, bits = done.stdout.splitlines()[-2:]
    assert first == f"{name} False {{'cpu'}}", done.stderr
    assert bits == re.findall(r"bits (\w{64})", trained.stdout)[-1]
    assert not (found.path / "data").exists()
    # Not in its run: the facts are those of the data, which are prepared again.
    alone = shutil.copytree(checkpoint, tmp_path / "alone")
    done = found.run("python", "-c", LOADS, str(alone), "bits")
    assert done.stdout.splitlines()[-1] == bits, done.stderr
    done = found.run("python", "-c", LOADS, str(tmp_path / "nowhere"))
    assert "UserError" in last_error(done.stderr)


def last_error(text: str) -> str:
    return text.rstrip().rpartition("\n")[2]


def found_task(project: Project) -> str:
    (name,) = (name for name in CLASSES if (project.path / "experiment" / f"{name}.py").is_file())
    return name


# Faults of an author's data set, in one and in two processes ------------------------------------


@pytest.mark.parametrize(
    ("name", "old", "new", "told"),
    [
        (
            "windows",
            "torch.randint(len(self), (10,))",
            "torch.randint(len(self), (10,)) * 0 + len(self)",
            "step 1 has the sample 788: indices end before 788, the number of samples",
        ),
        (
            "buckets",
            "return [batches[place] for place in torch.randperm(len(batches))]",
            "return [batches[place] for place in torch.randperm(len(batches) - epoch)]",
            "there are 8 batches of epoch 2: expected 9, as many in each epoch",
        ),
        (
            "buckets",
            '"right": (logits > 0) == batch["labels"].bool(), ',
            '"right": ((logits > 0) == batch["labels"].bool())[:1], ',
            "evaluate(batch) gave 2 rows right for 12 samples: expected one for each",
        ),
        (
            "boxes",
            'rows={"distances": near, "found": self.found(images)}',
            'counts={"near": torch.ones(1)}',
            "evaluate(batch): the count near is torch.float32: expected a whole number",
        ),
    ],
)
@pytest.mark.parametrize("processes", [1, 2])
def test_a_fault_of_an_own_task_is_one_line(
    project: Project, tmp_path: Path, name: str, old: str, new: str, told: str, processes: int
) -> None:
    found = with_task(project, tmp_path, name)
    found.edit(f"experiment/{name}.py", old, new)
    settings = (*settings_of(found), "num_workers=1")
    done = found.processes(processes, "experiment.train", *settings)
    assert done.returncode == 2, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert "Traceback" not in done.stderr
    if processes == 1 and "gave 2 rows" in told:
        told = told.replace("2 rows right for 12", "4 rows right for 20")
    assert any(told in line for line in lines), done.stderr


def test_a_training_of_epochs_is_refused_where_there_are_none(
    project: Project, tmp_path: Path
) -> None:
    found = with_task(project, tmp_path, "windows")
    (line,) = faults(found.train("training.epochs=3"))
    assert "batch(seed, step) has no epochs: expected steps=N (training.steps=N " in line


METRICS = 'return {"loss": loss, "accuracy": accuracy_of(confusion)}'


def test_a_best_metric_that_is_no_number_is_told_at_the_first_validation(
    own_project: Project,
) -> None:
    own_project.edit(
        "experiment/task.py", METRICS, 'return {"loss": loss, "accuracy": float("nan")}'
    )
    done = own_project.train("run_dir=runs/x", *SMALL)
    assert done.returncode == 0, done.stderr
    told = "warning: accuracy is nan: no best is kept until it is a number"
    assert done.stdout.count(told) == 1
