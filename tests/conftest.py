"""Generated projects and the shared environment, which `make test` makes from the project's lock.

Tests are in tiers. unit/: functions, in this process. project/: a generated project and its
commands. system/: what needs Docker, Slurm, servers, a browser, another CPU or the files of the
whole environment.

cookiecutter writes the projects, in the environment that `make setup` installed. A command that
only has to give its answer comes from a fork server (forks.py: `Project.module`, `train`,
`processes`); what is about starts, signals, profiles or threads is a process of its own (`run`,
`make`).
"""

import fcntl
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import budget
import fork_client
import order
import pytest
from forks import fork_server, stop_servers
from progress import Progress

T = TypeVar("T")
ROOT = Path(__file__).resolve().parent.parent
TEMPLATE = ROOT / "{{cookiecutter.project_slug}}"
VENV = ROOT / ".build" / "venv"
TRACKERS = ROOT / ".build" / "trackers"  # an environment that has the trackers' packages as well
CHECKS = ROOT / ".build" / "checks" / "bin"  # what projects are checked with
UV = ROOT / ".build" / "runner" / "bin" / "uv"
COOKIECUTTER = ROOT / ".build" / "tools" / "bin" / "cookiecutter"

TASKS = ROOT / "templates" / "tasks"
IMAGES = TASKS / "images"

# Tests of single functions import the kit, and the code of the task of images, where they stand.
sys.path.insert(0, str(TEMPLATE))

import experiment  # noqa: E402
from repro.environment.profile import PROFILES  # noqa: E402

experiment.__path__.append(str(IMAGES / "experiment"))

PORTABLE = {**PROFILES["portable"], "REPRO_PROFILE": "portable"}
# Seconds after which a command hangs: ten times the slowest one that was seen (a project's own
# tests, two minutes on a slow machine).
HANGS = 1200

# The last commit whose kit has all its modules side by side.
BEFORE_THE_PACKAGES = "f367be3942738d86dd655894cd9565bc6a7bcebf"

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

# Said after ten seconds: on a busy machine that much may lie between the starts of two processes.
WAITING = re.compile(r"(?m)^process \d+ waits for the other processes of WORLD_SIZE=\d+ at .*\n")

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
    left_out = {*PROFILE_VARIABLES, *fork_client.THREADS, "MAKEFLAGS", "MAKELEVEL", "MFLAGS", "CI"}
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in left_out and not name.startswith(("OPENBLAS_", "NVPL_"))
    }
    return {**kept, **variables}


def finish(
    words: list[str], folder: Path, environ: dict[str, str], seconds: float = HANGS
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end; one that hangs is ended with all that it started, and named."""
    process = subprocess.Popen(
        words,
        cwd=folder,
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        output, error = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        pytest.fail(f"{shlex.join(map(str, words))} has not ended after {seconds} s")
    finally:
        if process.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    return subprocess.CompletedProcess(words, process.returncode, output, error)


_held: deque[socket.socket] = deque(maxlen=200)  # the oldest one is closed for a new one


def free_port() -> int:
    """A port on which a server that sets SO_REUSEADDR can listen, and that nobody else is given.

    A socket that was closed again would leave it to whoever is next: another test, or the kernel
    for one end of a connection. This one stays, and as it does not listen a server still can.
    """
    held = socket.socket()
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    held.bind(("127.0.0.1", 0))
    _held.append(held)
    return int(held.getsockname()[1])


def torchrun(processes: int) -> list[str]:
    """What stands between `python -m` and the module for that many processes."""
    number = ("--nproc-per-node", str(processes))
    address = ("--master-addr", "127.0.0.1", "--master-port", str(free_port()))
    return ["torch.distributed.run", *number, *address, "-m"]


def ranks(processes: int) -> list[dict[str, str]]:
    """The variables that torchrun gives to each of its processes; one process has none."""
    if processes == 1:
        return [{}]
    common = {"WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes)}
    common |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    common |= {"OMP_NUM_THREADS": "1"}
    return [{**common, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(processes)]


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
        return finish(words, self.path, clean_environ(**variables))

    def module(self, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """The answer of `python -m WORDS`, by a fork where one can stand for it."""
        return self.processes(1, *words, **variables)

    def processes(
        self, count: int, *words: str, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        """The same from that many processes, as torchrun starts them; one that fails ends all."""
        environ = {
            **clean_environ(**variables),
            **{k: variables.get(k, PORTABLE[k]) for k in PORTABLE},
        }
        command = ["-m", *words]
        surroundings = fork_client.around(clean_environ(), PORTABLE)
        if self.venv not in (VENV, TRACKERS) or not fork_client.can_fork(
            command, environ, PORTABLE, surroundings
        ):
            start = (
                ["python", "-m", *torchrun(count), *words] if count > 1 else ["python", *command]
            )
            done = self.run(*start, **variables)
        else:
            environs = [{**environ, **rank} for rank in ranks(count)]
            done = fork_server(self.venv).run(command, self.path, environs, HANGS)
        done.stderr = WAITING.sub("", done.stderr)
        return done

    def make(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return self.run("make", f"VENV={self.venv}", *arguments, **variables)

    def train(self, *settings: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return self.module("experiment.train", *settings, **variables)

    def edit(self, name: str, old: str, new: str) -> None:
        """Change one place of a file, as an author would."""
        text = (self.path / name).read_text()
        assert text.count(old) == 1, f"{name} has {old!r} {text.count(old)} times"
        (self.path / name).write_text(text.replace(old, new))

    def copy(self, target: Path) -> "Project":
        """The project without its own runs and data (the kit has folders of these names, too)."""
        caches = shutil.ignore_patterns("__pycache__", ".*_cache")

        def left_out(folder: str, names: list[str]) -> set[str]:
            made = {"runs", "data"} if Path(folder) == self.path else set()
            return caches(folder, names) | made

        shutil.copytree(self.path, target, symlinks=True, ignore=left_out)
        return Project(target, self.venv)


def open_to_all(place: Path) -> None:
    """Let other users look into a folder, and into those above it: pytest's are closed to them."""
    for folder in (place, *place.parents):
        mode = folder.stat().st_mode
        if not mode & 0o001:
            folder.chmod(mode | 0o755)


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


def call_trainer(project: Project) -> None:
    """Let the commands call experiment/trainer.py, as docs/own-loop.md says."""
    for name in ("train", "evaluate"):
        file = f"experiment/{name}.py"
        project.edit(
            file, f"from repro.tasks import {name}_task ", "from experiment import trainer "
        )
        project.edit(file, f" {name}_task(session)", f" trainer.{name}(session)")


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


def record_claims(project: Project, claims: str) -> str:
    """Let a project record claims in a new repository, as its author would; return what it said."""
    (project.path / "configs" / "claims.yaml").write_text(claims)
    git(project, "init", "--quiet")
    commit(project)
    done = project.module("repro", "record")
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="session", autouse=True)
def _nothing_left_in_tmp() -> Iterator[None]:
    """cookiecutter, torchrun and W&B leave files there: 1,500 after all tests."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        os.environ["TMPDIR"] = folder
        yield
        stop_servers()


def shared(factory: pytest.TempPathFactory, name: str, build: Callable[[Path], object]) -> Path:
    """A folder that `build` fills once, for all workers of a run: copy what is in it."""
    base = factory.getbasetemp()
    top = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    folder = top / f"shared-{name}"
    with (top / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (top / f"{name}.done").exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            build(folder)
            (top / f"{name}.done").touch()
    return folder


def weights(run: Path) -> bytes:
    return (run / "checkpoints" / "last" / "tensors.safetensors").read_bytes()


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
    top = shared(tmp_path_factory, "recorded", lambda folder: record(project, folder))
    return Project(top / "paper" / project.path.name)


def record(project: Project, top: Path) -> None:
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


@pytest.fixture
def own(recorded: Project, tmp_path: Path) -> Project:
    """A clone elsewhere, with the runs and the data, to change: files have other times there."""
    source = recorded.path.parent.parent
    subprocess.run(["git", "clone", "--quiet", source, tmp_path / "clone"], check=True)
    path = tmp_path / "clone" / "paper" / recorded.path.name
    for name in ("runs", "data"):
        shutil.copytree(recorded.path / name, path / name, symlinks=True)
    return Project(path)


@pytest.fixture(scope="session")
def committed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """This template as a git repository of its own, with the files as they are now."""
    from options import template_repository  # it imports this file, as the next ones

    return template_repository(tmp_path_factory.mktemp("template") / "repro-template")


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory) -> tuple[Project, dict[str, str]]:
    """A project in a repository, and the variables with which git finds it under its URL."""
    from published import publish

    return publish(tmp_path_factory.mktemp("published"))


@pytest.fixture(scope="session")
def reported(project: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Recorded results and verdicts of every kind, and the page on them."""
    from reports import report

    return report(project, tmp_path_factory.mktemp("report"))


@pytest.fixture(scope="session")
def untracked(project: Project) -> dict[str, bytes]:
    """The bits of a run in a project without a tracker."""
    from trackers import train_untracked

    return train_untracked(project)


@pytest.fixture(scope="session")
def projects(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Project]:
    """A project for each tracker."""
    from trackers import TRACKERS

    return {t: generate(tmp_path_factory.mktemp(t), f"tracker={t}") for t in TRACKERS}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=order.place)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    if budget.is_over(time.time(), order.takes_long(item)):
        pytest.skip(budget.REASON)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> order.Groups:
    return order.Groups(config, log)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "long: takes minutes; run by make test-long")
    if "PYTEST_XDIST_WORKER" not in os.environ and config.option.verbose <= 0:
        config.pluginmanager.register(Progress(config))
