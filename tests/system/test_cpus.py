"""Other CPU models, emulated: the same bits."""

import json
import os
import re
import shutil
from pathlib import Path

import pytest
from background import contents
from conftest import ROOT, TEMPLATE, VENV, Project, generate
from repro.environment.profile import MARKER, PROFILES

NUMPY = """
import hashlib, numpy as np
x = np.random.default_rng(0).random((65, 67)) + 0.1
parts = [np.exp(x), np.log(x), np.sin(x), x ** 1.7, np.tanh(x), x @ x.T, np.linalg.svd(x)[1]]
parts += [np.linalg.inv(x[:65, :65] + np.eye(65)), x.sum(), x.mean(0), np.sqrt(x)]
parts += [part.astype(np.float32) for part in parts] + [np.exp(x.astype(np.float32))]
print(hashlib.sha256(b"".join(np.asarray(part).tobytes() for part in parts)).hexdigest())
"""

PRODUCTS = ROOT / "tests" / "product_bits.py"
BF16 = ROOT / "tests" / "bf16_bits.py"

SMALL = {
    "images": ("model.width=4",),
    "text": ("training.batch_size=4", "evaluation.every=3", "dataset.validation_fraction=0.005"),
    "table": (),
}


def emulator() -> str:
    qemu = shutil.which("qemu-x86_64") or shutil.which("qemu-x86_64-static")
    if not qemu:
        assert "CI" not in os.environ, "qemu-user is missing"
        pytest.skip("needs qemu-x86_64 (Debian's and Ubuntu's qemu-user)")
    return qemu


def digests(project: Project, model: str, *command: str) -> list[dict[str, str]]:
    """What a script prints on this machine, and on an emulated CPU model."""
    python = str(VENV / "bin" / "python")
    variables = {**PROFILES["portable"], MARKER: "portable"}
    found = []
    for start in ([], [emulator(), "-cpu", model]):
        done = project.run(*start, python, *command, **variables)
        assert done.returncode == 0, done.stderr
        found.append(json.loads(done.stdout))
    return found


@pytest.mark.parametrize(
    "model",
    [
        "Haswell",
        pytest.param("Skylake-Client", marks=pytest.mark.long),
        pytest.param("EPYC-Rome", marks=pytest.mark.long),
        pytest.param("EPYC-Milan", marks=pytest.mark.long),
    ],
)
def test_products_have_the_same_bits_on_other_cpus(project: Project, model: str) -> None:
    """Products of many shapes and layouts, recurrent networks and a ResNet-18, by threads.

    Each number of threads in a process of its own: all in one took 20 minutes on a busy machine.
    """
    for threads in ("1", "2", "3", "8"):
        real, emulated = digests(project, model, str(PRODUCTS), str(TEMPLATE), threads)
        assert len(real) == 27
        assert real == emulated


@pytest.mark.parametrize(
    ("model", "size", "threads"),
    [
        ("Haswell", "small", ["1"]),
        pytest.param("Haswell", "large", ["1", "2"], marks=pytest.mark.long),
        pytest.param("EPYC-Rome", "large", ["1", "2"], marks=pytest.mark.long),
    ],
)
def test_bfloat16_has_the_same_bits_on_other_cpus(
    project: Project, model: str, size: str, threads: list[str]
) -> None:
    """Two steps of each task's model under autocast, and operations with their gradients."""
    tasks = TEMPLATE.parent / "templates" / "tasks"
    command = (str(BF16), str(TEMPLATE), str(tasks), size, *threads)
    real, emulated = digests(project, model, *command)
    assert len(real) == len(threads) * (27 if size == "small" else 29)
    assert real == emulated


@pytest.mark.parametrize(
    ("model", "task", "steps"),
    [
        ("Haswell", "images", 6),
        ("Haswell", "text", 6),
        ("Haswell", "table", 6),
        pytest.param("EPYC-Rome", "images", 20, marks=pytest.mark.long),
        pytest.param("EPYC-Rome", "text", 20, marks=pytest.mark.long),
        pytest.param("EPYC-Rome", "table", 20, marks=pytest.mark.long),
    ],
)
def test_cpus_without_avx512_give_the_same_bits(
    project: Project, model: str, task: str, steps: int, tmp_path: Path
) -> None:
    """Emulated by qemu-user, which .ci/run installs; Intel's and AMD's."""
    qemu = emulator()
    variables = {**PROFILES["portable"], MARKER: "portable"}
    python = str(VENV / "bin" / "python")
    if task != "images":
        project = generate(tmp_path / "project", f"task={task}")
    settings = (*SMALL[task], f"training.max_steps={steps}", "output.log_every=1", "threads=1")
    found = []
    for name, start in (("real", []), (model, [qemu, "-cpu", model])):
        run = tmp_path / name
        # The variables are set before: started anew, Python would leave the emulator.
        done = project.run(
            *start, python, "-m", "experiment.train", f"run_dir={run}", *settings, **variables
        )
        assert done.returncode == 0, done.stderr
        digest = project.run(*start, python, "-c", NUMPY, **variables)
        assert digest.returncode == 0, digest.stderr
        found.append((contents(run), digest.stdout, re.findall("bits .*", done.stdout)))
    assert found[0] == found[1]
