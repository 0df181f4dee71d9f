"""The same bits with several processes, and after any crash: real trainings, real signals."""

import json
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from background import LONG, Forked, command, contents, kill, start, wait_for_steps
from conftest import HANGS, Project, faults, generate
from safetensors.torch import load_file

# BatchNorm, dropout, augmentation and clipping are in the default model and config; 13 samples are
# in the last batch of an epoch; a parameter that no step uses is added below.
STEPS = 22
SETTINGS = (f"training.max_steps={STEPS}", "output.log_every=1", "model.width=8", "threads=1")
SETTINGS = (*SETTINGS, "output.keep_checkpoints=9")


@pytest.fixture(scope="module")
def parallel(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project whose model has an unused parameter."""
    project = generate(tmp_path_factory.mktemp("parallel"))
    old = "    return nn.Sequential(*features, *head)\n"
    new = "    model = nn.Sequential(*features, *head)\n"
    new += "    model.unused = nn.Parameter(torch.ones(3))\n    return model\n"
    project.edit("experiment/model.py", old, new)
    return project


def train(project: Project, processes: int, name: str, *settings: str) -> dict[str, bytes]:
    """Train in runs/<name>; every byte that must be the same."""
    done = project.processes(
        processes, "experiment.train", f"run_dir=runs/{name}", *SETTINGS, *settings
    )
    assert done.returncode == 0, done.stderr
    return contents(project.path / "runs" / name)


@pytest.mark.parametrize(
    ("shards", "sizes"),
    [(4, [2, 4]), pytest.param(8, [2, 4, 8], marks=pytest.mark.long)],
)
def test_any_number_of_processes_gives_the_bits_of_one(
    parallel: Project, shards: int, sizes: list[int]
) -> None:
    """Weights, metrics, validation and every checkpoint file."""
    settings = (f"training.shards={shards}", "output.checkpoint_every=10")
    one = train(parallel, 1, f"s{shards}w1", *settings)
    assert len(one) > 6
    for processes in sizes:
        workers = f"num_workers={processes // 4}"
        assert train(parallel, processes, f"s{shards}w{processes}", *settings, workers) == one


EVALUATE = ("experiment.evaluate", "--checkpoint")
AUTHORS_MODEL = """

class AuthorsModel(nn.Module):
    def __init__(self, classes: int) -> None:
        super().__init__()
        layers = [nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8)]
        self.features = nn.Sequential(*layers).to(memory_format=torch.channels_last)
        self.features[1].eval()  # its statistics are to stay
        self.head = nn.Parameter(0.1 * torch.randn(classes, 128).t())  # not row by row
        lowest = torch.finfo(torch.float32).min
        self.register_buffer("constants", torch.tensor([0.0, -0.0, lowest, float("-inf"), 0.1]))
        self.register_buffer("position", torch.arange(128.0).sin())
        self.register_buffer("mean", torch.zeros(128), persistent=False)
        self.register_buffer("largest", torch.tensor(float("-inf")))
        self.register_buffer("seen", torch.tensor(0, dtype=torch.int16))
        self.register_buffer("cache", None, persistent=False)
        self.register_buffer("shown", torch.ones(1).expand(128), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        features = self.features(images).flatten(1)
        if self.training:
            self.mean = 0.9 * self.mean + 0.1 * features.detach().mean(0)  # put there anew
            self.largest.copy_(torch.maximum(self.largest, features.detach().max()))
            self.seen += len(images)
            if self.cache is None or len(self.cache) < len(images):
                self.cache = torch.full((len(images), 1), 0.5)  # grows
            features = features * self.cache[: len(images)] * self.shown
        return (features - self.mean + self.position) @ self.head * self.constants[:4].softmax(0)[0]
"""


DRAWING_STEP = """    def train_step(self, step):
        factor, shift = torch.rand(()), np.random.rand()
        for batch in filter(None, step.shards):
            batch[0] = batch[0] * factor + shift
        return super().train_step(step)

"""


@pytest.mark.parametrize("shards", [pytest.param(1, marks=pytest.mark.long), 4])
def test_a_model_and_a_step_as_authors_write_them(own_project: Project, shards: int) -> None:
    """Other layouts in memory, frozen layers, constants, counters, buffers that are made anew, an
    optimizer of a part, random numbers in the step, a loss of another type.
    """
    model = own_project.path / "experiment" / "model.py"
    model.write_text(model.read_text() + AUTHORS_MODEL)
    old = "        return small_cnn(settings, shape, classes)\n"
    own_project.edit("experiment/model.py", old, "        return AuthorsModel(classes)\n")
    task = "experiment/task.py"
    own_project.edit(task, "cross_entropy(logits.float()", "cross_entropy(logits.double()")
    own_project.edit(task, "self.model.parameters(),", "list(self.model.parameters())[2:],")
    own_project.edit(task, "    def loss(", f"{DRAWING_STEP}    def loss(")
    own_project.edit(task, "import torch\n", "import numpy as np\nimport torch\n")
    settings = (f"training.shards={shards}", "output.checkpoint_every=5")
    one = train(own_project, 1, "one", *settings)
    train(own_project, 1, "stopped", *settings, "training.max_steps=7")
    again = ("resume=auto", "num_workers=1", f"training.max_steps={STEPS}")
    stopped = train(own_project, 1, "stopped", *settings, *again)
    before = ("step-000000005/", "step-000000007/")  # their configs say where training was to stop
    kept = [name for name in one if not any(step in name for step in before)]
    assert {name: stopped[name] for name in kept} == {name: one[name] for name in kept}
    if shards > 1:
        assert train(own_project, 2, "two", *settings) == one
    for name in ("one", "stopped"):  # the checkpoint alone, too, without its run
        run = own_project.path / "runs" / name
        done = own_project.module(*EVALUATE, str(run / "checkpoints" / "last"))
        assert done.returncode == 0, done.stderr
    alone = run.rename(own_project.path / "moved") / "checkpoints" / f"step-{STEPS:09d}"
    assert own_project.module(*EVALUATE, str(alone.rename(alone.parents[2] / "x"))).returncode == 0
    last = own_project.path / "runs" / "one" / "checkpoints" / "last" / "tensors.safetensors"
    state = {name.removeprefix(".model."): tensor for name, tensor in load_file(last).items()}
    lowest = torch.finfo(torch.float32).min
    expected = torch.tensor([0.0, -0.0, lowest, float("-inf"), 0.1])
    assert torch.equal(state["constants"].view(torch.int32), expected.view(torch.int32))
    assert torch.equal(state["position"], torch.arange(128.0).sin())
    assert not state["features.1.running_mean"].any()
    assert state["features.3.running_mean"].any()
    assert torch.isfinite(state["largest"])
    assert state[".buffers.mean"].any()


def test_an_evaluation_may_draw_from_any_generator(own_project: Project) -> None:
    """Its samples and its model: the same numbers with any number of workers and processes."""
    data, model = "experiment/samples.py", "experiment/model.py"
    own_project.edit(data, "import numpy", "import random\n\nimport numpy")
    scale = "random.random() + np.random.rand() + torch.rand(1).item()"
    own_project.edit(data, "image.float() / self.max", f"image.float() * ({scale}) / self.max")
    path = own_project.path / model
    noise = "def forward(self, x: Tensor) -> Tensor:\n        return x + torch.randn_like(x)\n"
    path.write_text(f"{path.read_text()}\n\nclass Noise(nn.Module):\n    {noise}")
    own_project.edit(model, "nn.Dropout(settings.dropout)", "Noise()")
    settings = ("training.shards=2", "evaluation.batch_size=50")
    one = train(own_project, 1, "one", *settings)
    assert train(own_project, 1, "workers", *settings, "num_workers=2") == one
    assert train(own_project, 2, "two", *settings, "num_workers=1") == one
    tested = set()
    for name in ("one", "workers"):
        run = own_project.path / "runs" / name
        assert own_project.module(*EVALUATE, str(run / "checkpoints" / "last")).returncode == 0
        tested.add((run / "metrics.json").read_text())
    assert len(tested) == 1


def test_weights_of_masked_targets_are_added_up_over_processes(own_project: Project) -> None:
    """Each shard has another number of targets that count."""
    task = "experiment/task.py"
    plain = 'functional.cross_entropy(logits.float(), labels, reduction="sum")'
    masked = plain.replace("sum", "none")
    own_project.edit(task, plain, f"({masked} * (labels > 2)).sum()")
    own_project.edit(task, "weight=len(labels)", "weight=(labels > 2).sum()")
    one = train(own_project, 1, "one", "training.shards=4")
    assert train(own_project, 2, "two", "training.shards=4") == one
    assert train(own_project, 1, "whole") != one


TWO_NETWORKS = """

class TwoNetworks(nn.Module):
    def __init__(self, settings: SmallCNN, shape: Shape, classes: int) -> None:
        super().__init__()
        self.main = small_cnn(settings, shape, classes)
        layers = [nn.Conv2d(shape[0], 4, 3), nn.Conv2d(4, classes, 3), nn.BatchNorm2d(classes)]
        self.critic = nn.Sequential(*layers).to(memory_format=torch.channels_last)

    def forward(self, images: Tensor) -> Tensor:
        return self.main(images) + self.critic(images).mean((2, 3))
"""
CRITIC_LOSS = """    def critic_loss(self, batch: list[Tensor]) -> Weighted:
        images = batch[0] + 0.1 * torch.rand_like(batch[0])
        return Weighted(self.model.critic(images).square().sum(), weight=len(images))

"""
CRITIC_STEP = """    def train_step(self, step: Any) -> dict[str, float]:
        for more in (False, True):  # gradients add up
            step.backward(self.critic_loss, optimizer="critic", add=more)
        step.update("critic")
        return super().train_step(step)

"""


def test_two_networks_with_an_optimizer_each(own_project: Project) -> None:
    """As docs/adapting.md says: both in `model`, the optimizers by their names."""
    model, task = own_project.path / "experiment" / "model.py", "experiment/task.py"
    model.write_text(model.read_text() + TWO_NETWORKS)
    old = "        return small_cnn(settings, shape, classes)\n"
    own_project.edit("experiment/model.py", old, old.replace("small_cnn", "TwoNetworks"))
    own_project.edit(task, "self.model.parameters()", "self.model.main.parameters()")
    second = (
        "        critic = self.model.critic.parameters()\n"
        "        second = torch.optim.SGD(critic, lr=0.01, momentum=0.9, fused=True)\n"
    )
    both = '{"model": optimizer, "critic": second}'
    own_project.edit(task, "        return optimizer\n", f"{second}        return {both}\n")
    of_two = "def optimizers(self) -> dict[str, torch.optim.Optimizer]"
    own_project.edit(task, "def optimizers(self) -> torch.optim.Optimizer", of_two)
    own_project.edit(task, "    def loss(", f"{CRITIC_LOSS}{CRITIC_STEP}    def loss(")
    settings = ("training.shards=2", "output.checkpoint_every=5")
    one = train(own_project, 1, "one", *settings)
    assert train(own_project, 2, "two", *settings) == one
    train(own_project, 2, "stopped", *settings, "training.max_steps=5")
    again = train(own_project, 1, "stopped", *settings, "resume=auto", "num_workers=1")
    last = f"checkpoints/step-{STEPS:09d}/"
    kept = [name for name in one if name.startswith((last, "metrics", "trace"))]
    assert {name: again[name] for name in kept} == {name: one[name] for name in kept}
    done = own_project.module("repro", "trace-step", "runs/one", "--step", "7")
    assert done.returncode == 0, done.stderr
    found = json.loads((own_project.path / "runs/one/step-7.json").read_text())
    assert found["parted"] is None
    phases = {entry["name"].split(".")[1]: entry["phase"] for entry in found["operations"]}
    assert (phases["_fused_sgd_"], phases["_fused_adamw_"]) == ("optimizer", "optimizer")
    between = [entry["phase"] for entry in found["operations"]]
    first = between.index("optimizer")
    assert {"forward", "backward"} <= {*between[first:]}  # the step goes on after the first one


def test_resnet18_in_two_processes_gives_the_bits_of_one(project: Project) -> None:
    settings = ("model=resnet18", "training.shards=2", "training.max_steps=2", "threads=1")
    settings = (*settings, "training.batch_size=16", "output.log_every=1")
    runs = []
    for processes in (1, 2):
        run = f"run_dir=runs/resnet{processes}"
        done = project.processes(processes, "experiment.train", run, *settings)
        assert done.returncode == 0, done.stderr
        runs.append(contents(project.path / f"runs/resnet{processes}"))
    assert runs[0] == runs[1]


def test_fewer_samples_than_shards_and_a_process_without_any(parallel: Project) -> None:
    """The last batch has 3 samples for 4 shards; with 4 processes one has nothing to do."""
    settings = ("training.shards=4", "training.batch_size=129", "training.max_steps=11")
    one = train(parallel, 1, "few1", *settings)
    assert train(parallel, 4, "few4", *settings) == one


@pytest.mark.parametrize(("processes", "shards"), [(2, 1), (3, 4)])
def test_processes_that_do_not_divide_the_shards_are_refused(
    project: Project, processes: int, shards: int
) -> None:
    setting = f"training.shards={shards}"
    if processes == 2:  # by torchrun, whose own words come as well
        done = project.run(*command(processes, setting))
    else:
        done = project.processes(processes, "experiment.train", setting)
    assert done.returncode != 0
    # The first one says it, unless the other one has begun seconds before it.
    (line,) = {line for line in done.stderr.splitlines() if line.startswith("error: ")}
    assert line.endswith("start fewer, or raise it (other bits)")


def test_shards_that_are_no_power_of_two_are_refused(project: Project) -> None:
    (line,) = faults(project.train("training.shards=6"))
    assert "power of two" in line


def test_a_killed_process_ends_all_with_one_line(own_project: Project) -> None:
    process = start(own_project, 2, "run_dir=runs/killed", "training.shards=2", *LONG)
    wait_for_steps(own_project.path / "runs/killed", 3)
    ranks = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(int(ranks[-1]), signal.SIGKILL)
    _, error = process.communicate(timeout=HANGS)
    assert process.returncode != 0
    lines = [line for line in error.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, error
    assert "another process of this training ended" in lines[0]
    assert "experiment/train.py" not in error  # torchrun has a traceback of its own


# What the processes exchange ------------------------------------------------------------------

EXCHANGE = """
import json, sys
from pathlib import Path
import torch
from repro.core.errors import UserError
from repro.diagnosis.operations import Recorder
from repro.tasks.outputs import Collected, Outputs
from repro.training.processes import Processes
from repro.training.rows import joined

calls = sys.argv[1:]  # what each process does
processes = Processes(len(calls), torch.device("cpu"))


def boxes(*widths):
    # Evaluates a sample for each width; 0 stands for what is no Outputs at all.

    def own():
        collected = Collected()
        for width in widths:
            collected.add(Outputs(rows={"boxes": [torch.ones(2, width)]}) if width else "none")
        return collected

    found = processes.together(own).joined([2] * len(calls), processes)
    return torch.cat(found.rows["boxes"])


def noted(work):
    # How many operations are recorded of it.
    recorder = Recorder(Path(), ())
    with recorder.recording():
        work()
    return torch.tensor(len(recorder.operations))


try:
    tensor = eval(calls[processes.rank])
    told = {"dtype": str(tensor.dtype), "shape": [*tensor.shape], "values": tensor.tolist()}
except UserError as error:
    told = {"lines": error.lines}
told["alive"] = processes.total([1]) == [len(calls)]  # the next exchange is in step again
with open(f"told-{processes.rank}.json", "w") as file:
    json.dump(told, file)
processes.close()
"""


def exchange(project: Project, *calls: str) -> dict[str, object]:
    """Let each process make its call; what all of them were told, which must be the same."""
    (project.path / "experiment" / "exchange.py").write_text(EXCHANGE)
    done = project.processes(len(calls), "experiment.exchange", *calls)
    assert done.returncode == 0, done.stderr
    paths = [project.path / f"told-{rank}.json" for rank in range(len(calls))]
    first, *others = [json.loads(path.read_text()) for path in paths]
    assert all(told == first for told in others)
    assert first.pop("alive")
    return dict(first)


def joined(*tensors: str, sizes: tuple[int, ...]) -> list[str]:
    return [f"processes.concatenate({tensor}, {[*sizes]})" for tensor in tensors]


NO_NUMBERS = "torch.empty(0, dtype=torch.int64)"


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_a_process_without_rows_takes_the_dtype_of_the_others(
    own_project: Project, order: tuple[int, int]
) -> None:
    """Its own empty tensor has another one: 2837.75 was read as 1.16e37."""
    tensors = ("torch.tensor([2837.75, 1.5])", NO_NUMBERS)
    sizes = (2, 0)
    calls = joined(*(tensors[k] for k in order), sizes=(sizes[order[0]], sizes[order[1]]))
    told = exchange(own_project, *calls)
    assert told == {"dtype": "torch.float32", "shape": [2], "values": [2837.75, 1.5]}


def test_a_process_without_rows_takes_the_shape_of_the_others(own_project: Project) -> None:
    rows = "torch.ones(2, 3, dtype=torch.bool)", NO_NUMBERS, "torch.zeros(1, 3, dtype=torch.bool)"
    told = exchange(own_project, *joined(*rows, sizes=(2, 0, 1)))
    values = [[True] * 3, [True] * 3, [False] * 3]
    assert told == {"dtype": "torch.bool", "shape": [3, 3], "values": values}


def test_without_any_rows_the_kind_is_that_of_the_first_process(own_project: Project) -> None:
    told = exchange(own_project, *joined("torch.empty(0, 5)", NO_NUMBERS, sizes=(0, 0)))
    assert told == {"dtype": "torch.float32", "shape": [0, 5], "values": []}


KINDS = "the processes cannot concatenate their tensors: process 0 has "
ROWS = [
    (("torch.ones(2)", "torch.ones(2).double()"), (2, 2), KINDS + "float32 (2,), process 1 has fl"),
    (("torch.ones(1, 4)", "torch.ones(2, 3)"), (1, 2), KINDS + "float32 (1, 4), process 1 has "),
    (("torch.ones(1, 4)", "torch.ones(4)"), (1, 4), KINDS + "float32 (1, 4), process 1 has floa"),
    (("torch.ones(2)", "torch.ones(3)"), (2, 2), "process 1 concatenates float32 (3,), expected 2"),
    (("torch.ones(2)", "torch.ones(0)"), (2, 1), "process 1 concatenates float32 (0,), expected 1"),
    (("torch.ones(2)", "torch.ones(())"), (2, 1), "process 1 concatenates float32 (), expected 1 "),
    (
        ("torch.ones(2)", "torch.ones(2)"),
        (2,),
        "concatenate got 1 sizes for 2 processes",
    ),
]


@pytest.mark.parametrize(("tensors", "sizes", "line"), ROWS)
def test_rows_that_do_not_fit_are_refused_by_all_processes(
    own_project: Project, tensors: tuple[str, str], sizes: tuple[int, ...], line: str
) -> None:
    """Each with the same line, and none waits for another one."""
    told = exchange(own_project, *joined(*tensors, sizes=sizes))
    lines = told["lines"]
    assert isinstance(lines, list)
    assert lines[0].startswith(line)


FORMS = "evaluate(batch): the rows boxes are of the forms [('torch.float32', (4,)), "
CHUNKS = "joined([torch.ones(1, 3), torch.ones(1, {})], [2, 2], processes)"


@pytest.mark.parametrize("is_first", [True, False])
@pytest.mark.parametrize(
    ("good", "bad", "line"),
    [
        ("boxes(4, 4)", "boxes(4, 5)", FORMS),
        ("boxes(4, 4)", "boxes(4, 0)", "evaluate(batch) returned a str"),
        ("boxes(4, 4)", "boxes(5, 5)", KINDS),
        (CHUNKS.format(3), CHUNKS.format(4), "the chunks of an evaluation gave rows of the shapes"),
        (CHUNKS.format(3), "joined(['no rows'], [2, 2], processes)", "a chunk of an evaluation"),
    ],
)
def test_a_fault_in_the_evaluation_of_one_process_is_told_by_all(
    own_project: Project, good: str, bad: str, line: str, is_first: bool
) -> None:
    """The others waited for it, and said that a process had ended."""
    calls = (bad, good) if is_first else (good, bad)
    lines = exchange(own_project, *calls)["lines"]
    assert isinstance(lines, list)
    assert lines[0].startswith(line)
    assert len(lines) == 1


def test_boxes_of_one_width_are_joined(own_project: Project) -> None:
    told = exchange(own_project, "boxes(4, 4)", "boxes(4, 4)")
    assert told["shape"] == [8, 4]


def test_boxes_that_do_not_fit_in_one_process_end_a_training_with_one_line(
    own_project: Project,
) -> None:
    own_project.edit(
        "experiment/task.py",
        '        return Outputs(counts={"confusion"',
        "        import os\n"
        '        width = [4, 4 + int(os.environ["RANK"])]\n'
        "        boxes = [torch.ones(1, width[k % 2]) for k in range(len(labels))]\n"
        '        return Outputs(rows={"boxes": boxes}, counts={"confusion"',
    )
    settings = ("training.max_steps=1", "training.shards=2", "evaluation.every=1")
    (line,) = set(faults(own_project.processes(2, "experiment.train", *settings)))
    assert f"error: {FORMS}" in line


def test_processes_with_other_models_cannot_add_their_gradients(own_project: Project) -> None:
    """The bytes would fit: the same numbers in another shape, or of another type."""
    add = "processes.sum([torch.ones(1), {0}], [torch.ones(1), {0}])[1]"
    for one, other in (
        ("torch.ones(4, 3)", "torch.ones(3, 4)"),
        ("torch.ones(2)", "torch.ones(2, dtype=torch.int32)"),
    ):
        told = exchange(own_project, add.format(one), add.format(other))
        lines = told["lines"]
        assert isinstance(lines, list)
        (line,) = lines
        assert "number 1" in line
        assert "in process 0" in line
        assert "in process 1" in line
        assert "build the model from what is the same in every process" in line
    ones = "processes.sum([torch.ones(2)] * {0}, [torch.ones(2)] * {0})[0]"
    told = exchange(own_project, ones.format(3), ones.format(2))
    assert "number 2" in str(told["lines"])
    assert "is float32 (2,) in process 0, missing in process 1" in str(told["lines"])
    told = exchange(own_project, ones.format(1), ones.format(1))
    assert told["values"] == [2.0, 2.0]
    both = "processes.sum([None, {0}], [torch.ones(1), torch.ones(2)])[1]"
    told = exchange(own_project, both.format("torch.ones(2)"), both.format("None"))
    assert told["values"] == [1.0, 1.0]


def test_numbers_of_several_types_are_added_as_whole_ones(own_project: Project) -> None:
    """Of [True] a process would send one byte, of [1] eight."""
    total = "torch.tensor(processes.total([{0}]))"
    told = exchange(own_project, total.format("True"), total.format("1"))
    assert told == {"dtype": "torch.int64", "shape": [1], "values": [2]}


def test_of_what_processes_tell_each_other_nothing_is_recorded(own_project: Project) -> None:
    """Times of files differ from start to start: of two replays one would have other operations."""
    for told, count in {
        "processes.texts('a' * (9 + processes.rank))": 0,
        "processes.wait()": 1,  # the zero that goes around
        "processes.alone(int)": 0,
    }.items():
        call = f"noted(lambda: {told})"
        assert exchange(own_project, call, call)["values"] == count


SLOW_START = """
import os, runpy, time
from repro.core.errors import UserError
from repro.data.prepared import Preparation
from repro.runs import folder, training_session
from repro.training import patience
from repro.training.processes import Processes

told = 0
plain = Processes.texts


def texts(self, own):
    global told
    told += 1
    return plain(self, own)


def slowly(work):
    def slow(*arguments):
        if os.environ["RANK"] == "0":
            before, until = told, time.monotonic() + 120
            while told < before + 3:
                if time.monotonic() > until:
                    raise UserError("for 120 s the others have heard nothing")
                time.sleep(0.01)
            print("slow:", work.__name__, flush=True)
        return work(*arguments)

    return slow


Processes.texts = texts
patience._SECONDS = 0.05
folder.find_start = slowly(folder.find_start)
Preparation._prepared_if_due = slowly(Preparation._prepared_if_due)
training_session.open_run = slowly(training_session.open_run)
runpy.run_module("experiment.train", run_name="__main__", alter_sys=True)
"""


def test_process_0_may_take_long_to_begin(own_project: Project) -> None:
    """To find a checkpoint, to prepare data, to copy a run: an exchange may take half an hour."""
    (own_project.path / "experiment" / "slowly.py").write_text(SLOW_START)
    settings = ("run_dir=runs/slow", "resume=auto", "training.shards=2", "model.width=4")
    for steps in (1, 2):
        done = own_project.processes(
            2, "experiment.slowly", *settings, f"training.max_steps={steps}"
        )
        assert done.returncode == 0, done.stderr
        slow = [line for line in done.stdout.splitlines() if line.startswith("slow: ")]
        names = ("find_start", "_prepared_if_due", "open_run")
        assert slow == [f"slow: {name}" for name in names]
    assert "resuming after step 1\n" in done.stdout


# Crashes -------------------------------------------------------------------------------------


def kill_and_resume(project: Project, name: str, kills: int, seed: int) -> None:
    """Kill trainings at random moments, with 1 and 2 processes in turn, until there is an end.

    The first two are processes as a user starts them; forks write the same files in less time.
    """
    draw = random.Random(seed)
    run = project.path / "runs" / name
    settings = (f"run_dir=runs/{name}", "resume=auto", *SETTINGS, *CRASH)
    killed = 0
    for number in range(kills):
        start_it = start if number < 2 else Forked
        process = start_it(project, 1 + number % 2, *settings)
        wait_for_steps(run, draw.randint(1, 8), process)
        time.sleep(draw.uniform(0, 0.02))  # about one step: anywhere in it, or in a checkpoint
        if process.poll() is not None:  # where steps take a millisecond
            break
        kill(process) if isinstance(process, subprocess.Popen) else process.kill()
        killed += 1
    assert killed >= kills // 2, "it ended before: take more steps"
    done = project.train(*settings)
    assert done.returncode == 0, done.stderr


LAST = 140  # more steps than ten kills, up to eight steps after each other, come to
CRASH = ("training.shards=2", "output.checkpoint_every=1", f"training.max_steps={LAST}")


@pytest.fixture(scope="module")
def uninterrupted(parallel: Project) -> dict[str, bytes]:
    return train(parallel, 1, "uninterrupted", *CRASH)


def test_ten_kills_at_random_moments_change_nothing(
    parallel: Project, uninterrupted: dict[str, bytes]
) -> None:
    """During checkpoint writes, too: there is one after every step."""
    kill_and_resume(parallel, "kills", 10, seed=1)
    found = contents(parallel.path / "runs" / "kills")
    assert found == uninterrupted


@pytest.mark.long
def test_a_hundred_kills_at_random_moments_change_nothing(
    parallel: Project, uninterrupted: dict[str, bytes]
) -> None:
    for seed in range(10, 25):
        shutil.rmtree(parallel.path / "runs" / "kills", ignore_errors=True)
        kill_and_resume(parallel, "kills", 8, seed)
        assert contents(parallel.path / "runs" / "kills") == uninterrupted, seed


@pytest.mark.parametrize("processes", [1, 2])
def test_sigterm_saves_marks_and_goes_on_with_the_same_bits(
    parallel: Project, uninterrupted: dict[str, bytes], processes: int
) -> None:
    name = f"term{processes}"
    run = parallel.path / "runs" / name
    settings = (f"run_dir=runs/{name}", "resume=auto", *SETTINGS, *CRASH)
    settings = (*settings, "output.checkpoint_every=1000")
    process = start(parallel, processes, *settings)
    wait_for_steps(run, 5)
    os.kill(process.pid, signal.SIGTERM)
    output, error = process.communicate(timeout=HANGS)
    if processes == 1:
        assert process.returncode == 75, error
        assert not error
    else:
        assert process.returncode != 0  # torchrun's own; the marker tells
    assert "SIGTERM: saved after step" in output
    assert (run / "interrupted").is_file()
    done = parallel.processes(3 - processes, "experiment.train", *settings)
    assert done.returncode == 0, done.stderr
    assert not (run / "interrupted").exists()
    last = f"checkpoints/step-{LAST:09d}/tensors.safetensors"
    assert contents(run)[last] == uninterrupted[last]
    assert contents(run)["metrics.jsonl"] == uninterrupted["metrics.jsonl"]


def test_sigterm_to_everything_ends_in_good_order_with_data_workers(own_project: Project) -> None:
    process = start(own_project, 1, "run_dir=runs/w", "num_workers=2", *LONG)
    wait_for_steps(own_project.path / "runs" / "w", 3)
    os.killpg(process.pid, signal.SIGTERM)
    _, error = process.communicate(timeout=HANGS)
    assert process.returncode == 75, error
    assert not error


@contextmanager
def small_disk(place: Path, size: str) -> Iterator[Path]:
    """A file system of its own at `place`; skips the test where mounting is not allowed."""
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("needs the right to mount a small tmpfs")
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk_is_one_line_and_leaves_earlier_checkpoints(
    own_project: Project, tmp_path: Path
) -> None:
    with small_disk(tmp_path / "small", "3m") as small:
        run = small / "run"
        settings = (f"run_dir={run}", "output.checkpoint_every=1", "output.keep_checkpoints=99")
        (line,) = faults(own_project.train(*settings, "model.width=16"))
        assert "No space left" in line
        assert "interrupted" not in line
        whole = sorted((run / "checkpoints").glob("step-*"))
        assert whole
        assert not list((run / "checkpoints").glob(".*.partial"))
        shutil.copytree(run, own_project.path / "runs" / "copy", symlinks=True)
    done = own_project.train(
        "run_dir=runs/copy", "resume=auto", "model.width=16", f"training.max_steps={len(whole) + 2}"
    )
    assert f"resuming after step {len(whole)}" in done.stdout, done.stderr


def test_a_folder_that_cannot_be_written_is_one_line(own_project: Project, tmp_path: Path) -> None:
    """Read-only, as root may write anywhere else; checkpoints that are there stay whole."""
    with small_disk(tmp_path / "place", "50m") as place:
        settings = ("model.width=4", "output.checkpoint_every=2")
        done = own_project.train(f"run_dir={place / 'run'}", *settings, "training.max_steps=4")
        assert done.returncode == 0, done.stderr
        before = contents(place / "run")
        subprocess.run(["mount", "-o", "remount,ro", str(place)], check=True)
        for name, more in (("run", "resume=auto"), ("other", "seed=3")):
            (line,) = faults(own_project.train(f"run_dir={place / name}", *settings, more))
            assert str(place / name) in line
            assert "Read-only file system" in line
        assert contents(place / "run") == before


def test_two_trainings_cannot_share_a_folder(own_project: Project) -> None:
    process = start(own_project, 1, "run_dir=runs/shared", *LONG)
    wait_for_steps(own_project.path / "runs" / "shared", 1)
    (line,) = faults(own_project.train("run_dir=runs/shared", "resume=auto", *LONG))
    assert "another process" in line
    kill(process)


# CPU models ----------------------------------------------------------------------------------
