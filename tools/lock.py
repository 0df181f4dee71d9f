"""Write every lock anew: the projects' (templates/locks/) and the template's own.

    make lock                     keep the versions; add and remove what the .in files ask for
    make lock ARGS=--upgrade      take the newest versions

There is a lock for each task and one for each tracker, and a package has the same version in all of
them: versions are chosen for all together, and each lock keeps of them what its own requirements
need. So one environment can hold all of them, and neither task nor tracker is a reason for other
versions.

The work is done by the `make lock` of generated projects, so a lock from here and one from a
project are made alike, with the markers that let one lock serve all platforms. pip-compile chooses
for the Python that it runs on, and older ones may not fit what it chose: it runs on the lowest one
that we support.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from cookiecutter.main import cookiecutter

ROOT = Path(__file__).resolve().parent.parent
LOCKS = ROOT / "templates" / "locks"
OWN = (
    "requirements-tools",
    "requirements-checks",
    "requirements-tests",
    "requirements-frameworks",
)


def main() -> int:
    settings = json.loads((ROOT / "cookiecutter.json").read_text(encoding="utf-8"))
    running = "{}.{}".format(*sys.version_info)
    lowest = settings["_stack"]["python_lowest"]
    if running != lowest:
        remedy = f"rm -r .build/tools && make lock PYTHON=python{lowest}"
        print(f"lock: this is Python {running}, not {lowest}: {remedy}", file=sys.stderr)
        return 2
    upgrade = sys.argv[1:]
    trackers = [name for name in settings["tracker"] if name != "none"]
    targets = {name: LOCKS / f"{name}.lock" for name in (*settings["task"], *trackers, "dev")}
    with tempfile.TemporaryDirectory() as scratch:
        for path in targets.values():
            path.touch()  # the projects include them, those of a new tracker too
        of_tasks = {name: generate(scratch, task=name) for name in settings["task"]}
        of_trackers = {name: generate(scratch, tracker=name) for name in trackers}
        first = of_tasks["images"]
        asked = [path / "requirements.in" for path in of_tasks.values()]
        asked += [path / "requirements-tracker.in" for path in of_trackers.values()]
        asked.append(first / "requirements-dev.in")
        (first / "all.in").write_text(requests(asked))
        (first / "all.lock").write_text("".join(lock.read_text() for lock in targets.values()))
        lock_in(first, ["all"], upgrade)
        known = first / "all.lock"
        for name, project in of_tasks.items():
            relock(project, "requirements", known, targets[name])
        for name, project in of_trackers.items():
            shutil.copyfile(targets["images"], project / "requirements.lock")
            relock(project, "requirements-tracker", known, targets[name])
        relock(first, "requirements-dev", known, targets["dev"])
        for name in OWN:
            for suffix in (".in", ".lock"):
                shutil.copy(ROOT / f"{name}{suffix}", first)
        lock_in(first, list(OWN), upgrade)
        for name in OWN:
            shutil.copyfile(first / f"{name}.lock", ROOT / f"{name}.lock")
    print(f"wrote templates/locks/ and {', '.join(f'{name}.lock' for name in OWN)}")
    return 0


def relock(project: Path, name: str, known: Path, target: Path) -> None:
    """Make a lock of a project from versions that are known, and copy it to `target`."""
    shutil.copyfile(known, project / f"{name}.lock")
    lock_in(project, [name])
    shutil.copyfile(project / f"{name}.lock", target)


def requests(paths: list[Path]) -> str:
    """Return what several .in files ask for, each package once."""
    wanted = {line for path in paths for line in path.read_text().splitlines()}
    return "\n".join(sorted(line for line in wanted if line[:1] not in "#-"))


def generate(folder: str, **chosen: str) -> Path:
    """Generate a project with these answers, all other options as they are by default."""
    answers = {**chosen, "project_slug": "-".join(chosen.values())}
    made = cookiecutter(
        str(ROOT),
        no_input=True,
        default_config=True,
        extra_context=answers,
        output_dir=folder,
    )
    return Path(made)


def lock_in(project: Path, names: list[str], arguments: list[str] | None = None) -> None:
    """Run the project's own `make lock`; end this program if it fails."""
    command = ["make", "--no-print-directory", "lock", f"VENV={sys.prefix}"]
    command += [f"LOCKS={' '.join(names)}", f"ARGS={' '.join(arguments or [])}"]
    if code := subprocess.run(command, cwd=project).returncode:
        raise SystemExit(code)


if __name__ == "__main__":
    sys.exit(main())
