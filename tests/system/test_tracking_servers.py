"""A real MLflow server that dies and comes back."""

import os
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from conftest import HANGS, Project, clean_environ, free_port
from trackers import (
    CHECKPOINTS,
    READ_MLFLOW,
    SETTINGS,
    bits,
    close,
    expected_metrics,
    pause_when_tracked,
    read,
    start,
    steps_done,
    until,
)


@contextmanager
def mlflow_server(project: Project, folder: Path, port: int) -> Iterator[Callable[[int], None]]:
    """A real server with SQLite on loopback; yields what sends it a signal."""
    environ = clean_environ(MLFLOW_DISABLE_TELEMETRY="true")
    environ["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"  # takes seconds to start
    command = [project.venv / "bin" / "mlflow", "server", "--host", "127.0.0.1", "--workers", "1"]
    command += ["--port", str(port), "--backend-store-uri", f"sqlite:///{folder}/server.db"]
    command += ["--artifacts-destination", str(folder / "artifacts")]
    with (folder / "log").open("a") as log:
        server = subprocess.Popen(
            command, cwd=folder, env=environ, stdout=log, stderr=log, start_new_session=True
        )

    def send(number: int) -> None:
        os.killpg(server.pid, number)

    def answers() -> bool:
        assert server.poll() is None, (folder / "log").read_text()
        with socket.socket() as client:
            return client.connect_ex(("127.0.0.1", port)) == 0

    try:
        until(answers)
        yield send
    finally:
        send(signal.SIGKILL)
        server.wait()


def test_an_mlflow_server_that_dies_and_comes_back_has_everything(
    projects: dict[str, Project], untracked: dict[str, bytes], tmp_path: Path
) -> None:
    project, port = projects["mlflow"], free_port()
    run, uri = project.path / "runs" / "server", f"http://127.0.0.1:{port}"
    with mlflow_server(project, tmp_path, port):
        training = start(project, "run_dir=runs/server", *SETTINGS, f"tracker.uri={uri}")
        pause_when_tracked(training, run)
    os.kill(training.pid, signal.SIGCONT)
    until(lambda: steps_done(run) >= 45)
    os.kill(training.pid, signal.SIGSTOP)  # not to be at its end before the server is back
    until(lambda: "warning" in (project.path / "err").read_text())
    with mlflow_server(project, tmp_path, port) as hold:
        os.kill(training.pid, signal.SIGCONT)
        assert training.wait(HANGS) == 0
        (line,) = (project.path / "err").read_text().splitlines()
        assert line.startswith("warning: mlflow: ")
        (found,) = read(project, READ_MLFLOW, uri)
        assert (found["status"], bits(run)) == ("FINISHED", untracked)
        assert close(found["metrics"], expected_metrics(run))
        assert {*found["files"]} >= CHECKPOINTS
        hold(signal.SIGSTOP)
        evaluate = ("experiment.evaluate", "--checkpoint")
        done = project.module(*evaluate, str(run / "checkpoints" / "last"))
        assert done.returncode == 0
        (line,) = done.stderr.splitlines()
        assert line.startswith("warning: mlflow: ")
        hold(signal.SIGCONT)
        done = project.module("repro.tracking", "runs/server")
        assert (done.returncode, done.stderr) == (0, "")
        (found,) = read(project, READ_MLFLOW, uri)
        assert "figures/confusion_matrix.png" in found["files"]
