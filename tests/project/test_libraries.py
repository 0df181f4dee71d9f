"""A training says at its start which CUDA libraries are not the lock's."""

import json
import re
import shutil
from pathlib import Path

from conftest import VENV, Project

FIND = """if 1:
    import pathlib, torch
    from repro.environment.cuda import find_foreign
    print(find_foreign(pathlib.Path("requirements.lock"), torch))"""


def test_the_environments_cuda_is_that_of_the_lock(project: Project) -> None:
    """PyTorch loads CUDA and cuDNN on a machine without a GPU, too."""
    done = project.run("python", "-c", FIND)
    assert done.stdout.strip() == "[]", done.stderr


def test_cuda_libraries_that_are_not_the_locks_are_named_at_the_start(
    own_project: Project, tmp_path: Path
) -> None:
    lock = own_project.path / "requirements.lock"
    text = re.sub(r"(?m)^(nvidia-cudnn-cu13)==\S+", r"\1==9.1.0.70", lock.read_text())
    lock.write_text(re.sub(r"(?m)^(nvidia-cuda-runtime)==\S+", r"\1==12.8.90", text))
    (real,) = VENV.glob("lib/python3*/site-packages/nvidia/cu13/lib/libcudart.so.*")
    other = shutil.copy(real, tmp_path)
    settings = ("training.max_steps=1", "run_dir=runs/short")
    done = own_project.train(*settings, LD_PRELOAD=str(other))
    assert done.returncode == 0, done.stderr
    printed = [line for line in done.stdout.splitlines() if line.startswith("warning: ")]
    context = json.loads((own_project.path / "runs/short/experiment_context.json").read_text())
    assert printed == [f"warning: {line}" for line in context["software"]["not_as_locked"]]
    outside, runtime, cudnn = printed
    assert outside.startswith(f"warning: {other} is loaded, from outside ")
    assert re.search(r"lock:\d+: nvidia-cuda-runtime 12.8.90 is locked, torch has CUDA 13", runtime)
    assert re.search(r"nvidia-cudnn-cu13 9.1.0.70 is locked, cuDNN 9.\d+.\d+ is loaded", cudnn)
