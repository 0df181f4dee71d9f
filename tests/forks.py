"""Commands of a project that a fork server answers (fork_server.py): one server per environment."""

import json
import os
import select
import shlex
import subprocess
import tempfile
import time
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import IO

import fork_client
import pytest

HERE = Path(__file__).resolve().parent


class ForkServer:
    """A server in an environment, its folder, and the variables of the profile that it is in."""

    def __init__(self, venv: Path, environ: dict[str, str], profile: dict[str, str]) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="forks-", dir="/tmp"))  # a short path: a socket
        self.profile = profile
        variables = [profile, fork_client.around(environ, profile)]
        (self.folder / "variables.json").write_text(json.dumps(variables))
        python = venv / "bin" / "python"
        client = [str(python), "-IS", str(HERE / "fork_client.py"), str(self.folder), str(python)]
        script = self.folder / "python"
        script.write_text(f'#!/bin/sh\nexec {shlex.join(client)} "$@"\n')
        script.chmod(0o755)
        threads = dict.fromkeys(fork_client.THREADS, "1")
        self.process = subprocess.Popen(
            [python, HERE / "fork_server.py", self.folder],
            cwd=self.folder,
            env={**environ, **profile, **threads},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C is for the tests
        )

    def stop(self) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait()  # it takes its folder away

    def start(
        self, words: list[str], folder: Path, environ: dict[str, str], streams: tuple[int, int, int]
    ) -> fork_client.Command:
        """Start `python WORDS` in the background."""
        self.ready()
        address = str(self.folder / "socket")
        return fork_client.Command(address, words, str(folder), environ, streams)

    def run(
        self, words: list[str], folder: Path, environs: list[dict[str, str]], seconds: float
    ) -> subprocess.CompletedProcess[str]:
        """Run `python WORDS` once for each of these environments; the first that fails ends all."""
        with ExitStack() as stack:
            output, error = (stack.enter_context(tempfile.TemporaryFile()) for _ in range(2))
            nothing = stack.enter_context(open(os.devnull, "rb"))
            streams = (nothing.fileno(), output.fileno(), error.fileno())
            running = []
            for environ in environs:
                command = self.start(words, folder, environ, streams)
                stack.callback(command.close)
                running.append(command)
            code = first_failure(running, seconds)
            told = read(output), read(error)
        if code is None:
            pytest.fail(f"python {shlex.join(words)} has not ended after {seconds} s: {told}")
        return subprocess.CompletedProcess(["python", *words], code, *told)

    def ready(self, seconds: float | None = None) -> Path:
        """Wait until it takes commands; its folder, where `python` sends them to it."""
        stream = self.process.stdout
        assert stream
        if not stream.closed:
            if not select.select([stream], [], [], seconds)[0]:
                pytest.fail(f"the fork server has not started after {seconds} s")
            assert stream.readline() == "ready\n", "the fork server did not start"
            stream.close()
        return self.folder


def first_failure(running: list[fork_client.Command], seconds: float) -> int | None:
    """The first exit code that is not 0, or 0 when all have ended; None after so many seconds."""
    waiting = {command.connection: command for command in running}
    deadline = time.monotonic() + seconds
    while waiting:
        ready, _, _ = select.select([*waiting], [], [], max(0, deadline - time.monotonic()))
        if not ready:
            return None
        for connection in ready:
            if code := waiting.pop(connection).wait():
                return code
    return 0


def read(stream: IO[bytes]) -> str:
    """What was written, as a process's output is read: with the line ends of any system."""
    stream.seek(0)
    return stream.read().decode().replace("\r\n", "\n").replace("\r", "\n")


_servers: list[ForkServer] = []


@cache
def fork_server(venv: Path) -> ForkServer:
    """The server of an environment, started when it is asked for first."""
    from conftest import PORTABLE, clean_environ

    server = ForkServer(venv, clean_environ(), PORTABLE)
    _servers.append(server)
    return server


def forking_environment(folder: Path) -> Path:
    """The tests' environment, but what its Python starts of a project is a fork."""
    from conftest import VENV  # it imports this file

    (folder / "bin").mkdir(parents=True)
    for path in [*VENV.iterdir(), *(VENV / "bin").iterdir()]:
        if path.name != "bin":
            (folder / path.relative_to(VENV)).symlink_to(path.resolve())
    for name in ("repro-setup.json", "bin/activate"):  # both say which folder they were made for
        text = (VENV / name).read_text()
        (folder / name).unlink()
        (folder / name).write_text(text.replace(str(VENV.resolve()), str(folder.resolve())))
    (folder / "bin" / "python").unlink()
    (folder / "bin" / "python").symlink_to(fork_server(VENV).ready() / "python")
    return folder


def stop_servers() -> None:
    while _servers:
        _servers.pop().stop()
    fork_server.cache_clear()
