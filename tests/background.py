"""Trainings in the background, to be watched, warned and killed; and what a run has to have."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

from conftest import HANGS, PORTABLE, VENV, Project, clean_environ, ranks, torchrun
from forks import fork_server

LONG = ("training.epochs=500", "output.log_every=1", "model.width=8", "threads=1")


def command(processes: int, *settings: str) -> list[str]:
    """The words of a training command with that many processes."""
    several = torchrun(processes) if processes > 1 else []
    return [str(VENV / "bin" / "python"), "-m", *several, "experiment.train", *settings]


def contents(run: Path) -> dict[str, bytes]:
    paths = [run / "metrics.jsonl", run / "trace.jsonl", *(run / "checkpoints").glob("step-*/*")]
    return {str(path.relative_to(run)): path.read_bytes() for path in paths}


def start(project: Project, processes: int, *settings: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command(processes, *settings),
        cwd=project.path,
        env=clean_environ(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # so that a signal can go to all of its processes
    )


def kill(process: subprocess.Popen[str]) -> None:
    """SIGKILL to a process and all below it at once: torchrun's are in sessions of their own."""
    pids = [process.pid]
    for pid in pids:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        pids += [int(child) for child in children]
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    process.communicate()


def steps_of(run: Path) -> int:
    path = run / "metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.is_file() else 0


def wait_for_steps(
    run: Path, more: int, process: subprocess.Popen[str] | Forked | None = None
) -> None:
    """Until the run has logged `more` lines beyond what it has now."""
    wanted = steps_of(run) + more
    deadline = time.monotonic() + HANGS
    while steps_of(run) < wanted and (process is None or process.poll() is None):
        assert time.monotonic() < deadline, f"the training in {run} hangs"
        time.sleep(0.002)


class Forked:
    """A training of forks in the background, to be killed as a process is."""

    def __init__(
        self, project: Project, processes: int, *settings: str, module: str = "experiment.train"
    ) -> None:
        words = ["-m", module, *settings]
        environs = [{**clean_environ(), **PORTABLE, **rank} for rank in ranks(processes)]
        with open(os.devnull, "r+b") as nothing:
            streams = (nothing.fileno(),) * 3
            server = fork_server(project.venv)
            self.commands = [server.start(words, project.path, e, streams) for e in environs]

    def poll(self) -> int | None:
        """An exit code, once one of them has ended."""
        connections = [command.connection for command in self.commands]
        ready, _, _ = select.select(connections, [], [], 0)
        return next((c.wait() for c in self.commands if c.connection in ready), None)

    def kill(self) -> None:
        """SIGKILL to all of them at once."""
        for command in self.commands:
            with suppress(ProcessLookupError):  # it has just ended
                os.killpg(command.pid, signal.SIGKILL)
        for command in self.commands:
            command.wait()
            command.close()
