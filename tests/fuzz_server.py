"""A process that has imported a project, and forks itself for each command: milliseconds each.

    VENV/bin/python tests/fuzz_server.py PYTHON          in the project's folder

Unlike the fork server it has imported the project's code, too, which fuzzing does not change. Each
line on standard input is a request, JSON: `words` (what stands behind `python -m`, or
"call:MODULE:FUNCTION", a function of the project's root), `output` (the file for both streams),
`seconds`, `memory` (bytes that it may take beside what this process has). The answer is a line: the
exit code, negative for a signal, null for a command that had not ended. PYTHON is what commands
find as sys.executable.
"""

import gc
import importlib
import json
import os
import pkgutil
import resource
import signal
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

import fork_server

# Programs, which a command runs as __main__, and adapters of packages that are not there.
NOT_IMPORTED = {
    "repro.__main__",
    "repro.tracking.__main__",
    "repro.tracking.mlflow",
    "repro.tracking.tensorboard",
    "repro.tracking.wandb",
    "experiment.train",
    "experiment.evaluate",
    "experiment.prepare",
}


def import_project(root: Path) -> None:
    fork_server.prepare()
    sys.path.insert(0, str(root))
    for name in ("repro", "experiment"):
        package = importlib.import_module(name)
        for module in pkgutil.walk_packages(package.__path__, f"{name}."):
            if module.name not in NOT_IMPORTED:
                importlib.import_module(module.name)
    gc.collect()
    gc.freeze()


def become(request: dict[str, Any], python: str) -> NoReturn:
    """Be that command; returns to nobody."""
    code = 1
    try:
        os.setsid()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        nothing = os.open(os.devnull, os.O_RDONLY)
        streams = os.open(request["output"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for number, stream in enumerate((nothing, streams, streams)):
            os.dup2(stream, number)
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        most = pages * resource.getpagesize() + request["memory"]
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
        sys.executable = python
        first, *arguments = request["words"]
        sys.argv = ["-m", *arguments]
        sys.orig_argv = [python, "-m", *request["words"]]
        code = call(first) if first.startswith("call:") else fork_server.run(first)
    finally:
        fork_server.end(code)


def call(name: str) -> int:
    """Call a function of the project as a command does."""
    from repro.core.command import run_command  # type: ignore[import-not-found]

    _, module, function = name.split(":")
    asked = getattr(importlib.import_module(module), function)

    def command() -> int:
        print(asked(Path.cwd()))
        return 0

    try:
        return int(run_command(command))
    except BaseException:
        sys.excepthook(*sys.exc_info())
        return 1


def wait(pid: int, seconds: float) -> int | None:
    """The exit code of a child; None if it had to be ended."""
    deadline = time.monotonic() + seconds
    pause = 0.001
    while time.monotonic() < deadline:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(pause)
        pause = min(2 * pause, 0.02)
    os.killpg(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return None


def main() -> None:
    import_project(Path.cwd())
    print("ready", flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        pid = os.fork()
        if pid == 0:
            become(request, sys.argv[1])
        print(json.dumps(wait(pid, request["seconds"])), flush=True)


if __name__ == "__main__":
    main()
