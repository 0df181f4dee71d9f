"""Other CPU models, emulated: the same bits."""

import os
import re
import shutil
from pathlib import Path

import pytest
from background import contents
from conftest import VENV, Project, generate

NUMPY = """
import hashlib, numpy as np
x = np.random.default_rng(0).random((65, 67)) + 0.1
parts = [np.exp(x), np.log(x), np.sin(x), x ** 1.7, np.tanh(x), x @ x.T, np.linalg.svd(x)[1]]
parts += [np.linalg.inv(x[:65, :65] + np.eye(65)), x.sum(), x.mean(0), np.sqrt(x)]
parts += [part.astype(np.float32) for part in parts] + [np.exp(x.astype(np.float32))]
print(hashlib.sha256(b"".join(np.asarray(part).tobytes() for part in parts)).hexdigest())
"""


SMALL = {
    "images": ("model.width=4",),
    "text": ("training.batch_size=4", "evaluation.every=3", "dataset.validation_fraction=0.005"),
    "table": (),
}


@pytest.mark.parametrize(
    ("model", "task"),
    [
        ("Haswell", "images"),
        ("Haswell", "text"),
        ("Haswell", "table"),
        pytest.param("EPYC-Rome", "images", marks=pytest.mark.long),
    ],
)
def test_cpus_without_avx512_give_the_same_bits(
    project: Project, model: str, task: str, tmp_path: Path
) -> None:
    """Emulated by qemu-user, which .ci/run installs; Intel's and AMD's."""
    qemu = shutil.which("qemu-x86_64") or shutil.which("qemu-x86_64-static")
    if not qemu:
        assert "CI" not in os.environ, "qemu-user is missing"
        pytest.skip("needs qemu-x86_64 (Debian's and Ubuntu's qemu-user)")
    import repro.environment as environment

    variables = {**environment.PROFILES["portable"], "REPRO_PROFILE": "portable"}
    python = str(VENV / "bin" / "python")
    if task != "images":
        project = generate(tmp_path / "project", f"task={task}")
    settings = (*SMALL[task], "training.max_steps=6", "output.log_every=1", "threads=1")
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
