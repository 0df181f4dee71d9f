"""training.parallel=ddp and fsdp keep each promise of a session: 4 real processes, real signals.

With two processes a sum is the same in any order; with four it is not. The model has a bucket of
DDP, and a block of FSDP2, for each of its layers.
"""

import json
import os
import random
import shutil
import signal
import time
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from background import Forked, contents, steps_of, wait_for_steps
from conftest import HANGS, Project, faults, generate, record_claims
from pydantic import TypeAdapter
from repro.core.errors import UserError
from repro.core.layout import context_folders
from repro.results.record import refuse_other_conditions
from repro.runs.conditions import Conditions
from repro.runs.run_result import read_result
from repro.training.scale.launching import refuse_other_launch

PROCESSES = 4
# An epoch has 20 steps: the last batch has 42 samples, so the processes have unequal shares.
STEPS = 22
SETTINGS = (
    f"training.max_steps={STEPS}",
    f"training.shards={PROCESSES}",
    "training.bucket_mib=1",  # as the first one of DDP is in any case
    "model.width=16",
    "output.log_every=1",
    "output.keep_checkpoints=99",
    "output.checkpoint_every=5",
    "evaluation.every=11",
    "evaluation.batch_size=70",  # 3 chunks of validation, so one process has none
    "threads=1",
)

MODEL = '''

class Block(nn.Module):
    """A residual layer of 1 MiB: a bucket of DDP, and a block of FSDP2."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(width // 8)  # of eight values of each sample: one may be alone
        self.linear = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, values: Tensor) -> Tensor:
        normed = self.norm(values.unflatten(1, (-1, 8))).flatten(1)
        return values + self.dropout(self.linear(normed).relu())


class Wide(nn.Module):
    """Layers that are not defined in the order in which they are used."""

    def __init__(self, settings: SmallCNN, shape: Shape, classes: int) -> None:
        super().__init__()
        width = 32 * settings.width
        self.head = nn.Linear(width, classes)
        self.unused = nn.Parameter(torch.ones(3))
        self.blocks = nn.ModuleList([Block(width, settings.dropout) for _ in range(5)])
        self.first = nn.Linear(shape[0] * shape[1] * shape[2], width)
        self.register_buffer("shown", torch.ones(1).expand(width), persistent=False)
        self.register_buffer("cache", None, persistent=False)
        self.register_buffer("seen", torch.tensor(0))

    def forward(self, images: Tensor) -> Tensor:
        values = self.first(images.flatten(1))
        for block in reversed(self.blocks):
            values = block(values)
        if self.training:
            self.seen += len(images)
            if self.cache is None or len(self.cache) < len(images):  # other lengths in others
                self.cache = torch.full((len(images), 1), 0.5)
            values = values * self.cache[: len(images)] * self.shown
        logits: Tensor = self.head(values)
        return logits
'''


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project of a model with five large layers, whose test samples are those of validation."""
    project = generate(tmp_path_factory.mktemp("wide"), "scale=many")
    model = project.path / "experiment" / "model.py"
    model.write_text(model.read_text() + MODEL)
    old = "        return small_cnn(settings, shape, classes)\n"
    project.edit("experiment/model.py", old, old.replace("small_cnn", "Wide"))
    old = '    best = ("accuracy", "max")\n'
    project.edit("experiment/task.py", old, f'{old}    test_on = "validation"\n')
    return project


@pytest.fixture
def own_wide(wide: Project, tmp_path: Path) -> Project:
    """A copy to change."""
    return wide.copy(tmp_path / wide.path.name)


def words(parallel: str, name: str, *settings: str) -> list[str]:
    """The settings of a training in runs/<name>; the last one of a name is in force."""
    number = "null" if parallel == "shards" else str(PROCESSES)
    given = [f"training.parallel={parallel}", f"training.processes={number}", *SETTINGS]
    chosen = {word.partition("=")[0]: word for word in [*given, *settings]}
    return [f"run_dir=runs/{name}", *chosen.values()]


def train(
    project: Project, parallel: str, name: str, *settings: str, **variables: str
) -> dict[str, bytes]:
    """Train with four processes in runs/<name>; every byte that must be the same."""
    chosen = words(parallel, name, *settings)
    done = project.processes(PROCESSES, "experiment.train", *chosen, **variables)
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    return contents(project.path / "runs" / name)


def metrics_of(run: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl."""
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


# Relative. Four times what was measured of fsdp in 22 steps: 5.0e-7 and 1.2e-6 (ddp: 1.5e-7 and
# 3.4e-7).
BOUNDS = {"loss": 2e-6, "gradient_norm": 5e-6, "critic": 2e-6}


def within_a_bound(
    found: list[dict[str, Any]], expected: list[dict[str, Any]], *names: str
) -> None:
    """The numbers of the steps of two trainings."""
    lines = [line for line in found if "split" not in line]
    others = [line for line in expected if "split" not in line]
    for name in names or ("loss", "gradient_norm"):
        apart = [
            abs(line[name] / other[name] - 1) for line, other in zip(lines, others, strict=True)
        ]
        print(name, max(apart))
        assert max(apart) < BOUNDS[name]


@pytest.fixture(scope="module")
def shards(wide: Project) -> list[dict[str, Any]]:
    """What the steps of a training in shards tell."""
    done = wide.train(*words("shards", "shards"))
    assert done.returncode == 0, done.stderr
    return metrics_of(wide.path / "runs" / "shards")


@pytest.fixture(scope="module", params=["ddp", "fsdp"])
def parallel(request: pytest.FixtureRequest) -> str:
    """The engine."""
    return str(request.param)


@pytest.fixture(scope="module")
def trained(wide: Project, parallel: str) -> dict[str, bytes]:
    """The files of a training in runs/<engine>."""
    return train(wide, parallel, parallel)


# Bits -----------------------------------------------------------------------------------------


def test_an_engine_gives_the_same_files_again(
    wide: Project, trained: dict[str, bytes], parallel: str
) -> None:
    """With data workers, too; other seeds give others."""
    assert train(wide, parallel, f"{parallel}-workers", "num_workers=2") == trained
    assert len({name.split("/")[1] for name in trained if "/" in name}) == 6  # checkpoints


def test_kills_at_three_steps_change_no_byte(
    wide: Project, trained: dict[str, bytes], parallel: str
) -> None:
    """All processes at once, then a single one, which ends the others, then all again."""
    name = f"{parallel}-kills"
    run = wide.path / "runs" / name
    for number in range(3):
        process = Forked(wide, PROCESSES, *words(parallel, name, "resume=auto"))
        # A checkpoint more: each goes on from another one.
        wait_for_steps(run, 5 * number + 6 - steps_of(run), process)
        assert process.poll() is None, "it ended before it was killed"
        if number == 1:
            os.killpg(process.commands[2].pid, signal.SIGKILL)
            codes = [command.wait() for command in process.commands]
            assert codes == [2, 2, -signal.SIGKILL, 2]  # 2: a line, no traceback
        else:
            process.kill()
    assert train(wide, parallel, name, "resume=auto") == trained


@pytest.mark.long
def test_kills_at_any_moment_change_no_byte(
    wide: Project, trained: dict[str, bytes], parallel: str
) -> None:
    """Of one process or of all: as they meet, in a step, as they save or put together."""
    name = f"{parallel}-any-moment"
    run = wide.path / "runs" / name
    draw = random.Random(parallel)
    for number in range(12):
        process = Forked(wide, PROCESSES, *words(parallel, name, "resume=auto"))
        wait_for_steps(run, draw.randint(0, 5), process)
        time.sleep(draw.uniform(0, 0.5))
        if process.poll() is not None:
            assert [command.wait() for command in process.commands] == [0] * PROCESSES
            assert contents(run) == trained, number
            shutil.rmtree(run)
        elif number % 3:
            victim = draw.randrange(PROCESSES)
            with suppress(ProcessLookupError):  # it has just ended
                os.killpg(process.commands[victim].pid, signal.SIGKILL)
            codes = {command.wait(HANGS) for command in process.commands}
            assert codes <= {0, 2, -signal.SIGKILL}, number  # 2: a line, no traceback
        else:
            process.kill()
    assert train(wide, parallel, name, "resume=auto") == trained


def test_evaluation_has_the_bits_of_one_process(
    wide: Project, trained: dict[str, bytes], parallel: str
) -> None:
    """By the command in one and in four processes, and in the training, whose shares are unequal.

    A project's own last validation is what the command evaluates: see `wide`.
    """
    run = wide.path / "runs" / parallel
    words = ("experiment.evaluate", "--checkpoint", str(run / "checkpoints" / "last"))
    found = []
    for processes in (1, PROCESSES):
        done = wide.processes(processes, *words)
        assert done.returncode == 0, done.stderr
        found.append((run / "metrics.json").read_text())
    assert found[0] == found[1]
    evaluated = json.loads(found[0])
    last = metrics_of(run)[-1]
    assert (last["split"], last["step"]) == ("validation", STEPS)
    assert {name: evaluated[name] for name in ("loss", "accuracy")} == {
        name: last[name] for name in ("loss", "accuracy")
    }


def test_the_losses_of_shards_within_a_bound(
    wide: Project, trained: dict[str, bytes], shards: list[dict[str, Any]], parallel: str
) -> None:
    """Of 22 steps from the same weights, with dropout: libraries add in another order alone."""
    found = metrics_of(wide.path / "runs" / parallel)
    assert len([line for line in found if "split" not in line]) == STEPS
    within_a_bound(found, shards)


# Where two trainings part ------------------------------------------------------------------------


def test_diff_names_the_step_and_the_quantity(
    wide: Project, trained: dict[str, bytes], parallel: str
) -> None:
    settings = ("optimizer.learning_rate=0.002", "training.max_steps=4")
    other = f"{parallel}-faster"
    train(wide, parallel, other, *settings)
    done = wide.module("repro", "diff", f"runs/{parallel}", f"runs/{other}", "--json")
    assert done.returncode == 1, done.stderr
    found = json.loads(done.stdout)
    assert (found["step"], found["quantity"]) == (1, "learning_rate")
    assert [name for name, _, _ in found["conditions"]] == ["config: optimizer.learning_rate"]
    assert found["agree"] == ["samples", "inputs", "loss", "gradients"]


@pytest.mark.long
def test_diff_replays_both_trainings(wide: Project, parallel: str) -> None:
    """The replays of four processes do what the runs did, and their operations are compared."""
    settings = ("training.max_steps=2", "evaluation.every=2")
    names = (f"{parallel}-replayed", f"{parallel}-replayed-faster")
    train(wide, parallel, names[0], *settings)
    train(wide, parallel, names[1], *settings, "optimizer.learning_rate=0.002")
    runs = (f"runs/{names[0]}", f"runs/{names[1]}")
    done = wide.module("repro", "diff", *runs, "--json", "--replay")
    assert done.returncode == 1, done.stderr
    found = json.loads(done.stdout)
    assert found["parted"] == [None, None]
    assert found["operation"]["how"] == "arguments"
    assert found["operation"]["a"]["name"] == "aten._fused_adamw_"


# What a process sends: of the gradients, and of fsdp of the weights, too.
SENT = {
    "ddp": {"backward c10d.allreduce_"},
    "fsdp": {
        *(f"{phase} c10d._allgather_base_" for phase in ("forward", "backward")),
        "backward c10d._reduce_scatter_base_",
    },
}


def test_a_step_is_repeated_by_as_many_processes(wide: Project, parallel: str) -> None:
    """From the checkpoint before it; a single one has no such sums."""
    name = f"{parallel}-repeated"
    train(wide, parallel, name, "training.max_steps=7", "output.checkpoint_every=5")
    words = ("repro", "trace-step", f"runs/{name}", "--step", "7")
    told = []
    for _ in range(2):
        done = wide.processes(PROCESSES, *words)
        assert done.returncode == 0, done.stderr
        told.append((wide.path / "runs" / name / "step-7.json").read_text())
    found = json.loads(told[0])
    assert found["parted"] is None
    operations = found["operations"]
    assert {entry["phase"] for entry in operations} >= {"forward", "backward", "optimizer"}
    assert {f"{entry['phase']} {entry['name']}" for entry in operations} >= SENT[parallel]
    assert not [entry["name"] for entry in operations if entry.get("unwritten")]
    assert told[0] == told[1]
    (line,) = faults(wide.module(*words))
    assert "and 1 were started: start as many, by python -m torch.distributed.run" in line


# What the processes exchange ---------------------------------------------------------------------

PROBE = '''"""Note what this process does in each step, and wait where TEST_DELAY says so."""

import hashlib
import json
import os
import random
import time
from functools import wraps

import torch.distributed as dist
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.nn.parallel import DistributedDataParallel

RANK = os.environ.get("RANK", "0")
_events = []
_random = random.Random(os.urandom(8))  # not a generator of the training


def pause(*_):
    if os.environ.get("TEST_DELAY"):
        time.sleep(_random.uniform(0, 0.02))


def note(event):
    pause()
    _events.append(event)


def _noting(exchange, values):
    @wraps(exchange)
    def noted(*arguments, **named):
        note(values(*arguments, **named).numel())
        return exchange(*arguments, **named)

    return noted


dist.reduce_scatter_single = _noting(dist.reduce_scatter_single, lambda input, **_: input)  # FSDP2
_made = DistributedDataParallel.__init__


def _make(self, *arguments, **named):
    _made(self, *arguments, **named)
    # As DDP by itself does: https://docs.pytorch.org/docs/stable/ddp_comm_hooks.html
    self.register_comm_hook(None, _noting(allreduce_hook, lambda _, bucket: bucket.buffer()))


DistributedDataParallel.__init__ = _make


def _digest(tensors):
    found = hashlib.sha256()
    for tensor in tensors:
        whole = tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
        found.update(whole.detach().numpy().tobytes())
    return found.hexdigest()


def tell(step, model):
    line = {"step": step, "events": _events, "buffers": _digest(model.buffers())}
    if step == 0:
        line["weights"] = _digest(model.parameters())
    with open(f"told-{RANK}.jsonl", "a") as file:
        file.write(json.dumps(line) + "\\n")
    _events.clear()
'''
PROBED_STEP = """    def train_step(self, step: Any) -> dict[str, Any]:
        if step.index == 0:
            probe.tell(0, self.model)
        told = super().train_step(step)
        probe.tell(step.number, self.model)
        return told

"""


@pytest.fixture(scope="module")
def probed(wide: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project whose processes tell what they do."""
    project = wide.copy(tmp_path_factory.mktemp("probed") / wide.path.name)
    (project.path / "experiment" / "probe.py").write_text(PROBE)
    task = "experiment/task.py"
    project.edit(
        task, "from experiment.config", "from experiment import probe\nfrom experiment.config"
    )
    project.edit(task, "    def loss(", f"{PROBED_STEP}    def loss(")
    old = "        total = functional.cross_entropy(logits"
    project.edit(task, old, f'        probe.note("loss")\n{old}')
    model = "experiment/model.py"
    project.edit(
        model, "from experiment.config", "from experiment import probe\nfrom experiment.config"
    )
    old = "        normed = "
    hook = "        if values.requires_grad:\n            values.register_hook(probe.pause)\n"
    project.edit(model, old, hook + old)
    return project


def told(project: Project) -> list[list[dict[str, Any]]]:
    """What each process told of each step."""
    found = []
    for path in sorted(project.path.glob("told-*.jsonl")):
        found.append([json.loads(line) for line in path.read_text().splitlines()])
        path.unlink()
    return found


ACCUMULATED = ("training.shards=8", "training.max_steps=5")


@pytest.fixture(scope="module")
def accumulated(probed: Project, parallel: str) -> tuple[dict[str, bytes], list[Any]]:
    """The files of a training of two shards in each process, and what these told."""
    return train(probed, parallel, f"{parallel}-two", *ACCUMULATED), told(probed)


def test_each_step_exchanges_the_same_buckets_after_its_last_part(
    accumulated: tuple[dict[str, bytes], list[Any]],
) -> None:
    """Also the first step of a process, after which DDP by itself makes other buckets."""
    _, processes = accumulated
    assert len(processes) == PROCESSES
    (_, first, *_), *_ = processes
    exchanged = first["events"][2:]
    assert len(exchanged) >= 4
    assert "loss" not in exchanged
    for process in processes:
        assert [line["step"] for line in process] == [0, 1, 2, 3, 4, 5]
        for line in process[1:]:
            assert line["events"] == ["loss", "loss", *exchanged]


def test_after_each_step_all_processes_have_the_buffers_of_the_first(
    accumulated: tuple[dict[str, bytes], list[Any]],
) -> None:
    _, (first, *others) = accumulated
    buffers = [line["buffers"] for line in first]
    assert len({*buffers}) == len(buffers)  # each step changes them
    for process in others:
        assert [line["buffers"] for line in process] == buffers


@pytest.fixture(scope="module")
def alone(probed: Project, parallel: str) -> list[dict[str, Any]]:
    """What a process told that did the same in shards, in runs/<engine>-alone."""
    done = probed.train(*words("shards", f"{parallel}-alone", *ACCUMULATED))
    assert done.returncode == 0, done.stderr
    (found,) = told(probed)
    return found


def test_initial_weights_are_those_of_shards(
    accumulated: tuple[dict[str, bytes], list[Any]], alone: list[dict[str, Any]]
) -> None:
    start = alone[0]["weights"], alone[0]["buffers"]
    for process in accumulated[1]:
        assert (process[0]["weights"], process[0]["buffers"]) == start


def test_gradients_of_two_parts_of_a_process_add_up(
    probed: Project,
    accumulated: tuple[dict[str, bytes], list[Any]],
    alone: list[dict[str, Any]],
    parallel: str,
) -> None:
    names = (f"{parallel}-two", f"{parallel}-alone")
    within_a_bound(*(metrics_of(probed.path / "runs" / name) for name in names))


def test_delays_change_no_byte(
    probed: Project, accumulated: tuple[dict[str, bytes], list[Any]], parallel: str
) -> None:
    """Of 0 to 20 ms, in each process, before losses and exchanges and in the hooks of gradients."""
    delayed(probed, accumulated[0], parallel, trainings=1)


@pytest.mark.long
def test_delays_in_ten_trainings_change_no_byte(
    probed: Project, accumulated: tuple[dict[str, bytes], list[Any]], parallel: str
) -> None:
    delayed(probed, accumulated[0], parallel, trainings=10)


def delayed(project: Project, expected: dict[str, bytes], parallel: str, trainings: int) -> None:
    for number in range(trainings):
        name = f"{parallel}-delayed-{trainings}-{number}"
        found = train(project, parallel, name, *ACCUMULATED, TEST_DELAY="1")
        told(project)
        assert found == expected, number


# Batches, losses, optimizers ---------------------------------------------------------------------

FEW = ("training.batch_size=251", "training.max_steps=6")  # five times 251, then 3 samples


@pytest.mark.parametrize("shards", [4, 8])
def test_ddp_does_a_step_of_fewer_samples_than_processes(wide: Project, shards: int) -> None:
    """A process has nothing to compute; with eight shards another has it in its first one alone."""
    settings = (*FEW, f"training.shards={shards}")
    train(wide, "ddp", f"few-{shards}", *settings)
    found = metrics_of(wide.path / "runs" / f"few-{shards}")
    done = wide.train(*words("shards", f"few-{shards}-shards", *settings))
    assert done.returncode == 0, done.stderr
    within_a_bound(found, metrics_of(wide.path / "runs" / f"few-{shards}-shards"))


def test_fsdp_refuses_a_step_of_fewer_samples_than_processes(wide: Project) -> None:
    """Before the first one, in all processes; without that step it trains."""
    done = wide.processes(PROCESSES, "experiment.train", *words("fsdp", "refused", *FEW))
    (line,) = set(faults(done))
    assert "a step has 3 samples, fewer than training.shards=4" in line
    assert "training.drop_last=true" in line
    assert not (wide.path / "runs" / "refused").exists()
    train(wide, "fsdp", "dropped", *FEW, "training.drop_last=true")


SECOND_LOSS = """    def critic_loss(self, batch: list[Tensor]) -> Weighted:
        images = batch[0] + 0.1 * torch.rand_like(batch[0])
        values = self.model.critic(images.flatten(1))
        counted = batch[1] > 2
        return Weighted((values.square() * counted[:, None]).sum(), weight=counted.sum())

    def train_step(self, step: Any) -> dict[str, float]:
        for more in (False, True):  # gradients add up
            critic = step.backward(self.critic_loss, optimizer="critic", add=more)
        step.update("critic")
        return {**super().train_step(step), "critic": critic}

"""


@pytest.fixture(scope="module")
def two(wide: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Two networks with an optimizer each; losses are means of the samples that count."""
    project = wide.copy(tmp_path_factory.mktemp("two") / wide.path.name)
    model, task = "experiment/model.py", "experiment/task.py"
    old = "        self.first = nn.Linear"
    layers = "nn.Linear(shape[1] * shape[2], 1024), nn.ReLU(), nn.Linear(1024, 8)"
    project.edit(model, old, f"        self.critic = nn.Sequential({layers})\n{old}")
    main = "[p for n, p in self.model.named_parameters() if not n.startswith('critic')],"
    project.edit(task, "            self.model.parameters(),", f"            {main}")
    second = (
        "        critic = self.model.critic.parameters()\n"
        "        second = torch.optim.SGD(critic, lr=0.01, momentum=0.9, fused=False)\n"
    )
    both = '{"model": optimizer, "critic": second}'
    project.edit(task, "        return optimizer\n", f"{second}        return {both}\n")
    project.edit(task, "    def loss(", f"{SECOND_LOSS}    def loss(")
    plain = 'functional.cross_entropy(logits.float(), labels, reduction="sum")'
    masked = plain.replace("sum", "none")
    project.edit(task, plain, f"({masked} * (labels > 2)).sum()")
    project.edit(task, "weight=len(labels)", "weight=(labels > 2).sum()")
    return project


SHORT = ("training.max_steps=6", "output.checkpoint_every=3", "evaluation.every=6")


def test_two_optimizers_and_weighted_losses_are_those_of_shards(
    two: Project, parallel: str
) -> None:
    """The mean is that of the whole batch, although each process has other numbers that count."""
    train(two, parallel, parallel, *SHORT)
    if not (two.path / "runs" / "shards").exists():
        done = two.train(*words("shards", "shards", *SHORT))
        assert done.returncode == 0, done.stderr
    found, expected = (metrics_of(two.path / "runs" / name) for name in (parallel, "shards"))
    within_a_bound(found, expected, "loss", "gradient_norm", "critic")


def test_bf16_goes_on_with_the_same_bits(two: Project, parallel: str) -> None:
    """With two optimizers."""
    settings = (*SHORT, "training.precision=bf16")
    one = train(two, parallel, f"{parallel}-bf16", *settings)
    train(two, parallel, f"{parallel}-stopped", *settings, "training.max_steps=3")
    again = train(two, parallel, f"{parallel}-stopped", *settings, "resume=auto")
    # The config of the checkpoint before says where training was to stop.
    kept = [name for name in one if "step-000000003/" not in name]
    assert {name: again[name] for name in kept} == {name: one[name] for name in kept}


# What is refused ---------------------------------------------------------------------------------

REFUSED = [
    (1, ("training.parallel=ddp",), "processes is for parallel=ddp and parallel=fsdp"),
    (1, ("training.processes=4",), "processes is for parallel=ddp and parallel=fsdp"),
    (1, ("training.parallel=ddp", "training.processes=4"), "and 1 were started"),
    (2, ("training.parallel=fsdp", "training.processes=4"), "and 2 were started"),
    (2, ("training.parallel=fsdp", "training.processes=2"), "cannot share training.shards=1"),
    (
        1,
        ("training.parallel=ddp", "training.processes=2", "training.recheck_every=5"),
        "have neither recheck_every nor compile",
    ),
    (
        1,
        ("training.parallel=fsdp", "training.processes=2", "training.compile=true"),
        "have neither recheck_every nor compile",
    ),
]


THAWING = """    def train_step(self, step: Any) -> dict[str, Any]:
        self.model.first.weight.requires_grad_(step.number > 3)
        return super().train_step(step)

"""
OF_FOUR = ("training.processes=4", "training.shards=4")
REFUSED += [
    (4, ("training.parallel=fsdp", *OF_FOUR, "optimizer=sgd"), "expected SGD(..., fused=False)"),
]


@pytest.mark.parametrize(("processes", "settings", "words"), REFUSED)
def test_what_an_engine_cannot_do_is_one_line(
    wide: Project, processes: int, settings: tuple[str, ...], words: str
) -> None:
    done = wide.processes(processes, "experiment.train", *settings, "run_dir=runs/none")
    (line,) = set(faults(done))
    assert words in line
    assert not (wide.path / "runs" / "none").exists()


def test_models_that_are_not_alike_are_one_line_of_all(own_wide: Project, parallel: str) -> None:
    old = "width = 32 * settings.width"
    other = 'width = 32 * settings.width + int(os.environ["RANK"]) // 3'
    own_wide.edit("experiment/model.py", old, other)
    own_wide.edit("experiment/model.py", "from functools", "import os\nfrom functools")
    done = own_wide.processes(PROCESSES, "experiment.train", *words(parallel, "none"))
    (line,) = set(faults(done))
    assert "cannot add their tensors" in line
    assert "in process 3; expected the same in all" in line


def test_what_is_trained_later_is_refused_by_ddp(own_wide: Project) -> None:
    """DDP would not add up its gradients, and the processes would have weights of their own."""
    freezing = "        self.model.first.weight.requires_grad_(False)\n"
    own_wide.edit("experiment/task.py", "    def initialize(", f"{THAWING}    def initialize(")
    end = "len(self.classes))\n"
    own_wide.edit("experiment/task.py", end, end + freezing)
    done = own_wide.processes(PROCESSES, "experiment.train", *words("ddp", "thawing"))
    (line,) = set(faults(done))
    assert "1 parameters that were frozen as the training began have gradients now" in line
    assert len(metrics_of(own_wide.path / "runs" / "thawing")) == 3


def test_weights_that_a_loss_uses_by_itself_are_one_line(own_wide: Project) -> None:
    """FSDP2 has the weights of a block whole in its forward alone."""
    plain = "return Weighted(total"
    penalty = " + sum(p.square().sum() for p in self.model.parameters())"
    own_wide.edit("experiment/task.py", plain, plain + penalty)
    done = own_wide.processes(PROCESSES, "experiment.train", *words("fsdp", "penalty"))
    (line,) = set(faults(done))
    assert "in the forward of the modules that hold them" in line


# What process 3 does instead of `values = block(values)`, and from which step on.
OTHER_CALLS = {
    "another block": (1, "values = self.blocks[1](values)"),
    "one of another size": (1, "values = self.narrow(values)"),
    "none": (1, "pass"),
    "none, in a later step": (60, "pass"),
    "one that no gradient comes to": (2, "values = values + block(values).detach()"),
}
CALL = """            if block is not self.blocks[2] or os.environ["RANK"] != "3" or calls < {}:
                values = block(values)
            else:
                {}
"""
NARROW = """        pair = nn.Linear(width, 128), nn.Linear(128, width)  # a block each
        self.narrow = nn.Sequential(*pair)
        self.calls = 0
"""


@pytest.mark.parametrize("name", OTHER_CALLS)
def test_other_calls_of_a_process_are_refused(own_wide: Project, name: str) -> None:
    """FSDP2 by itself would use a mixture of two blocks, be aborted by gloo, or wait for long."""
    model = "experiment/model.py"
    step, call = OTHER_CALLS[name]
    own_wide.edit(model, "            values = block(values)\n", CALL.format(step, call))
    old = "        for block in reversed(self.blocks):\n"
    own_wide.edit(model, old, f"        self.calls = calls = self.calls + self.training\n{old}")
    old = "        self.first = nn.Linear"
    own_wide.edit(model, old, NARROW + old)
    own_wide.edit(model, "from functools", "import os\nfrom functools")
    settings = ("training.max_steps=70", "output.checkpoint_every=500", "evaluation.every=500")
    done = own_wide.processes(PROCESSES, "experiment.train", *words("fsdp", "skipping", *settings))
    (line,) = set(faults(done))
    assert "the processes have called other parts of the model" in line
    assert len(metrics_of(own_wide.path / "runs" / "skipping")) == step - 1


TWICE = """    def train_step(self, step: Any) -> dict[str, Any]:
        told = super().train_step(step)
        self.second.step()
        return told

"""


def test_an_optimizer_of_parameters_that_fsdp_has_replaced_is_refused(own_wide: Project) -> None:
    """No gradient would come to them, so it would change nothing, and say nothing."""
    task = "experiment/task.py"
    own_wide.edit(task, "    def initialize(", f"{TWICE}    def initialize(")
    second = "        self.second = torch.optim.SGD(self.model.head.parameters(), lr=0.1)\n"
    own_wide.edit(task, "        return optimizer\n", f"{second}        return optimizer\n")
    done = own_wide.processes(PROCESSES, "experiment.train", *words("fsdp", "second"))
    (line,) = set(faults(done))
    assert "2 parameters of a SGD were taken from the model before session.register" in line


def test_tensors_beside_the_model_are_refused_by_fsdp(own_wide: Project) -> None:
    old = "    def initialize("
    new = """    def state(self) -> dict[str, Any]:
        return {"average": Average(self.model)}

"""
    own_wide.edit("experiment/task.py", old, new + old)
    text = (own_wide.path / "experiment" / "task.py").read_text()
    average = """

class Average:
    def __init__(self, model: Any) -> None:
        self.values = [p.detach().clone() for p in model.parameters()]

    def state_dict(self) -> dict[str, Any]:
        return {"values": self.values}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.values = state["values"]
"""
    (own_wide.path / "experiment" / "task.py").write_text(text + average)
    done = own_wide.processes(PROCESSES, "experiment.train", *words("fsdp", "average"))
    (line,) = set(faults(done))
    assert "state={'average': ...} holds tensors" in line


def test_nccl_sums_by_a_ring_or_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = SimpleNamespace(parallel="ddp", processes=2, bucket_mib=25)
    launched = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}
    for name, value in launched.items():
        monkeypatch.setenv(name, value)
    for name in ("NCCL_ALGO", "NCCL_NVLS_ENABLE"):
        monkeypatch.setenv(name, "")  # so that what is set below is undone
        del os.environ[name]
    refuse_other_launch(settings, torch.device("cpu"))
    assert "NCCL_ALGO" not in os.environ
    for name, other in (("NCCL_ALGO", "Tree"), ("NCCL_NVLS_ENABLE", "1")):
        os.environ[name] = other
        with pytest.raises(UserError, match=f"^{name}={other}: ") as caught:
            refuse_other_launch(settings, torch.device("cuda"))
        assert len(caught.value.lines) == 1
        del os.environ[name]
    refuse_other_launch(settings, torch.device("cuda"))
    assert (os.environ["NCCL_ALGO"], os.environ["NCCL_NVLS_ENABLE"]) == ("Ring", "0")
    refuse_other_launch(settings, torch.device("cuda"))  # what it has set is no fault


def test_another_number_of_processes_is_refused_unless_it_is_asked_for(
    wide: Project, parallel: str
) -> None:
    """Then the run's contexts hold both, and it is one of other conditions."""
    name = f"{parallel}-other"
    train(wide, parallel, name, "training.max_steps=4")
    other = words(parallel, name, "training.max_steps=6", "resume=auto", "training.processes=2")
    (line,) = set(faults(wide.processes(2, "experiment.train", *other)))
    assert "was trained with 4 processes, and these are 2: start as many, or resume_other_" in line
    done = wide.processes(2, "experiment.train", *other, "resume_other_processes=true")
    assert done.returncode == 0, done.stderr
    assert "it had 4 processes, and these are 2, so this is a run of other bits" in done.stdout
    run = wide.path / "runs" / name
    contexts = context_folders(run)
    found = [json.loads((each / "experiment_context.json").read_text()) for each in contexts]
    config = [each["conditions"]["config"]["training"]["processes"] for each in found]
    assert config == [4, 2]
    conditions = read_result(run).conditions
    assert conditions["config: training.processes"] == "4, then 2"
    recorded = TypeAdapter(Conditions).validate_python(found[1]["conditions"])
    with pytest.raises(UserError, match="was trained with other code or settings"):
        refuse_other_conditions(run, recorded)


# Claims ------------------------------------------------------------------------------------------

CLAIMS = """
- name: several
  text: A short training in four processes
  arguments: [experiment=several]
  metric: accuracy
  seeds: [42]
"""
EXPERIMENT = """# @package _global_
name: several
threads: 1
model:
  width: 16
training:
  parallel: ddp
  processes: 4
  shards: 4
  max_steps: 3
"""


def test_a_claim_of_four_processes_is_recorded_and_verified(wide: Project, tmp_path: Path) -> None:
    """Each training by as many processes as its settings say; another number is DIFFERENT."""
    project = wide.copy(tmp_path / "p")
    experiment = project.path / "configs" / "experiment" / "several.yaml"
    experiment.write_text(EXPERIMENT)
    record_claims(project, CLAIMS)
    command = "python -m torch.distributed.run --standalone --nproc-per-node=4 -m experiment.train"
    assert f"{command} experiment=several seed=42" in (project.path / "REPRODUCE.md").read_text()
    done = project.module("repro", "verify", "--require", "identical")
    assert done.returncode == 0, done.stdout + done.stderr
    (checkpoint,) = project.path.glob("runs/record/several/*/seed-42/checkpoints/last")
    done = project.module("experiment.evaluate", "--checkpoint", str(checkpoint))
    assert done.returncode == 0, done.stderr
    assert "equal to the recorded accuracy and bits of several" in done.stdout
    experiment.write_text(EXPERIMENT.replace("processes: 4", "processes: 2"))
    done = project.module("repro", "verify")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "nothing was trained" in done.stdout
    assert "config: training.processes is 2, recorded 4" in done.stdout


OF_TWO = """
- name: of-{0}
  text: A short training in two processes
  arguments: [experiment=several, training.parallel={0}, training.processes=2, training.shards=2]
  metric: accuracy
  seeds: [42]
"""
SAVING = """output:
  checkpoint_every: 3
  keep_checkpoints: 99
"""


@pytest.mark.long
def test_claims_of_two_processes_are_verified_as_a_whole_and_in_part(
    wide: Project, tmp_path: Path
) -> None:
    """Of ddp and of fsdp, whose segments begin at checkpoints in parts."""
    project = wide.copy(tmp_path / "p")
    experiment = project.path / "configs" / "experiment" / "several.yaml"
    experiment.write_text(EXPERIMENT.replace("max_steps: 3", "max_steps: 12") + SAVING)
    engines = ("ddp", "fsdp")
    record_claims(project, "".join(map(OF_TWO.format, engines)))
    for engine in engines:
        for options, told in {
            (): "weights and value have the recorded bits",
            ("--prefix", "3"): "3 of 12 steps have the recorded bits, loss to weights",
            ("--segments", "2", "--steps", "3"): "6 of 12 steps have the recorded bits",
        }.items():
            done = project.module(
                "repro", "verify", f"of-{engine}", *options, "--require", "identical"
            )
            assert done.returncode == 0, done.stdout + done.stderr
            assert told in done.stdout
