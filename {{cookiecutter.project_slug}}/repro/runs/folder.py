"""Make and keep a run's folder: one training and all that belongs to it, never mixed with another.

`open_run` makes a new folder, or takes up an old one to resume it; it overwrites nothing.
`metrics.jsonl` holds one JSON object per line; on resume the lines after the checkpoint's step are
cut, so that the file has the bytes of a training that was never stopped.
"""

import fcntl
import json
import os
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from omegaconf import OmegaConf

from repro.core import layout
from repro.core.errors import UserError
from repro.core.files import JsonObject, replacing, write_file
from repro.core.launch import is_first
from repro.core.layout import CHECKPOINTS, CONFIG_USED, METRICS, TRACE
from repro.core.redaction import redact_command, redact_mapping
from repro.core.special_files import resolved
from repro.runs.conditions import Facts
from repro.runs.configuration import RunSettings
from repro.runs.context import log_experiment_context
from repro.runs.evaluation import best_step
from repro.runs.logs import Entry, each_line, line_step
from repro.training import checkpoint
from repro.training.processes import Processes

_OF_THE_PROJECT = (*layout.CODE, layout.RESULTS, layout.TESTS)  # folders that are no run's
_NOTHING = "-"  # no checkpoint: none has this name


@dataclass(frozen=True)
class Run:
    """A run's folder, which exists; `start` is the checkpoint to continue from, None at first."""

    folder: Path
    start: Path | None = None

    @property
    def checkpoints(self) -> Path:
        return self.folder / CHECKPOINTS

    def log(self, entry: Entry) -> None:
        """Append a line to metrics.jsonl; floats in full precision, no times."""
        with (self.folder / METRICS).open("a") as file:
            file.write(json.dumps(entry) + "\n")

    def describe(self, root: Path, settings: JsonObject, facts: Facts, step: int) -> None:
        """Write config_used.yaml, command.txt and the context; secrets are taken out.

        A run resumed after `step` keeps its first context: today's goes to a folder of its own.
        """
        text = OmegaConf.to_yaml(OmegaConf.create(redact_mapping(settings)))
        write_file(self.folder / CONFIG_USED, text.encode())
        with (self.folder / layout.COMMAND).open("a") as file:
            file.write(redact_command(["python", *sys.orig_argv[1:]]) + "\n")
        folder = self.folder
        if self.start and (folder / layout.CONTEXT).is_file():
            folder = layout.resumed_folder(self.folder, step)
        log_experiment_context(folder, root, facts.as_json())

    def name_checkpoints(self, steps: dict[str, int]) -> None:
        """Make each name a link to the checkpoint of that step, if there is one."""
        for name, step in steps.items():
            target = layout.step_folder(self.checkpoints, step)
            if target.is_dir():
                checkpoint.point(self.checkpoints / name, target)

    def begin(self, step: int) -> None:
        """Make the folder what it was after `step` steps: metrics cut, checkpoints at hand.

        A run that continues another one in a folder of its own gets that one's metrics, its trace,
        its contexts and the checkpoints `last` and `best`.
        """
        source = _run_of(self.start)
        (self.folder / layout.INTERRUPTED).unlink(missing_ok=True)
        with replacing(self.folder / METRICS) as temporary, temporary.open("w") as file:
            for line in each_line(source / METRICS) if source else ():
                if line_step(line) <= step:
                    file.write(json.dumps(line) + "\n")
        if self.start and source != self.folder:
            self._take_over(self.start, source, step)

    def _take_over(self, start: Path, source: Path | None, step: int) -> None:
        """Copy the trace, the contexts and the checkpoints of the run that this one continues."""
        if source:
            self._take_over_records(source, step)
        best = best_step(start)
        # By the step, because a checkpoint that was set aside or copied may have any name.
        for number, path in {best: layout.step_folder(start.parent, best), step: start}.items():
            if checkpoint.find_fault(path) is None:  # no best one before the first validation
                checkpoint.copy(path, layout.step_folder(self.checkpoints, number))

    def _take_over_records(self, source: Path, step: int) -> None:
        """Copy the trace of a run, which is cut when ours begins, and its earlier contexts."""
        kept = [Path(TRACE)]
        for old in layout.context_folders(source):
            if layout.resumed_at(old) < step and (old / layout.CONTEXT).is_file():
                place = old.relative_to(source)
                kept += [place / layout.CONTEXT, place / layout.PATCH]
        for name in kept:
            if (source / name).is_file():
                (self.folder / name).parent.mkdir(exist_ok=True)
                shutil.copyfile(source / name, self.folder / name)  # not all disks have modes


def find_start(root: Path, config: RunSettings) -> Path | None:
    """Find the checkpoint to continue from; None for a fresh start.

    `config.resume`: None; "auto": the newest whole checkpoint of the run in `config.run_dir`
    (without it: of the newest run), if there is any; else the path of a run or of a checkpoint.
    Relative paths count from `root`.
    """
    if config.resume is None:
        return None
    if config.resume == "auto":
        wanted = config.run_dir or f"{layout.RUNS}/{layout.LATEST}"
        run = resolved(root / wanted)  # once: the link may move
        if not layout.steps_newest_first(run / CHECKPOINTS):
            _say_that_it_starts_anew(root / wanted)
            return None
        _lock(run)  # first: another training there would move on while we search
        return checkpoint.newest_whole(run / CHECKPOINTS)
    path = root / config.resume
    if (path / CHECKPOINTS).is_dir():
        return checkpoint.newest_whole(path / CHECKPOINTS)
    if fault := checkpoint.find_fault(path):
        raise UserError(f"resume={path}: neither a run nor a whole checkpoint ({fault})")
    return resolved(path)


def agreed_start(root: Path, config: RunSettings, processes: Processes) -> Path | None:
    """Return in all processes what `find_start` finds in the first one."""
    found = processes.alone(lambda: find_start(root, config))  # which may read terabytes
    name = processes.texts(os.path.relpath(found, root) if found else _NOTHING)[0]
    return None if name == _NOTHING else resolved(root / name)


def _say_that_it_starts_anew(run: Path) -> None:
    """Say why there is nothing to resume: a name may be misspelt, a disk may be missing."""
    if not is_first():
        return
    if run.is_dir():
        why = f"{run} has no checkpoint"
    elif run.is_symlink():
        why = f"{run} leads to {run.readlink()}, which is not there"
    else:
        why = f"there is no {run}"
    print(f"resume=auto: {why}: a new training starts", flush=True)


def open_run(root: Path, config: RunSettings, start: Path | None) -> Run:
    """Open the folder for a training that continues from `start`; see `find_start`.

    Without `run_dir` the newest checkpoint of a run is continued in its folder, an older one in a
    new folder. Raises UserError for a `run_dir` that holds another run.
    """
    folder = _choose_folder(root, config, start)
    folder.mkdir(parents=True, exist_ok=True)
    _lock(folder)
    if start is None and layout.steps_newest_first(folder / CHECKPOINTS):
        raise UserError(f"{folder}: another process has trained there meanwhile; start this anew")
    if _is_users_run(root, folder):
        checkpoint.point(root / layout.RUNS / layout.LATEST, folder)
    return Run(folder, start)


def _choose_folder(root: Path, config: RunSettings, start: Path | None) -> Path:
    """Return the folder to train in; UserError if `run_dir` is none for this training."""
    continued = _run_of(start)
    is_newest = start is not None and continued is not None and checkpoint.is_newest_whole(start)
    if not config.run_dir:
        return continued if continued and is_newest else new_folder(root, config)
    folder = resolved(root / config.run_dir)
    if folder == continued:
        if not is_newest:
            raise UserError(f"{start} is not the newest checkpoint of {folder}: leave run_dir out")
        return folder
    if folder == root or any(root / name in (folder, *folder.parents) for name in _OF_THE_PROJECT):
        raise UserError(f"run_dir={folder}: a folder of the project's code; take one in runs/")
    if config.resume != "auto" and (folder / CONFIG_USED).exists():
        raise UserError(f"{folder} holds a run already: add resume=auto, or choose another run_dir")
    return folder


def _is_users_run(root: Path, folder: Path) -> bool:
    """Say whether `runs/latest` may name a folder: it is in runs/, and not record's or verify's.

    Runs elsewhere are found by their path. runs/, or a folder in it, may be a link to a larger
    disk.
    """
    runs = root / layout.RUNS
    above = {*folder.parents, *resolved(folder).parents}
    around = {runs, resolved(runs)} & above
    of_others = {place / name for place in around for name in (layout.RECORDED, layout.VERIFIED)}
    return bool(around) and not of_others & above


# Descriptors, open as long as the process lives; its end frees them. (Python would warn of files.)
_locks: dict[Path, int] = {}


def _lock(folder: Path) -> None:
    """Let no other training write to a run's folder; UserError if one does so now."""
    if folder in _locks or not is_first():  # of its processes the first locks
        return
    file = os.open(folder / ".lock", os.O_WRONLY | os.O_CREAT, 0o666)
    try:
        # Of this process alone: data workers, which may outlive a kill for seconds, inherit none.
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(file)
        raise UserError(f"{folder}: another process is training there; wait for its end") from error
    except OSError as error:
        words = f"{error.strerror}; take care that no other training uses it"
        print(f"warning: {folder}: this file system has no locks ({words})", flush=True)
    _locks[folder] = file


def _run_of(start: Path | None) -> Path | None:
    """Return the run that a checkpoint lies in; None for a copy of the checkpoint alone."""
    run = layout.run_of(start) if start else None
    return run if run and (run / CONFIG_USED).is_file() else None


def new_folder(root: Path, config: RunSettings) -> Path:
    """Make the folder of a run that starts now."""
    stamp = time.strftime("%Y-%m-%d_%H-%M-%S")
    return create_folder(root / layout.RUNS / config.name / f"{stamp}_seed{config.seed}")


def create_folder(wanted: Path) -> Path:
    """Make a folder of that name, or with a suffix where another run was faster."""
    wanted.parent.mkdir(parents=True, exist_ok=True)
    for number in range(1, 10_000):
        folder = wanted if number == 1 else wanted.with_name(f"{wanted.name}-{number}")
        try:
            folder.mkdir()
        except FileExistsError:
            continue
        return folder
    raise UserError(f"{wanted}: too many runs of that name")
