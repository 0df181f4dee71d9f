"""Show the template at work: a project with the defaults, trained on real data, and its verdict.

Generates into the next free folder (demo, demo-2, ...), then does what a person would do there. The
packages are installed once for each task, into .build/venv (images) or .build/venv-TASK, which its
demos share.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from cookiecutter.main import cookiecutter

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT / ".build"
STEPS = {
    "setup": "install the lock, every file checked by its hash",
    "data": "the data: real ones, from the packages of the lock",
    "train": "train",
    "evaluate": "evaluate the run",
    "reproduce": "repeat the published result, bit for bit",
}


def main() -> int:
    task = sys.argv[1]
    name = free_name()
    heading(f"generate {name}/ ({task})")
    cookiecutter(
        str(ROOT),
        no_input=True,
        default_config=True,
        extra_context={"project_slug": name, "task": task},
        output_dir=str(ROOT),
    )
    project = ROOT / name
    # Another lock would replace the environment of the images, which the tests share, too.
    environment = SHARED / ("venv" if task == "images" else f"venv-{task}")
    (project / ".venv").symlink_to(os.path.relpath(environment, project))
    commit(project)
    for verb, meaning in STEPS.items():
        heading(f"make {verb}: {meaning}")
        code = subprocess.run(["make", "--no-print-directory", verb], cwd=project).returncode
        if code:
            return code
    return 0


def free_name() -> str:
    """Return the next name that no folder has: demo, demo-2, ..."""
    name = "demo"
    number = 1
    while os.path.lexists(ROOT / name):
        number += 1
        name = f"demo-{number}"
    return name


def heading(text: str) -> None:
    print(f"\n== {text}", flush=True)


def commit(project: Path) -> None:
    """Make a repository of its own, so that the run records a commit of this project."""
    if shutil.which("git"):
        who = ["-c", "user.name=demo", "-c", "user.email=demo@localhost", "-c", "commit.gpgsign=no"]
        for command in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "-m", "Generate"]):
            subprocess.run(["git", *who, *command], cwd=project, check=True)


if __name__ == "__main__":
    sys.exit(main())
