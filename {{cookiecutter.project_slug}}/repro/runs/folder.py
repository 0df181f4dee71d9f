"""A run's folder: one training and all that belongs to it, never mixed with another one.

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
from typing import Any

from omegaconf import OmegaConf

from repro.core import layout
from repro.core.errors import UserError
from repro.core.files import JsonObject, write_file
from repro.core.layout import INTERRUPTED, METRICS, TRACE
from repro.core.redaction import redact_command, redact_mapping
from repro.runs.conditions import Facts, differences, seeds_by_hand
from repro.runs.context import log_experiment_context
from repro.runs.logs import Entry, line_step, read_lines
from repro.training import checkpoint

_CODE = ("experiment", "repro", "configs", "results", "tests")


@dataclass(frozen=True)
class Run:
    """`folder` exists; `start` is the checkpoint to continue from, None for a fresh start."""

    folder: Path
    start: Path | None = None

    @property
    def checkpoints(self) -> Path:
        return self.folder / "checkpoints"

    def log(self, entry: Entry) -> None:
        """Append a line to metrics.jsonl; floats in full precision, no times."""
        with (self.folder / METRICS).open("a") as file:
            file.write(json.dumps(entry) + "\n")

    def describe(self, root: Path, settings: JsonObject, facts: Facts, step: int) -> None:
        """Write config_used.yaml, command.txt and, with `facts`, the context; secrets taken out.

        A run resumed after `step` keeps its first context: today's goes to a folder of its own.
        """
        text = OmegaConf.to_yaml(OmegaConf.create(redact_mapping(settings)))
        write_file(self.folder / "config_used.yaml", text.encode())
        with (self.folder / "command.txt").open("a") as file:
            file.write(redact_command(["python", *sys.orig_argv[1:]]) + "\n")
        folder = self.folder / f"resumed_at_step_{step}" if self.start else self.folder
        log_experiment_context(folder, root, facts.as_json())

    def name_checkpoints(self, steps: dict[str, int]) -> None:
        """Make each name a link to the checkpoint of that step, if there is one."""
        for name, step in steps.items():
            target = layout.step_folder(self.checkpoints, step)
            if target.is_dir():
                checkpoint.point(self.checkpoints / name, target)

    def begin(self, step: int) -> None:
        """Make the folder what it was after `step` steps: metrics cut, checkpoints at hand.

        A run that continues another one in a folder of its own gets that one's metrics, its trace
        and the checkpoints `last` and `best`.
        """
        source = _run_of(self.start)
        entries = read_lines(source / METRICS) if source else []
        kept = [entry for entry in entries if line_step(entry) <= step]
        (self.folder / INTERRUPTED).unlink(missing_ok=True)
        text = "".join(json.dumps(entry) + "\n" for entry in kept)
        write_file(self.folder / METRICS, text.encode())
        if self.start and source != self.folder:
            if source and (source / TRACE).is_file():  # cut when the trace begins
                shutil.copy(source / TRACE, self.folder)
            for path in {self.start, (self.start.parent / "best").resolve()}:
                if checkpoint.find_fault(path) is None:  # no best one before the first validation
                    checkpoint.copy(path, self.checkpoints / path.name)


def find_start(root: Path, run_dir: str | None, resume: str | None) -> Path | None:
    """The checkpoint to continue from; None for a fresh start.

    `resume`: None; "auto": the newest whole checkpoint of the run in `run_dir` (without it: of the
    newest run), if there is any; else the path of a run or of a checkpoint. Relative paths count
    from `root`.
    """
    if resume is None:
        return None
    if resume == "auto":
        run = (root / (run_dir or "runs/latest")).resolve()  # once: the link may move
        if not layout.steps_newest_first(run / "checkpoints"):
            return None
        _lock(run)  # first: another training there would move on while we search
        return checkpoint.newest_whole(run / "checkpoints")
    path = root / resume
    if (path / "checkpoints").is_dir():
        return checkpoint.newest_whole(path / "checkpoints")
    if fault := checkpoint.find_fault(path):
        raise UserError(f"resume={path}: neither a run nor a whole checkpoint ({fault})")
    return path.resolve()


def open_run(
    root: Path, name: str, seed: int, run_dir: str | None, resume: str | None, start: Path | None
) -> Run:
    """The folder for a training that continues from `start`; see `find_start`.

    Without `run_dir` the newest checkpoint of a run is continued in its folder, an older one in a
    new folder. Raises UserError for a `run_dir` that holds another run.
    """
    own = _run_of(start)
    newest = checkpoint.newest_whole(own / "checkpoints") if own else None
    folder = (root / run_dir).resolve() if run_dir else None
    if folder is None:
        folder = own if own and start == newest else new_folder(root, name, seed)
    elif folder == own and start != newest:
        raise UserError(f"{start} is not the newest checkpoint of {folder}: leave run_dir out")
    elif folder == root or any(root / name in (folder, *folder.parents) for name in _CODE):
        raise UserError(f"run_dir={folder}: a folder of the project's code; take one in runs/")
    elif folder != own and resume != "auto" and (folder / "config_used.yaml").exists():
        raise UserError(f"{folder} holds a run already: add resume=auto, or choose another run_dir")
    folder.mkdir(parents=True, exist_ok=True)
    _lock(folder)
    if start is None and layout.steps_newest_first(folder / "checkpoints"):
        raise UserError(f"{folder}: another process has trained there meanwhile; start this anew")
    # Runs elsewhere are found by their path; those of record and verify are no runs of the user's.
    kept, above = root / "runs", {*folder.parents, *folder.resolve().parents}
    inside = {kept, kept.resolve()} & above  # it, or a folder in it, may be a link to a larger disk
    if inside and not {place / name for place in inside for name in ("record", "verify")} & above:
        checkpoint.point(root / "runs" / "latest", folder)
    return Run(folder, start)


_locks: dict[Path, Any] = {}  # open as long as the process lives; the system frees them at its end


def _lock(folder: Path) -> None:
    """One training writes to a run's folder at a time. UserError if another one does so now."""
    if folder in _locks or os.environ.get("RANK", "0") != "0":  # of its processes the first locks
        return
    file = (folder / ".lock").open("a")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise UserError(f"{folder}: another process is training there; wait for its end") from error
    except OSError as error:
        words = f"{error.strerror}; take care that no other training uses it"
        print(f"warning: {folder}: this file system has no locks ({words})", flush=True)
    _locks[folder] = file


def refuse_other_training(old: dict[str, Any], new: dict[str, Any], where: Path) -> None:
    """UserError if the training in `where` had other settings or data; its end may differ.

    Of both states `config`, and `data`, the digest, where both know it.
    """
    then, now = (
        {**s, "training": {**s["training"], "max_steps": None}, "seeds": seeds_by_hand(s)}
        for s in (old["config"], new["config"])
    )
    lines = differences({"config": then}, {"config": now})
    if len({old.get("data"), new.get("data")} - {None}) > 1:
        lines.append("data: not the files that it was trained with: put them back, or train anew")
    if lines:
        raise UserError([f"{where} was trained with other settings or data:", *lines])


def refuse_other_run(folder: Path, settings: dict[str, Any]) -> None:
    """UserError if `folder` holds a run of other settings that saved no checkpoint."""
    used = folder / "config_used.yaml"
    if used.is_file():
        old: Any = OmegaConf.to_container(OmegaConf.load(used))
        known = {name: value for name, value in old.items() if name in settings}
        refuse_other_training({"config": known}, {"config": settings}, folder)


def _run_of(start: Path | None) -> Path | None:
    """The run that a checkpoint lies in; None for a copy of the checkpoint alone."""
    run = start.parent.parent if start and start.parent.name == "checkpoints" else None
    return run if run and (run / "config_used.yaml").is_file() else None


def new_folder(root: Path, name: str, seed: int) -> Path:
    """Make the folder of a run that starts now."""
    stamp = time.strftime("%Y-%m-%d_%H-%M-%S")
    return create_folder(root / "runs" / name / f"{stamp}_seed{seed}")


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
