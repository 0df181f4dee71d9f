"""Hold the same promises on a GPU: `make test-gpu`. Without a GPU these tests are skipped.

A GPU gives other bits than a CPU, and another GPU model other ones again: only runs on the same GPU
are compared here.
"""

import re
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
        "from repro import environment; environment.enter('portable', 1)\n"
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
