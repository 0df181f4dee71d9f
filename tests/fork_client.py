"""The other end of fork_server.py: ask it for a command, and wait for the answer.

As a program it is what a command finds as sys.executable: `python -m MODULE ...` that the project's
code starts goes to the server too, where a fork can stand for it; anything else becomes a real
process. Standard library alone, for it starts each time: FOLDER PYTHON [python's arguments].
"""

import json
import os
import signal
import socket
import sys
from typing import Any

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
# Read by Python or the libraries as they start: with one of them a command is a real process.
EARLY = (
    "LD_",
    "PYTHON",
    "OMP_",
    "MKL_",
    "OPENBLAS_",
    "ONEDNN_",
    "DNNL_",
    "NPY_",
    "ATEN_",
    "CUBLAS_",
)
USUAL = ("PYTHONHASHSEED", "PYTHONNOUSERSITE", "PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED")
MODULES = ("experiment.", "repro", "pytest")


def around(environ: dict[str, str], profile: dict[str, str]) -> dict[str, str]:
    """What a machine has set, for all programs, of what is read early: the server has it, too."""
    own = {*USUAL, *THREADS, *profile}
    return {
        name: value for name, value in environ.items() if name.startswith(EARLY) and name not in own
    }


def can_fork(
    words: list[str],
    environ: dict[str, str],
    profile: dict[str, str],
    surroundings: dict[str, str],
) -> bool:
    """Whether a fork stands for `python` with these arguments and variables.

    `surroundings`: what the server has beside the profile.
    """
    if len(words) < 2 or words[0] != "-m" or not words[1].startswith(MODULES):
        return False
    threads = dict.fromkeys(THREADS, "1")
    needed = {**surroundings, **profile}
    wanted = {**dict.fromkeys(USUAL, None), **threads, **needed}
    early = {name: value for name, value in environ.items() if name.startswith(EARLY)}
    if any(wanted.get(name, "") not in (value, None) for name, value in early.items()):
        return False
    if any(environ.get(name) != value for name, value in needed.items()):
        return False
    return not [x for x in words if x.startswith("threads=") and x != "threads=1"]


class Command:
    """A command that the server runs."""

    def __init__(
        self,
        server: str,
        words: list[str],
        folder: str,
        environ: dict[str, str],
        streams: tuple[int, int, int],
    ) -> None:
        self.connection = socket.socket(socket.AF_UNIX)
        self.connection.connect(server)
        about = {"module": words[1], "arguments": words[2:], "folder": folder}
        data = json.dumps({**about, "environment": environ}).encode()
        socket.send_fds(self.connection, [len(data).to_bytes(8, "big")], list(streams))
        self.connection.sendall(data)
        self.answers = self.connection.makefile()
        self.pid: int = self._answer()["pid"]
        self.code: int | None = None  # once it has ended

    def _answer(self) -> dict[str, Any]:
        line = self.answers.readline()
        if not line:
            raise RuntimeError("the fork server ended")
        found: dict[str, Any] = json.loads(line)
        return found

    def wait(self, seconds: float | None = None) -> int:
        """The exit code; TimeoutError after so many seconds."""
        if self.code is None:
            self.connection.settimeout(seconds)
            self.code = int(self._answer()["code"])
        return self.code

    def close(self) -> None:
        """End it if it still runs."""
        self.answers.close()
        self.connection.close()


def main() -> int:
    folder, python, *words = sys.argv[1:]
    with open(f"{folder}/variables.json") as file:
        profile, surroundings = json.load(file)
    environ = dict(os.environ)
    if not profile.keys() & environ.keys():  # a process would put it in force as it starts
        environ |= profile
    if not can_fork(words, environ, profile, surroundings):
        os.execv(python, [python, *words])  # with the variables as they are
    command = Command(f"{folder}/socket", words, os.getcwd(), environ, (0, 1, 2))
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: os.kill(command.pid, number))
    code = command.wait()
    if code < 0:
        signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    return code


if __name__ == "__main__":
    sys.exit(main())
