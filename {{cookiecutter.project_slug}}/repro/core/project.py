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
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from repro.core import machines
from repro.core.bounded import RESTORE, read_text
from repro.core.errors import SaidByCommand, UserError, reason_of
from repro.core.files import JsonObject
from repro.core.read_once import inheritance
from repro.core.said import Hearing, hearing
from repro.core.stopping import Stopped, Stopping, stoppable
from repro.core.text import refuse_unseen

# Settings of the author's commands that the kit sets by their names.
MAX_STEPS = "training.max_steps"
PROCESSES = "training.processes"
RESUME_CHANGED_CODE = "resume_changed_code"
RESUME_OTHER_PROCESSES = "resume_other_processes"
WITH_TRACE = "output.trace=true"
WITHOUT_TRACKER = "tracker=none"
IN_FP32 = "training.precision=fp32"
PYPROJECT = "pyproject.toml"
# PyTorch's engines. Only projects that were made with scale=many have this package.
ENGINES = "repro.training.scale"


class Finished(NamedTuple):
    """What a command left: its captured output, and its peak memory in MiB."""

    output: str
    peak_memory_mib: float


def parse_toml(text: str, name: str = PYPROJECT) -> JsonObject:
    """Return what a TOML text holds; UserError, with the file's name, if it cannot be read."""
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        reason = reason_of(error) if isinstance(error, ValueError) else "too deep"
        raise UserError(f"{name} is damaged ({reason}): {RESTORE}") from error


def fault_without_engines() -> str:
    """Say what to do in a project that lacks PyTorch's engines; nothing where it has them."""
    if find_spec(ENGINES) is not None:
        return ""
    return (
        "this project was made for one machine: make it with scale=many, or copy "
        f"{ENGINES.replace('.', '/')}/ from a project that was"
    )


def repro_table(text: str, name: str = PYPROJECT) -> JsonObject:
    """Return the table [tool.repro] of pyproject.toml's text; UserError if there is none.

    It holds texts, and tables of what the author states (repro/results/stated.py).
    """
    tool = parse_toml(text, name).get("tool")
    table = tool.get("repro") if isinstance(tool, dict) else None
    if not isinstance(table, dict):
        raise UserError(f"{name}: expected a table [tool.repro]: restore it")
    for key, value in table.items():
        if not isinstance(value, str | dict):
            raise UserError(
                f"{name}: {key!r} = {value!r}: expected a table [tool.repro] of texts and tables: "
                "correct it"
            )
    return table


def tool_settings(root: Path) -> dict[str, str]:
    """Return the texts of the table [tool.repro] of pyproject.toml; UserError without the table."""
    path = root / PYPROJECT
    table = repro_table(read_text(path), str(path))
    return {key: value for key, value in table.items() if isinstance(value, str)}


def tool_setting(root: Path, name: str) -> str:
    """Return what [tool.repro] says under `name`; UserError if it says nothing."""
    settings = tool_settings(root)
    if name not in settings:
        raise UserError(f"{root / PYPROJECT}: [tool.repro] lacks {name}: restore it")
    return settings[name]


def project_table(text: str, name: str = PYPROJECT) -> dict[str, Any]:
    """Return the table [project] of pyproject.toml's text; UserError without a project's name."""
    table = parse_toml(text, name).get("project")
    if not isinstance(table, dict) or not isinstance(table.get("name"), str):
        raise UserError(f"{name}: expected a table [project] with a name: restore it")
    refuse_unseen(table, name)
    return table


def author_object(root: Path, name: str) -> Any:
    """Import the object that [tool.repro] names under `name`, as "module:attribute".

    UserError if there is none.
    """
    module, _, attribute = tool_settings(root).get(name, "nothing").partition(":")
    try:
        return getattr(_imported(module), attribute)
    except AttributeError as error:
        raise _named_nothing(root, name, error) from error
    except ModuleNotFoundError as error:
        _raise_if_inside(error, module)
        raise _named_nothing(root, name, error) from error


def author_module(root: Path, name: str) -> Any:
    """Import the module that [tool.repro] names under `name`; UserError if there is none."""
    module = tool_settings(root).get(name, "nothing")
    try:
        return _imported(module)
    except ModuleNotFoundError as error:
        _raise_if_inside(error, module)
        raise _named_nothing(root, name, error, "a module") from error


def _imported(module: str) -> Any:
    """Import a module; ModuleNotFoundError also for what no module can be called."""
    if not all(part.isidentifier() for part in module.split(".")):
        raise ModuleNotFoundError(f"No module named {module!r}", name=module)
    return importlib.import_module(module)


def _raise_if_inside(error: ModuleNotFoundError, module: str) -> None:
    """Raise an error again that is of a module which the author's own one lacks."""
    if not f"{module}.".startswith(f"{error.name}."):
        raise error


def _named_nothing(
    root: Path, name: str, error: Exception, expected: str = '"module:name"'
) -> UserError:
    named = tool_settings(root).get(name, "nothing")
    return UserError(
        f'pyproject.toml: {name} = "{named}" in [tool.repro]: {error}; expected {expected} of your '
        "own code"
    )


def uses_low_precision(config: object) -> bool:
    """Tell whether a config asks for another precision than fp32; it may have no such setting."""
    training = getattr(config, "training", None)
    return getattr(training, "precision", "fp32") != "fp32"


def command_module(root: Path, name: str) -> str:
    """Return the module of the author's command `name` (train, evaluate, prepare)."""
    return tool_setting(root, name).partition(":")[0]


def command_line(root: Path, name: str, *arguments: str, processes: int = 1) -> list[str]:
    """Return the author's command `name` (train, evaluate, prepare) as a user would type it.

    `processes`: how many of this machine it takes.
    """
    return ["python", "-m", *launcher(processes), command_module(root, name), *arguments]


def launcher(processes: int) -> list[str]:
    """Return what stands between `python -m` and a module for so many processes of this machine."""
    count = f"--nproc-per-node={processes}"
    return ["torch.distributed.run", "--standalone", count, "-m"] if processes > 1 else []


def run_author_command(
    root: Path, name: str, arguments: list[str], capture: bool = False, processes: int = 1
) -> Finished:
    """Run the author's command `name`.

    UserError if it fails, SaidByCommand if it has said why, Stopped if this command is to end.
    """
    typed = command_line(root, name, *arguments, processes=processes)
    with hearing() as heard:
        with stoppable() as stopping:
            process = _started(root, typed, heard, stopping, capture, processes)
            finished = _waited_for(process)
        ended = f"{' '.join(typed)} ended with {process.returncode}"
        if stopping.asked:
            raise Stopped(
                f"stopped by {stopping.asked}, which was passed on: {ended}; make record goes on "
                "with what is saved, verify starts anew"
            )
        accepted = (0, 1) if name == "evaluate" else (0,)  # 1: another result than the recorded one
        if process.returncode not in accepted:
            raise SaidByCommand(ended) if heard.was_said else UserError(ended)
    return finished


def _started(
    root: Path,
    typed: list[str],
    heard: Hearing,
    stopping: Stopping,
    capture: bool,
    processes: int,
) -> "subprocess.Popen[bytes]":
    """Start a command, which tells `heard` what it said, and to which `stopping` passes on."""
    descriptors, variables = inheritance()
    variables = heard.variables(variables or os.environ)
    if processes > 1:  # what the launcher sets by itself, with a banner; the config has threads
        variables = {"OMP_NUM_THREADS": "1", **variables}
    process = subprocess.Popen(
        [sys.executable, *typed[1:]],
        cwd=root,
        stdout=subprocess.PIPE if capture else None,
        env=variables,
        pass_fds=(*descriptors, heard.descriptor),
    )
    stopping.pass_on_to(process)
    return process


def _waited_for(process: "subprocess.Popen[bytes]") -> Finished:
    """Wait for the end of a command, and return what it left."""
    output = ""
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
    unit = 2**20 if machines.this_machine().is_macos else 2**10  # bytes there, KiB under Linux
    return Finished(output, usage.ru_maxrss / unit)
