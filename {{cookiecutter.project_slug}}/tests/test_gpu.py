"""Hold the same promises on a GPU: `make test-gpu`. Without a GPU these tests are skipped.

A GPU gives other bits than a CPU, and another GPU model other ones again: only runs on the same GPU
are compared here.
"""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import ROOT, STEPS, Commands

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no GPU here"),
]


@pytest.fixture(scope="module")
def on_gpu(commands: Commands) -> Path:
    return commands.train("gpu", "device=cuda")


def test_twice_on_a_gpu(commands: Commands, on_gpu: Path) -> None:
    assert commands.files(commands.train("gpu-again", "device=cuda")) == commands.files(on_gpu)


def test_data_workers_on_a_gpu(commands: Commands, on_gpu: Path) -> None:
    run = commands.train("gpu-workers", "device=cuda", "num_workers=3")
    assert commands.files(run) == commands.files(on_gpu)


def test_resuming_on_a_gpu(commands: Commands, on_gpu: Path) -> None:
    commands.train("gpu-stopped", "device=cuda", steps=7)
    run = commands.train("gpu-stopped", "device=cuda", "resume=auto")
    assert commands.files(run) == commands.files(on_gpu)


@pytest.mark.parametrize("shards", [1, 4])
def test_a_step_computed_twice_on_a_gpu_changes_nothing(commands: Commands, shards: int) -> None:
    settings = ("device=cuda", f"training.shards={shards}")
    once = commands.train(f"gpu-once-{shards}", *settings)
    twice = commands.train(f"gpu-twice-{shards}", *settings, "training.recheck_every=3")
    assert commands.files(twice) == commands.files(once)


MODELS = ROOT / "configs" / "model"
# Every model and every optimizer that configs/ has.
CHOICES = [
    (f"{group}={path.stem}", "training.batch_size=32")
    for group in ("model", "optimizer")
    for path in sorted((ROOT / "configs" / group).glob("*.yaml"))
]


# The precisions, where the GPU has them, and fused attention in the models that have the setting:
# flash kernels take bf16, and the memory-efficient ones take fp32.
HAS_TF32 = torch.cuda.is_available() and torch.cuda.get_device_capability() >= (8, 0)
PRECISIONS = [("training.precision=bf16",), *([("training.precision=tf32",)] if HAS_TF32 else [])]
ATTENDING = [
    path.stem
    for path in sorted((ROOT / "configs" / "model").glob("*.yaml"))
    if re.search("(?m)^attention:", path.read_text("utf-8"))
]
FUSED = [
    (f"model={model}", "model.attention=fused", "training.batch_size=32", f"training.precision={p}")
    for model in ATTENDING
    for p in ("fp32", "bf16")
]


@pytest.mark.parametrize("settings", [("training.shards=4",), *PRECISIONS, *CHOICES, *FUSED])
def test_other_settings_on_a_gpu_twice_and_resumed(
    commands: Commands, settings: tuple[str, ...]
) -> None:
    name = "-".join(settings)
    first = commands.train(name, "device=cuda", *settings)
    commands.train(f"{name}-resumed", "device=cuda", *settings, steps=STEPS // 2)
    second = commands.train(f"{name}-resumed", "device=cuda", "resume=auto", *settings)
    assert commands.files(first) == commands.files(second)


@pytest.mark.parametrize("precision", ["fp32", "tf32"] if HAS_TF32 else ["fp32"])
def test_tf32_is_on_only_if_asked_for_and_the_flags_are_in_force(
    commands: Commands, precision: str
) -> None:
    """A product in TF32 keeps 10 bits of mantissa: its error is a thousand times as large."""
    program = (
        f"precision = {precision!r}\n"
        "from repro import environment; environment.enter('auto', 1)\n"
        "import os, torch; from repro.training import flags, set_determinism\n"
        "set_determinism('strict', precision)\n"
        "x = torch.rand(256, 256, dtype=torch.float64)\n"
        "error = ((x.float().cuda() @ x.float().cuda()).cpu() - x @ x).abs().max() / 256\n"
        "in_force = flags()\n"
        "assert (error < 1e-6) == (precision == 'fp32'), error\n"
        "assert in_force['deterministic_algorithms'] == 2 and not in_force['cudnn.benchmark']\n"
        "assert in_force['cudnn.deterministic']\n"
        "rounding = 'tf32' if precision == 'tf32' else 'ieee'\n"
        "for name in ('matmul', 'cudnn.conv', 'cudnn.rnn'):\n"
        "    assert in_force[f'{name}.fp32_precision'] == rounding, in_force\n"
        "assert os.environ['CUBLAS_WORKSPACE_CONFIG'] == ':4096:8'"
    )
    script = commands.folder / f"{precision}.py"
    script.write_text(program)
    done = commands.script(script)
    assert done.returncode == 0, done.stderr


# Does steps of the project's own training, of which the fourth to the sixth must not wait.
WITHOUT_WAITING = """
import sys
from contextlib import nullcontext
from experiment import ROOT
from experiment.config import LOADER
from repro import environment
config = LOADER.load(sys.argv[1:])
environment.enter(config.profile, config.threads)
import torch
from repro.core.project import author_object
from repro.runs.training_session import TrainingSession

class Checked(TrainingSession):
    def _making(self, index):
        if index in (3, 4, 5):
            torch.cuda.set_sync_debug_mode("error")

    def _goes_on(self, step):
        torch.cuda.set_sync_debug_mode("default")
        return super()._goes_on(step)

session = Checked(ROOT, config, lambda run: nullcontext())
try:
    author_object(ROOT, "train")(session)
finally:
    torch.cuda.set_sync_debug_mode("default")
    session.close()
assert session._pending is not None, "each step waits: see what the run said"
"""


@pytest.mark.parametrize("settings", [(), ("num_workers=2", "training.shards=4"), *PRECISIONS])
def test_no_step_waits_for_the_gpu(commands: Commands, settings: tuple[str, ...]) -> None:
    """From its batch to its end: torch raises an error where the host waits."""
    script = commands.folder / "without_waiting.py"
    script.write_text(WITHOUT_WAITING)
    run = commands.folder / "-".join(("without-waiting", *settings))
    always = (f"run_dir={run}", "device=cuda", "training.max_steps=8", "output.trace=true")
    done = commands.script(script, *always, *settings)
    assert done.returncode == 0, done.stdout + done.stderr


# Trains with the trace and without it in turn, and prints the ratio of the times of a step.
TRACED = """
import statistics, sys, time
from contextlib import nullcontext
from experiment import ROOT
from experiment.config import LOADER
from repro import environment
folder, *settings = sys.argv[1:]
config = LOADER.load(settings)
environment.enter(config.profile, config.threads)
import torch
from repro.core.project import author_object
from repro.runs.training_session import TrainingSession

class Timed(TrainingSession):
    def _making(self, index):
        if index in (20, 119):  # without the start, and without the checkpoint at the end
            torch.cuda.synchronize()
            self.times.append(time.perf_counter())

def seconds(number, traced):
    told = [*settings, f"run_dir={folder}/{number}-{traced}", f"output.trace={traced}"]
    session = Timed(ROOT, LOADER.load(told), lambda run: nullcontext())
    session.times = []
    try:
        author_object(ROOT, "train")(session)
    finally:
        session.close()
    began, ended = session.times
    return ended - began

both = [(seconds(n, "true"), seconds(n, "false")) for n in range(6)][1:]
print("ratio", statistics.median(a / b for a, b in both))
"""
MOST = {"small_cnn": 1.10, "resnet18": 1.05}  # that a step with the trace takes of one without it


@pytest.mark.parametrize("model", [name for name in MOST if (MODELS / f"{name}.yaml").is_file()])
def test_the_trace_costs_little_on_a_gpu(
    commands: Commands, model: str, record_property: Callable[[str, object], None]
) -> None:
    script = commands.folder / "traced.py"
    script.write_text(TRACED)
    settings = (f"model={model}", "device=cuda", "training.max_steps=120", "tracker=none")
    quiet = ("evaluation.every=1000", "output.checkpoint_every=1000")
    done = commands.script(script, str(commands.folder / model), *settings, *quiet)
    assert done.returncode == 0, done.stderr
    ratio = float(done.stdout.rpartition("ratio ")[2])
    record_property(f"{model} with the trace", round(ratio, 3))
    assert ratio <= MOST[model]


def test_a_loss_that_is_not_finite_ends_a_training_on_a_gpu_as_on_a_cpu(
    commands: Commands,
) -> None:
    """Torch's fused kernels leave weights and moments as they are where the flag is set."""
    program = (
        "from repro import environment; environment.enter('auto', 1)\n"
        "import torch; from repro.training.pending import Pending\n"
        "weight = torch.nn.Parameter(torch.ones(100, device='cuda'))\n"
        "sgd = (torch.optim.SGD, {'lr': 0.1}), (torch.optim.SGD, {'lr': 0.1, 'momentum': 0.9})\n"
        "adam = (torch.optim.Adam, {}), (torch.optim.AdamW, {'amsgrad': True})\n"
        "kinds = [*sgd, *adam, (torch.optim.AdamW, {}), (torch.optim.Adagrad, {})]\n"
        "for kind, options in kinds:\n"
        "    optimizer = kind([weight], fused=True, **options)\n"
        "    kept = Pending(weight.device, {'model': optimizer})\n"
        "    weight.grad = torch.ones_like(weight); optimizer.step()\n"
        "    state = [weight, *optimizer.state[weight].values()]\n"
        "    before = [t.clone() for t in state if t is not None]\n"
        "    kept.watch([torch.tensor(float('nan'), device='cuda')])\n"
        "    for value in (float('nan'), 1.0):\n"
        "        kept.watch([weight.sum()]); weight.grad.fill_(value); optimizer.step()\n"
        "    after = [t for t in [weight, *optimizer.state[weight].values()] if t is not None]\n"
        "    assert all(map(torch.equal, before, after)), kind\n"
    )
    script = commands.folder / "skipped.py"
    script.write_text(program)
    done = commands.script(script)
    assert done.returncode == 0, done.stderr
