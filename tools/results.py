"""Measure the results that every generated project carries: those of each task.

    make results
    make results ARGS=text         of one task

Generates a project for each task, lets it record its claims (`make record`), and copies what that
wrote into templates/tasks/TASK/results/. Needed after each change of code, configs or locks; a test
(tests/project/test_training.py) fails until it is done. A tracker changes no condition, so projects
with one carry the same results.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from cookiecutter.main import cookiecutter

ROOT = Path(__file__).resolve().parent.parent
TASKS = ROOT / "templates" / "tasks"
RECORDED = Path("results") / "expected_metrics.json"
BLOCK = re.compile(r"<!-- repro:(\w+) -->\n(.*?)<!-- /repro:\w+ -->", re.DOTALL)


def main() -> int:
    known = json.loads((ROOT / "cookiecutter.json").read_text(encoding="utf-8"))["task"]
    for task in sys.argv[1:] or known:
        with tempfile.TemporaryDirectory() as scratch:
            project = generate(task, scratch)
            print(f"\nresults of {task}", flush=True)
            run(
                project,
                "make",
                "--no-print-directory",
                "record",
                f"VENV={ROOT / '.build' / 'venv'}",
            )
            keep(project, TASKS / task / "results")
        print(f"wrote templates/tasks/{task}/results/")
    return subprocess.run([sys.executable, str(ROOT / "tools" / "tasks.py")]).returncode


def keep(project: Path, results: Path) -> None:
    """Copy what a project has recorded; in names of files its claim is called CLAIM."""
    shutil.rmtree(results, ignore_errors=True)
    results.mkdir(parents=True)
    recorded = json.loads((project / RECORDED).read_text(encoding="utf-8"))
    (claim,) = recorded["claims"]
    shutil.copyfile(project / RECORDED, results / RECORDED.name)
    for folder in ("figures", "trace"):
        for path in sorted((project / "results" / folder).rglob("*")):
            name = str(path.relative_to(project / "results")).replace(claim, "CLAIM")
            if path.is_file():
                (results / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, results / name)
    (results / "reproduce").mkdir()
    for name, text in BLOCK.findall((project / "REPRODUCE.md").read_text(encoding="utf-8")):
        (results / "reproduce" / f"{name}.md").write_text(text)


def generate(task: str, folder: str) -> Path:
    """Generate a project of that task, all other options as they are by default."""
    answers = {"task": task, "project_slug": task}
    made = cookiecutter(
        str(ROOT), no_input=True, default_config=True, extra_context=answers, output_dir=folder
    )
    return Path(made)


def run(project: Path, *command: str) -> None:
    """Run a command in the project; end this program if it fails."""
    if code := subprocess.run(command, cwd=project).returncode:
        raise SystemExit(code)


if __name__ == "__main__":
    sys.exit(main())
