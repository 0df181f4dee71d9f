"""Where two runs part: faults are planted in a copy of the project, and `repro diff` has to name
the step, the quantity, the operation, the module. Runs and replays are those of the real commands.
"""

from __future__ import annotations

import json
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from conftest import ROOT, Project, faults, weights
from PIL import Image

SHORT = ("device=cpu", "model.width=4", "output.checkpoint_every=4", "output.log_every=1")
TASK, MODEL = "experiment/task.py", "experiment/model.py"
FORWARD = "        logits = self.model(images)\n"
LOSS = "    def loss(self, batch: list[Tensor]) -> Weighted:\n"
# The rest of the loss up to where `logits` are there.
BEGINNING = f'''{LOSS}        """Return the loss of a shard's images, summed, and their number."""
        images, labels = batch
{FORWARD}'''
# A step that the class's own loss can ask for, and that may do more.
STEP = """    at = {"step": 0}

    def train_step(self, step):
        self.at["step"] = step.number
        numbers = super().train_step(step)
"""
RETURN = "        return numbers\n\n"
Edit = tuple[str, str, str]


def train(project: Project, *settings: str, **variables: str) -> Path:
    run = project.path / "runs" / "run"
    settings = (*SHORT, "training.max_steps=9", *settings, f"run_dir={run}")
    done = project.train(*settings, **variables)
    assert done.returncode == 0, done.stderr
    return run


def diff(project: Project, a: Path, b: Path, *options: str) -> dict[str, Any]:
    done = project.module("repro", "diff", str(a), str(b), "--json", *options)
    assert done.returncode in (0, 1), done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    assert done.returncode == (found["step"] is not None or found["metrics"] is not None)
    return found


@pytest.fixture(scope="module")
def unchanged(project: Project, tmp_path_factory: pytest.TempPathFactory) -> tuple[Project, Path]:
    """The project as it is, and a run of it."""
    copy = project.copy(tmp_path_factory.mktemp("unchanged") / "a")
    return copy, train(copy)


def in_step(step: int, code: str) -> Edit:
    """Do something in a step's forward pass, with `logits`, `labels` and `images` at hand."""
    added = f"        if self.at['step'] == {step}:\n            {code}\n"
    return TASK, BEGINNING, f"{STEP}{RETURN}{BEGINNING}{added}"


def after_step(step: int, code: str) -> Edit:
    added = f"        if step.number == {step}:\n            {code}\n"
    return TASK, LOSS, f"{STEP}{added}{RETURN}{LOSS}"


def ulp(tensor: str) -> str:
    return f"torch.nextafter({tensor}, {tensor}.new_tensor(9e9))"


# An operation of the author's own, with a kernel that errs by one ulp where FAULT says so.
WOBBLE = """
FAULT, NOW = None, {"step": 0}


@torch.library.custom_op("author::wobble", mutates_args=())
def wobble(x: Tensor, phase: str) -> Tensor:
    y = x.clone()
    if FAULT == (phase, NOW["step"]):
        y = torch.nextafter(y, y.new_tensor(9e9))
    return y


wobble.register_autograd(lambda context, gradient: (wobble(gradient, "backward"), None))


class Wobble(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return wobble(x, "forward")


def small_cnn("""
OWN_OPERATION = (
    (MODEL, "\ndef small_cnn(", WOBBLE),
    (MODEL, "nn.Linear(size, classes)]", "nn.Linear(size, classes), Wobble()]"),
    (
        TASK,
        LOSS,
        "    def train_step(self, step):\n"
        "        import experiment.model as room\n\n"
        '        room.NOW["step"] = step.number\n'
        f"        return super().train_step(step)\n\n{LOSS}",
    ),
)


@dataclass
class Fault:
    """Changes to both projects and to B's alone, and what must be said of it."""

    edits: tuple[Edit, ...] = ()
    step: int = 6
    quantity: str = "loss"  # or several, of which any is right
    how: str = "operations"
    operation: str = "aten.nextafter"  # of B
    module: str = ""
    phase: str = "forward"
    of: str = ""  # the name of one of its tensors
    both: tuple[Edit, ...] = ()
    settings: tuple[str, ...] = ()  # of both
    repeats: bool = True  # each run by itself


LOSS_OR_LATER = "loss gradients"  # one ulp in the logits may be rounded away in the loss

PLANTED = {
    "an operation of the forward pass errs by one ulp": Fault(
        ((MODEL, "FAULT, NOW = None", 'FAULT, NOW = ("forward", 6)'),),
        quantity=LOSS_OR_LATER,
        how="outputs",
        operation="author.wobble",
        module="14",
        both=OWN_OPERATION,
    ),
    "an operation of the backward pass errs by one ulp": Fault(
        ((MODEL, "FAULT, NOW = None", 'FAULT, NOW = ("backward", 6)'),),
        quantity="gradients",
        how="outputs",
        operation="author.wobble",
        module="14",
        phase="backward",
        both=OWN_OPERATION,
    ),
    "one ulp is added in the forward pass": Fault(
        (in_step(6, f"logits = {ulp('logits')}"),), quantity=LOSS_OR_LATER
    ),
    "one ulp is added in the backward pass": Fault(
        (in_step(6, f"logits.register_hook(lambda g: {ulp('g')})"),),
        quantity="gradients",
        phase="backward",
        module="13",
    ),
    "one ulp is added in the optimizer": Fault(
        (after_step(6, f"p = self.model[13].bias.data; p.copy_({ulp('p')})"),),
        quantity="weights",
        phase="optimizer",
        of="13.bias",
    ),
    "two samples are swapped": Fault(
        (
            (
                "repro/training/sampling.py",
                "            return [SampleKey(epoch, index) for index in indices]\n",
                "            if step == 5:\n"
                "                indices[:2] = indices[1::-1]\n"
                "            return [SampleKey(epoch, index) for index in indices]\n",
            ),
        ),
        quantity="samples",
        how="",
    ),
    "a sample's augmentation has another seed": Fault(
        (
            (
                "repro/training/loading.py",
                "sample_seed(self.seed, epoch, index, occurrence)",
                "sample_seed(self.seed, epoch, index + (index % 50 == 7), occurrence)",
            ),
        ),
        step=1,
        quantity="inputs",
        how="random",
        operation="aten.randint",
        phase="data",
    ),
    "another learning rate from a step on": Fault(
        (
            (
                TASK,
                "        return warmup_and_cosine(step, steps, warmup)\n",
                "        less = 0.9 if step >= 5 else 1\n"
                "        return less * warmup_and_cosine(step, steps, warmup)\n",
            ),
        ),
        quantity="learning_rate",
        how="arguments",
        operation="aten._fused_adamw_",
        phase="optimizer",
    ),
    "a buffer of BatchNorm is changed": Fault(
        (after_step(6, "self.model[1].running_mean.add_(1e-3)"),),
        quantity="buffers",
        operation="aten.add_.Tensor",
        phase="optimizer",
        of="1.running_mean",
    ),
    "dropout draws from a generator that nobody seeded": Fault(
        both=((TASK, FORWARD, f"        torch.seed()\n{FORWARD}"),),
        step=1,
        how="random",
        operation="aten.bernoulli_.float",
        module="12",
        repeats=False,
    ),
    "the time is a seed": Fault(
        both=(
            (
                MODEL,
                "from functools import partial\n",
                "import time\nfrom functools import partial\n",
            ),
            (
                MODEL,
                "    width = settings.width\n    if",
                "    width = settings.width\n    torch.manual_seed(time.time_ns() % 2**31)\n    if",
            ),
        ),
        step=0,
        quantity="weights",
        how="random",
        operation="aten.uniform_",
        phase="start",
        repeats=False,
    ),
    "index_put adds up without deterministic algorithms": Fault(
        both=(
            in_step(
                6,
                "at = torch.arange(400_000); sums = torch.zeros(7); "
                "_ = [sums.index_put_((at % 7,), 1e2 * at.sin(), True) for _ in range(40)]; "
                "logits = logits * (1 + sums.sum() * 1e-3)",
            ),
        ),
        how="outputs",
        operation="aten.index_put_",
        settings=("determinism=off", "threads=2"),
        repeats=False,
    ),
    "the order of a set decides": Fault(
        both=(
            in_step(
                6,
                "import uuid; named = {uuid.uuid4(): p for p in self.model.parameters()}; "
                "norms = [named[name].norm() for name in set(named)]; "
                "logits = logits * (1 + sum(0.01 * i * x for i, x in enumerate(norms)))",
            ),
        ),
        how="order",
        operation="aten.linalg_vector_norm",
        repeats=False,
    ),
    "a buffer is read that nobody wrote": Fault(
        both=(
            in_step(
                6,
                "dirt = [torch.empty(64).view(torch.int32) % 1009 for _ in range(64)]; "
                "logits = logits * (1 + sum(map(torch.sum, dirt)) * 1e-5)",
            ),
        ),
        how="unwritten",
        operation="aten.remainder.Scalar",
        repeats=False,
    ),
}


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_fault_is_named(
    unchanged: tuple[Project, Path], tmp_path: Path, name: str
) -> None:
    fault = PLANTED[name]
    project, run = unchanged
    sides = [project.copy(tmp_path / side) for side in "ab"]
    for side in sides:
        for edit in fault.both:
            side.edit(*edit)
    for edit in fault.edits:
        sides[1].edit(*edit)
    a = train(sides[0], *fault.settings) if fault.both else run
    b = train(sides[1], *fault.settings)
    found = diff(project, a, b, "--replay")
    assert found["step"] == fault.step
    assert found["quantity"] in fault.quantity.split()
    operation = found["operation"]
    if fault.quantity == "samples":
        one, two = found["samples"]
        assert operation is None
        assert [one[1], one[0], *one[2:]] == two
        return
    entry = operation["b"]
    assert (operation["how"], entry["name"]) == (fault.how, fault.operation)
    assert (entry["module"], entry["phase"]) == (fault.module, fault.phase)
    assert not fault.of or fault.of in [t[3] for t in entry["inputs"] + entry["outputs"]]
    assert (found["parted"] == [None, None]) == fault.repeats
    code = {path for path, _, _ in fault.edits}
    assert {path for path, _, _ in found["conditions"]} == {f"code: {path}" for path in code}
    if fault.how == "outputs" and fault.repeats:
        (apart,) = operation["apart"]
        assert (apart["differing"], apart["ulps"]) == (apart["values"], 1)


def test_runs_of_the_same_bits_are_identical(
    unchanged: tuple[Project, Path], tmp_path: Path
) -> None:
    """Another folder, data workers, stopped and resumed: the same trace, byte for byte."""
    project, run = unchanged
    other = project.copy(tmp_path / "other")
    train(other, "training.max_steps=6")
    again = train(other, "num_workers=2", "resume=auto")
    assert (again / "trace.jsonl").read_bytes() == (run / "trace.jsonl").read_bytes()
    found = diff(project, run, again)
    assert (found["step"], found["conditions"], found["compared"]) == (None, [], 10)
    assert found["metrics"] is None


# An average of the weights, which validation takes instead of them. No checkpoint holds it, and it
# lies in a module, where nothing finds it.
AVERAGE = """

AVERAGE: list[Tensor] = []


class Classifier(Task):"""
EVALUATE = "    def evaluate(self, batch: list[Tensor]) -> Outputs:\n"
EVALUATE_AVERAGE = f"""{EVALUATE}
        weights = [weight.data for weight in self.model.parameters()]
        for weight, average in zip(self.model.parameters(), AVERAGE):
            weight.data = average
        outputs = self.evaluate_weights(batch)
        for weight, value in zip(self.model.parameters(), weights):
            weight.data = value
        return outputs

    def evaluate_weights(self, batch: list[Tensor]) -> Outputs:
"""
UPDATE = """        for place, weight in enumerate(self.model.parameters()):
            if len(AVERAGE) == place:
                AVERAGE.append(weight.detach().clone())
            AVERAGE[place].lerp_(weight.detach(), 0.3)
"""
AVERAGED = (
    (TASK, "\n\nclass Classifier(Task):", AVERAGE),
    (TASK, EVALUATE, EVALUATE_AVERAGE),
    (TASK, LOSS, f"{STEP}{UPDATE}{RETURN}{LOSS}"),
)


def test_equal_bits_with_other_metrics_are_not_identical(own_project: Project) -> None:
    """An average of the weights is forgotten when a run is resumed: the steps are the same."""
    for edit in AVERAGED:
        own_project.edit(*edit)
    batches = ("training.batch_size=512", "training.epochs=3")  # of at most three steps each
    stopped = train(own_project, *batches, "training.max_steps=4")
    stopped = stopped.rename(stopped.with_name("stopped"))
    whole = train(own_project, *batches)
    whole = whole.rename(whole.with_name("whole"))
    again = ("run_dir=runs/stopped", "resume=auto", "training.max_steps=9")
    done = own_project.train(*SHORT, *batches, *again)
    assert done.returncode == 0, done.stderr
    assert weights(stopped) == weights(whole)
    assert (stopped / "trace.jsonl").read_bytes() == (whole / "trace.jsonl").read_bytes()
    found = diff(own_project, whole, stopped)
    assert (found["step"], found["conditions"]) == (None, [])
    place = {name: found["metrics"][name] for name in ("file", "split")}
    assert place == {"file": "metrics.jsonl", "split": "validation"}
    assert found["metrics"]["step"] > 4
    assert found["metrics"]["a"] != found["metrics"]["b"]
    words = own_project.module("repro", "diff", str(whole), str(stopped))
    assert words.returncode == 1
    assert "IDENTICAL" not in words.stdout
    assert "OTHER METRICS, although all steps from 0 to" in words.stdout
    assert f"(validation) {found['metrics']['metric']} is " in words.stdout
    assert "Traceback" not in words.stderr


def test_a_changed_image_is_found_in_the_data(project: Project, tmp_path: Path) -> None:
    runs = []
    for side in "ab":
        copy = project.copy(tmp_path / side)
        for number in range(40):
            pixels = np.full((16, 16, 3), number * 6, np.uint8)
            pixels += side == "b" and number % 3 == 1
            target = copy.path / "images" / str(number % 2) / f"{number}.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(target)
        settings = ("dataset=image_folder", f"image_dir={copy.path / 'images'}", "dataset.size=16")
        runs.append(train(copy, *settings, "training.epochs=9"))
    found = diff(copy, *runs, "--replay")
    assert [name for name, _, _ in found["conditions"]] == ["data"]
    assert (found["step"], found["quantity"]) == (1, "inputs")
    assert (found["operation"]["how"], found["operation"]["b"]["phase"]) == ("inputs", "data")
    assert found["operation"]["b"]["source"].startswith("experiment/samples.py:")


def test_other_threads_and_instruction_sets_are_told_in_words(
    project: Project, tmp_path: Path
) -> None:
    copy = project.copy(tmp_path / "copy")
    runs = {}
    for name, threads, variables in (
        ("one", 1, {}),
        ("two", 2, {}),
        ("plain", 1, {"ATEN_CPU_CAPABILITY": "default"}),
    ):
        run = train(copy, "profile=native", f"threads={threads}", **variables)
        runs[name] = run.rename(run.with_name(name))
    words = copy.module("repro", "diff", "runs/one", "runs/two").stdout
    assert "B ran with 2 threads, A with 1" in words
    done = copy.module("repro", "diff", "runs/one", "runs/plain", "--replay")
    assert "the variable ATEN_CPU_CAPABILITY is default in B, not set in A" in done.stdout
    assert "B ran with the instruction set DEFAULT" in done.stdout
    assert "the same inputs, other outputs" in done.stdout


def test_two_files_of_a_step_can_be_compared_elsewhere(
    unchanged: tuple[Project, Path], tmp_path: Path
) -> None:
    project, run = unchanged
    other = project.copy(tmp_path / "other")
    other.edit(*in_step(6, f"logits = {ulp('logits')}"))
    theirs = train(other)
    files = [tmp_path / "a.json", tmp_path / "b.json"]
    for side, file, where in zip((project, other), files, (run, theirs), strict=True):
        command = ("repro", "trace-step", str(where), "--step", "6")
        done = side.module(*command, "--output", str(file))
        assert done.returncode == 0, done.stderr
        assert file.stat().st_size < 200_000
    found = diff(project, *files)
    assert found["step"] == 6
    assert found["quantity"] in LOSS_OR_LATER.split()
    assert found["operation"]["b"]["name"] == "aten.nextafter"


def test_files_of_a_step_that_reads_unwritten_memory_are_not_identical(
    project: Project, tmp_path: Path
) -> None:
    """Both replays end with NaN; the runs' own lines, and the operation, tell the difference."""
    files = []
    for side in "ab":
        copy = project.copy(tmp_path / side)
        for edit in PLANTED["a buffer is read that nobody wrote"].both:
            copy.edit(*edit)
        run, file = train(copy), tmp_path / f"{side}.json"
        command = ("repro", "trace-step", str(run), "--step", "6")
        done = copy.module(*command, "--output", str(file))
        assert done.returncode == 0, done.stderr
        files.append(file)
    found = diff(copy, *files)
    assert found["step"] == 6
    assert found["operation"]["how"] == "unwritten"


def test_a_replay_says_that_the_code_is_not_what_the_run_had(own_project: Project) -> None:
    a = train(own_project)
    a = a.rename(a.with_name("a"))
    own_project.edit(*in_step(6, f"logits = {ulp('logits')}"))
    b = train(own_project)
    found = diff(own_project, a, b, "--replay")
    assert found["changed"] == [[f"code: {TASK} changed"], []]
    words = own_project.module("repro", "diff", str(a), str(b), "--replay").stdout
    assert "A was replayed with what is there today" in words
    assert "A does not repeat itself" not in words


def test_a_damaged_trace_is_one_line(unchanged: tuple[Project, Path], tmp_path: Path) -> None:
    project, run = unchanged
    lines = (run / "trace.jsonl").read_text().splitlines()
    for number, damage in ((3, "{broken"), (2, "5")):
        bad = tmp_path / f"run{number}"
        bad.mkdir()
        told = [*lines[: number - 1], damage, *lines[number:]]
        (bad / "trace.jsonl").write_text("\n".join(told) + "\n")
        done = project.module("repro", "diff", str(run), str(bad))
        (line,) = faults(done)
        assert f"line {number} is damaged" in line


def test_a_picture_shows_both_curves(unchanged: tuple[Project, Path], tmp_path: Path) -> None:
    project, run = unchanged
    other = train(project.copy(tmp_path / "other"), "optimizer.learning_rate=0.01")
    target = tmp_path / "pictures" / "diff.svg"
    found = diff(project, run, other, "--picture", str(target))
    assert (found["step"], found["quantity"]) == (1, "learning_rate")
    assert [name for name, _, _ in found["conditions"]] == ["config: optimizer.learning_rate"]
    picture = ElementTree.parse(target).getroot()
    curves = [element for element in picture.iter() if element.get("class") == "curve"]
    assert len(curves) == 2
    command = ("repro", "diff", str(run), str(other), "--picture", str(tmp_path / "diff.png"))
    (line,) = faults(project.module(*command))
    assert "diff.png: expected the name of an SVG file: FILE.svg" in line


def test_what_cannot_be_compared_is_one_line(
    unchanged: tuple[Project, Path], tmp_path: Path
) -> None:
    project, run = unchanged
    command = ("repro", "diff")
    (line,) = faults(project.module(*command, str(run), str(tmp_path)))
    assert "has no trace.jsonl with a step" in line
    (line,) = faults(project.module(*command, str(run), str(run / "trace.jsonl")))
    assert "trace.jsonl" in line
    empty = tmp_path / "run"
    empty.mkdir()
    lines = (run / "trace.jsonl").read_text().splitlines(keepends=True)
    (empty / "trace.jsonl").write_text(lines[0])
    (line,) = faults(project.module(*command, str(run), str(empty)))
    assert "has no trace.jsonl with a step" in line
    (empty / "trace.jsonl").write_text("".join(lines[0] + lines[1].replace(": 0", ": 99", 1)))
    (line,) = faults(project.module(*command, str(run), str(empty)))
    assert "no step in common" in line
    (line,) = faults(project.module("repro", "trace-step", str(run), "--step", "99"))
    assert "has steps 0 to 9" in line


def test_a_half_written_line_is_ignored(unchanged: tuple[Project, Path], tmp_path: Path) -> None:
    project, run = unchanged
    cut = tmp_path / "run"
    cut.mkdir()
    (cut / "trace.jsonl").write_bytes((run / "trace.jsonl").read_bytes()[:-40])
    found = diff(project, run, cut)
    assert (found["step"], found["compared"]) == (None, 9)


def test_no_trace_where_none_is_wanted(own_project: Project) -> None:
    assert not (train(own_project, "output.trace=false") / "trace.jsonl").exists()


def shape_of(text: str) -> list[str]:
    """The lines without numbers, and without the spaces that depend on their length."""
    numbers = r"0x[0-9a-f.]+p[+-][0-9]+|(?<![a-z0-9])[0-9][0-9.]*"
    lines = re.sub(numbers, "#", text).splitlines()
    return [" ".join(line.split()) for line in lines if line.strip()]


def test_the_worked_example_comes_out(own_project: Project) -> None:
    """docs/my-results-vary.md: the patch, the commands, the output."""
    page = (ROOT / "docs" / "my-results-vary.md").read_text()
    (patch,) = re.findall(r"```diff\n(.*?)```", page, re.DOTALL)
    subprocess.run(["git", "init", "--quiet"], cwd=own_project.path, check=True)
    subprocess.run(["git", "apply", "-"], cwd=own_project.path, input=patch, text=True, check=True)
    for name in "ab":
        done = own_project.train(f"run_dir=runs/{name}", "training.max_steps=4", "device=cpu")
        assert done.returncode == 0, done.stderr
    told, found = re.findall(r"```text\n(.*?)```", page, re.DOTALL)
    done = own_project.module("repro", "diff", "runs/a", "runs/b", "--replay")
    assert shape_of(done.stdout) == shape_of(told)
    (line,) = re.findall(r"experiment/model\.py:\d+", told)
    assert line in done.stdout
    done = own_project.module("repro", "audit")
    assert found.strip() in done.stdout
