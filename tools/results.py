"""Measure the results that every generated project carries.

    make results

Generates a project with the defaults and lets it record its claims (`make record`). A project with
a tracker has another lock and an adapter more, and both are conditions. So one is generated for
each tracker, its conditions take the place of the default's, and a training of its own must find
the measured bits before they are written for it. Needed after each change of code, configs or
locks; a test (tests/project/test_training.py) fails until it is done.
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
TEMPLATE = ROOT / "{{cookiecutter.project_slug}}"
INCLUDED = ROOT / "templates" / "results"  # the files that differ between trackers
RECORDED = Path("results") / "expected_metrics.json"
BLOCK = re.compile(r"(<!-- repro:(\w+) -->\n)(.*?)(<!-- /repro:\w+ -->)", re.DOTALL)
# Runs in a project with a tracker: takes the results from standard input, and its own conditions.
CARRY_OVER = """
import json, sys
from dataclasses import replace
from pathlib import Path
from repro.results.claims import conditions_now
from repro.results.recording import parse_recording
from repro.results.record import publish
root = Path.cwd()
recording = parse_recording(json.load(sys.stdin))
for name, claim in recording.claims.items():
    conditions = conditions_now(root, claim.arguments).conditions
    recording.claims[name] = replace(claim, conditions=conditions)
publish(root, recording)
"""


def main() -> int:
    trackers = json.loads((ROOT / "cookiecutter.json").read_text(encoding="utf-8"))["tracker"]
    with tempfile.TemporaryDirectory() as scratch:
        projects = {tracker: generate(tracker, scratch) for tracker in trackers}
        first = projects.pop("none")
        run(first, "make", "--no-print-directory", "record", f"VENV={ROOT / '.build' / 'venv'}")
        python = str(ROOT / ".build" / "trackers" / "bin" / "python")
        for tracker, project in projects.items():
            print(f"\nthe same in a project with {tracker}", flush=True)
            run(project, python, "-c", CARRY_OVER, given=(first / RECORDED).read_text())
            run(project, python, "-m", "repro", "verify", "--require", "identical")
        for tracker, project in {"none": first, **projects}.items():
            shutil.copyfile(project / RECORDED, INCLUDED / f"{tracker}.json")
            (INCLUDED / f"{tracker}.md").write_text(measured(project)["lock"])
        for name in ("figures", "trace"):
            shutil.rmtree(TEMPLATE / "results" / name, ignore_errors=True)
            shutil.copytree(first / "results" / name, TEMPLATE / "results" / name)
        same = measured(first)
    del same["lock"]
    path = TEMPLATE / "REPRODUCE.md"
    path.write_text(BLOCK.sub(lambda m: m[1] + same.get(m[2], m[3]) + m[4], path.read_text()))
    print("wrote templates/results/, and figures, trace and REPRODUCE.md of the template")
    return 0


def measured(project: Path) -> dict[str, str]:
    """Return the measured blocks of its REPRODUCE.md, by name."""
    return {m[2]: m[3] for m in BLOCK.finditer((project / "REPRODUCE.md").read_text())}


def generate(tracker: str, folder: str) -> Path:
    """Generate a project with that tracker, all other options as they are by default."""
    answers = {"tracker": tracker, "project_slug": tracker}
    made = cookiecutter(
        str(ROOT), no_input=True, default_config=True, extra_context=answers, output_dir=folder
    )
    return Path(made)


def run(project: Path, *command: str, given: str | None = None) -> None:
    """Run a command in the project; end this program if it fails."""
    if code := subprocess.run(command, cwd=project, input=given, text=True).returncode:
        raise SystemExit(code)


if __name__ == "__main__":
    sys.exit(main())
