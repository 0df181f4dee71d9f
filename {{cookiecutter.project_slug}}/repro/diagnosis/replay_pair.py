"""Replay a step of two runs, each with the code of its own project, and find what differs.

Both replays are processes of `python -m repro trace-step`, under the variables that their runs had.
"""

import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from repro.core.bounded import DamagedFile
from repro.core.errors import UserError
from repro.core.files import JsonObject
from repro.core.layout import KIT, TRACE
from repro.core.project import PROCESSES, launcher
from repro.diagnosis.distances import distances
from repro.diagnosis.operation_difference import (
    OUTPUTS,
    OperationDifference,
    find_operation,
    find_unwritten,
)
from repro.diagnosis.step_file import StepRecord, read_step
from repro.environment.profile import PROFILES
from repro.runs.config_values import setting
from repro.runs.configuration import read_config_used
from repro.runs.logs import header_at, read_trace

_PROFILE = PROFILES["portable"]  # names of its variables, which a replay needs as they were


@dataclass(frozen=True)
class Replayed:
    """What the replays of a step tell, each pair in the order A, B.

    `operation`: the first that differs. `parted`: the first step whose replay is not as the run's
    trace tells, so that the run does not repeat itself. `changed`: what of code, lock and packages
    is not as the run had it, in words. `samples`: the samples' indices where those differ.
    `compiled`: whether torch had compiled the models; operations are compared where both were, or
    neither.
    """

    operation: OperationDifference | None
    parted: tuple[int | None, int | None]
    changed: tuple[list[str], list[str]]
    samples: tuple[list[int], list[int]] | None = None
    compiled: tuple[bool, bool] = (False, False)

    def as_json(self) -> JsonObject:
        """Return what `diff --json` prints of it."""
        told: JsonObject = {
            "operation": self.operation.as_json() if self.operation else None,
            "parted": [*self.parted],
            "changed": [[*lines] for lines in self.changed],
        }
        if any(self.compiled):
            told["compiled"] = [*self.compiled]
        if self.samples:
            told["samples"] = [[*indices] for indices in self.samples]
        return told


def replay_both(runs: tuple[Path, Path], step: int) -> Replayed:
    """Do a step of both runs again and judge; UserError if that is not possible.

    Where an operation has the same inputs and other outputs, it is done once more, to measure how
    far its outputs lie apart.
    """
    with tempfile.TemporaryDirectory() as scratch:
        files = (Path(scratch) / "a.json", Path(scratch) / "b.json")
        replayed = judge_replays(*_trace_steps(runs, files, step))
        operation = replayed.operation
        if operation is None or operation.how != OUTPUTS:
            return replayed
        _trace_steps(runs, files, step, keep=operation.index[0])
        apart = distances(*(file.with_suffix(".safetensors") for file in files))
        return replace(replayed, operation=replace(operation, apart=apart))


def judge_replays(one: StepRecord, two: StepRecord) -> Replayed:
    """Find what differs between two replays of a step: its samples, else its operations."""
    parted = (one.parted, two.parted)
    changed = (one.changed, two.changed)
    compiled = (one.is_compiled, two.is_compiled)
    if one.samples != two.samples:  # no operation chooses the samples
        samples = (one.samples or [], two.samples or [])
        return Replayed(None, parted, changed, samples, compiled)
    operation = None
    if one.is_compiled == two.is_compiled:
        operation = find_operation(one, two) or find_unwritten(two) or find_unwritten(one)
    return Replayed(operation, parted, changed, compiled=compiled)


def project_of(run: Path) -> Path:
    """Find the project that a run lies in; the current one for a run that lies elsewhere.

    Its code is going to run, so it has to be the user's own.
    """
    for folder in run.parents:
        marks = (folder / "pyproject.toml", folder / KIT / "diagnosis" / "replay.py")
        if all(mark.is_file() and mark.stat().st_uid == os.getuid() for mark in marks):
            return folder
    return Path(__file__).resolve().parents[2]


def _trace_steps(
    runs: tuple[Path, Path], files: tuple[Path, Path], step: int, keep: int | None = None
) -> tuple[StepRecord, StepRecord]:
    """Replay a step of both runs at once, and read what the two processes wrote.

    `keep`: the number of the operation whose outputs are to be written as well.
    """
    processes = [_start(run, file, step, keep) for run, file in zip(runs, files, strict=True)]
    faults = []
    for run, process in zip(runs, processes, strict=True):
        lines = process.communicate()[1].strip().splitlines()
        if process.returncode:
            errors = [line for line in lines if line.startswith("error: ")]
            told = (errors or lines[-1:])[:1]
            faults.append(f"replaying step {step} of {run} failed: {' '.join(told)}")
    if faults:
        raise UserError(faults)
    return read_step(files[0]), read_step(files[1])


def _start(run: Path, file: Path, step: int, keep: int | None) -> subprocess.Popen[str]:
    """Start `python -m repro trace-step` in the run's project."""
    number = setting(read_config_used(run), PROCESSES)
    processes = number if isinstance(number, int) else 1
    command = [sys.executable, "-m", *launcher(processes), "repro", "trace-step", str(run)]
    command += ["--step", str(step), "--output", str(file)]
    if keep is not None:
        command += ["--values", str(keep)]
    return subprocess.Popen(
        command,
        cwd=project_of(run),
        env=_environment_of(run, step),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def _environment_of(run: Path, step: int) -> dict[str, str]:
    """Return this process's environment with the profile's variables as the run had them."""
    variables = {name: text for name, text in os.environ.items() if name not in _PROFILE}
    conditions = header_at(read_trace(run).headers, step).get("conditions")
    recorded = conditions.get("environment") if isinstance(conditions, dict) else None
    if isinstance(recorded, dict):
        variables |= {name: str(text) for name, text in recorded.items() if name in _PROFILE}
    if any("\0" in text for text in variables.values()):
        raise DamagedFile(run / TRACE, "a variable in its header has a NUL character")
    return variables
