"""The project's own settings: [tool.repro] in pyproject.toml names the author's code.

The author's commands are run as a user would run them, in processes of their own; the author's
objects are imported by the names that stand there.
"""

import importlib
import os
import subprocess
import sys
import tomllib
from contextlib import suppress
from pathlib import Path
from typing import Any

from repro.core.errors import UserError

ROOMS = ("experiment",)


def settings(root: Path) -> dict[str, Any]:
    """The section [tool.repro] of pyproject.toml: it names the author's commands."""
    return dict(tomllib.loads((root / "pyproject.toml").read_text())["tool"]["repro"])


def run_command_of(
    root: Path, name: str, arguments: list[str], capture: bool = False
) -> tuple[str, float]:
    """Run the author's command `name`: its output if captured, and its peak memory in MiB.

    UserError if it fails.
    """
    module = str(settings(root)[name])
    command = [sys.executable, "-m", module, *arguments]
    pipe = subprocess.PIPE if capture else None
    output, process = "", subprocess.Popen(command, cwd=root, stdout=pipe)
    try:
        if process.stdout:
            output = process.stdout.read().decode(errors="replace")
        _, status, usage = os.wait4(process.pid, 0)  # Popen.wait would lose what it used
        process.returncode = os.waitstatus_to_exitcode(status)
    finally:
        if process.returncode is None:  # Ctrl-C: it goes to the command, too
            with suppress(subprocess.TimeoutExpired):
                process.wait(0.5)
            process.kill()
    if process.returncode not in ((0, 1) if name == "evaluate" else (0,)):  # 1: another result
        words = " ".join(arguments)
        raise UserError(f"python -m {module} {words} ended with {process.returncode}")
    return output, usage.ru_maxrss / 1024  # KiB on Linux


def author(root: Path, what: str) -> Any:
    """The object that [tool.repro] in pyproject.toml names under `what`, as "module:name"."""
    module, _, name = str(settings(root)[what]).partition(":")
    return getattr(importlib.import_module(module), name)
