"""Generated projects and the shared environment, which `make test` makes from the project's lock.

Everything here is real: cookiecutter writes the projects, their own commands run in processes of
their own, with the environment that `make setup` installed.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest

T = TypeVar("T")
ROOT = Path(__file__).resolve().parent.parent
TEMPLATE = ROOT / "{{cookiecutter.project_slug}}"
VENV = ROOT / ".build" / "venv"
TRACKERS = ROOT / ".build" / "trackers"  # an environment that has the trackers' packages as well
CHECKS = ROOT / ".build" / "checks" / "bin"  # what projects are checked with
COOKIECUTTER = ROOT / ".build" / "tools" / "bin" / "cookiecutter"

sys.path.insert(0, str(TEMPLATE))  # tests of single functions import the kit where it stands

PROFILE_VARIABLES = [
    "REPRO_PROFILE",
    "PYTHONHASHSEED",
    "CUBLAS_WORKSPACE_CONFIG",
    "ATEN_CPU_CAPABILITY",
    "ONEDNN_MAX_CPU_ISA",
    "MKL_CBWR",
    "NPY_DISABLE_CPU_FEATURES",
    "OPENBLAS_CORETYPE",
]

# Recorded in a moment.
CLAIMS = """
- name: short
  text: A short training
  arguments: [training.max_steps=3, output.log_every=1]
  metric: accuracy
  seeds: [42]
"""


def clean_environ(**variables: str) -> dict[str, str]:
    """This process's environment as a newcomer's: without the profile, without make's own."""
    left_out = {*PROFILE_VARIABLES, "MAKEFLAGS", "MAKELEVEL", "MFLAGS", "CI"}
    kept = {name: value for name, value in os.environ.items() if name not in left_out}
    return {**kept, **variables}


@dataclass(frozen=True)
class Project:
    """A generated project that uses a shared environment."""

    path: Path
    venv: Path = VENV

    def run(self, *command: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run a command in the project's folder; `python` is the shared environment's."""
        words = [
            str(self.venv / "bin" / "python") if word == "python" else word for word in command
        ]
        return subprocess.run(
            words,
            cwd=self.path,
            env=clean_environ(**variables),
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
        )

    def make(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return self.run("make", f"VENV={self.venv}", *arguments, **variables)

    def train(self, *settings: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return self.run("python", "-m", "experiment.train", *settings, **variables)

    def edit(self, name: str, old: str, new: str) -> None:
        """Change one place of a file, as an author would."""
        text = (self.path / name).read_text()
        assert text.count(old) == 1, f"{name} has {old!r} {text.count(old)} times"
        (self.path / name).write_text(text.replace(old, new))

    def copy(self, target: Path) -> "Project":
        left_out = shutil.ignore_patterns("runs", "data", "__pycache__", ".*_cache")
        shutil.copytree(self.path, target, symlinks=True, ignore=left_out)
        return Project(target, self.venv)


def generate(folder: Path, *answers: str) -> Project:
    """Run cookiecutter with the defaults, and with `answers` such as license=MIT."""
    done = subprocess.run(
        [COOKIECUTTER, "--no-input", "--default-config", "-o", folder, ROOT, *answers],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    (path,) = folder.iterdir()
    tracked = any(re.match("tracker=(?!none)", answer) for answer in answers)
    return Project(path, TRACKERS if tracked else VENV)


def last_line(text: str) -> str:
    return text.rstrip().rpartition("\n")[2]


def faults(done: subprocess.CompletedProcess[str]) -> list[str]:
    """The lines on standard error of a command that must refuse: exit code 2, no traceback."""
    assert done.returncode == 2, (done.returncode, done.stdout, done.stderr)
    lines = done.stderr.splitlines()
    assert lines
    assert all(line.startswith("error: ") for line in lines), done.stderr
    return lines


def git(project: Project, *arguments: str) -> str:
    who = ("-c", "user.name=test", "-c", "user.email=test@localhost", "-c", "commit.gpgsign=no")
    done = project.run("git", *who, *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def commit(project: Project) -> None:
    git(project, "add", "--all")
    git(project, "commit", "--quiet", "--message", "State")


@pytest.fixture(scope="session", autouse=True)
def _nothing_left_in_tmp() -> Iterator[None]:
    """cookiecutter, torchrun and W&B leave files there: 1,500 after all tests."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        os.environ["TMPDIR"] = folder
        yield


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project with the defaults that no test changes: read it, train in it with own folders."""
    return generate(tmp_path_factory.mktemp("project"))


@pytest.fixture
def own_project(project: Project, tmp_path: Path) -> Project:
    """A fresh copy to change."""
    return project.copy(tmp_path / project.path.name)


@contextmanager
def or_skip(running: AbstractContextManager[T], missing: type[Exception]) -> Iterator[T]:
    """What is `running`; where it raises `missing` the tests are skipped, but in CI they fail."""
    try:
        with running as found:
            yield found
    except missing as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def mypy_cache(tmp_path_factory: pytest.TempPathFactory) -> str:
    """For `make lint`: mypy takes 13 s for torch's code without one."""
    return str(tmp_path_factory.mktemp("mypy"))


@pytest.fixture(scope="session")
def engine() -> Iterator[Any]:
    """A Docker engine; in CI one must be there or start."""
    from engine import NoEngine, running_engine  # it imports this file

    with or_skip(running_engine(), NoEngine) as found:
        yield found


@pytest.fixture(scope="session")
def recorded(project: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project that recorded a claim, in a folder of a larger repository; no test changes it."""
    top = tmp_path_factory.mktemp("recorded")
    found = project.copy(top / "paper" / project.path.name)
    (found.path / "configs" / "claims.yaml").write_text(CLAIMS)
    (found.path / "odd näme (1).txt").write_text("content\n")
    (found.path / "link.md").symlink_to("README.md")
    (found.path / "run.sh").write_text("#!/bin/sh\n")
    (found.path / "run.sh").chmod(0o755)
    subprocess.run(["git", "init", "--quiet", top], check=True)
    commit(found)
    done = found.make("record")
    assert done.returncode == 0, done.stdout + done.stderr
    commit(found)
    return found


@pytest.fixture
def own(recorded: Project, tmp_path: Path) -> Project:
    """A clone elsewhere, with the runs and the data, to change: files have other times there."""
    source = recorded.path.parent.parent
    subprocess.run(["git", "clone", "--quiet", source, tmp_path / "clone"], check=True)
    path = tmp_path / "clone" / "paper" / recorded.path.name
    for name in ("runs", "data"):
        shutil.copytree(recorded.path / name, path / name, symlinks=True)
    return Project(path)


# Files that take minutes, the longest first: else one worker does the last of them alone.
LONGEST = ["training", "diff", "verify", "processes", "adapting", "image", "clean_room", "tracking"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    places = {f"test_{name}": place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.stem, len(LONGEST)))


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "long: takes minutes; run by make test-long")
    config.addinivalue_line("markers", "alone: takes the time, so nothing may run beside it")
