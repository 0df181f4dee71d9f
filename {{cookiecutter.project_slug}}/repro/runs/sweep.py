"""Run a sweep: one command with several values for some settings, every combination a run.

`seed=1,2,3` or `training.epochs=range(1,4)`, in Hydra's grammar. All combinations are checked
before the first one starts; one that fails does not stop the others. At the end stands the command
that compares the runs.
"""

import shlex
import subprocess
import sys
from contextlib import suppress
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

from hydra.core.override_parser.types import Override
from hydra.errors import HydraException

from repro.core.errors import UserError
from repro.core.stopping import Stopped, stoppable
from repro.runs.configuration import Loader, RunSettings


class _Job(NamedTuple):
    """One combination of settings, as typed, and the config that comes of it."""

    settings: list[str]
    config: RunSettings


class _Outcome(NamedTuple):
    """The settings of a job that ended, the folder of its run if it is known, its exit code."""

    settings: list[str]
    folder: str | None
    code: int


def sweep(root: Path, module: str, loader: Loader[Any], settings: list[str]) -> int:
    """Run `python -m module` for every combination, one after the other; 1 if one failed."""
    parsed, faults = loader.parse(settings)
    if faults:
        raise UserError(faults)
    jobs = [_Job(chosen, loader.load(chosen)) for chosen in combinations(parsed)]
    failed = []
    folders = []
    for number, job in enumerate(jobs, 1):
        print(f"job {number}/{len(jobs)}: {' '.join(job.settings)}", flush=True)
        outcome = _run(root, module, job)
        if outcome.code:
            failed.append(f"failed: {' '.join(outcome.settings)}")
        elif outcome.folder:
            folders.append(outcome.folder)
    for line in failed:
        print(line, file=sys.stderr)
    if len(folders) > 1:
        print(f"to compare them: python -m repro compare {shlex.join(folders)}")
    return 1 if failed else 0


def combinations(overrides: list[Override]) -> list[list[str]]:
    """Return every combination of the overrides' values, each as a list of key=value.

    The last override varies fastest. UserError for values that cannot be listed.
    """
    alternatives: dict[str, list[str]] = {}  # an override replaces an earlier one of its key
    for override in overrides:
        key = override.get_key_element()
        alternatives[key] = [f"{key}={value}" for value in _values(override)]
    return [list(chosen) for chosen in product(*alternatives.values())]


def _values(override: Override) -> list[str]:
    if not override.is_sweep_override():
        return [override.get_value_element_as_str()]
    try:
        return list(override.sweep_string_iterator())
    except HydraException as error:
        text = override.input_line
        raise UserError(
            f"{text}: a sweep takes values that can be listed: 1,2 or range(1,4)"
        ) from error


def _wait_for(job: "subprocess.Popen[bytes]") -> None:
    """Wait for a job's end; one that this process leaves by Ctrl-C is ended."""
    try:
        job.wait()
    finally:
        if job.returncode is None:  # a terminal sends Ctrl-C to the job, too
            with suppress(subprocess.TimeoutExpired):
                job.wait(0.5)
            job.kill()
            job.wait()


def _run(root: Path, module: str, job: _Job) -> _Outcome:
    """Run a job in a process of its own, in a folder that is chosen here, so that it is known."""
    from repro.runs.folder import new_folder  # only now: a fault is told before torch is imported

    settings = job.settings
    folder = job.config.run_dir
    chosen = None
    if not (job.config.run_dir or job.config.resume):
        chosen = new_folder(root, job.config)
        folder = str(chosen.relative_to(root))
        settings = [*settings, f"run_dir={folder}"]
    try:
        with stoppable() as stopping:
            process = subprocess.Popen([sys.executable, "-m", module, *settings], cwd=root)
            stopping.pass_on_to(process)
            _wait_for(process)
        if stopping.asked:
            raise Stopped(f"stopped by {stopping.asked}, which was passed on: no other job starts")
    finally:
        if chosen:
            with suppress(OSError):  # what was refused at once leaves nothing behind
                chosen.rmdir()
    return _Outcome(settings, folder, process.returncode)
