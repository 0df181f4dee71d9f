"""Say where everything lies: folders of a project, files of a run and of a checkpoint.

The only place that spells these names. Nothing here reads or writes a file.
"""

from __future__ import annotations  # `make image-digest` runs with older Pythons, too

from pathlib import Path

# Of a project. The code of a training is all of these; what stands elsewhere is no condition.
USER_CODE = ("experiment",)  # the folders of the author
KIT = "repro"
CONFIGS = "configs"
CODE = (*USER_CODE, KIT, CONFIGS)
TESTS = "tests"
DATA = "data"
RUNS = "runs"
RESULTS = "results"
LATEST = "latest"  # in RUNS: a link to the newest run
RECORDED = "record"  # in RUNS: what `record` trained
VERIFIED = "verify"  # in RUNS: what `verify` trained
VERDICTS = "verdicts"  # in RESULTS: what others reported

# Of a data set, in DATA.
MANIFEST = "manifest.json"
RAW = "raw"  # downloads
PREPARED = "prepared"  # what is read; its files are in the manifest
DIGESTS = ".digests.json"  # what `train` has hashed; in no archive, image or commit
OWN_FILES = "own_files"  # in DATA: an author's own files, in folders by their settings' names

# Of a run.
CONFIG_USED = "config_used.yaml"
COMMAND = "command.txt"
CONTEXT = "experiment_context.json"
PATCH = "uncommitted_changes.diff"
DATA_FACTS = "data.json"  # what identifies the data, as an own loop tells the session
METRICS = "metrics.jsonl"
TRACE = "trace.jsonl"
EVALUATION = "metrics.json"  # of the last checkpoint; `record` makes it the claim's
FIGURES = "figures"
CHECKPOINTS = "checkpoints"
INTERRUPTED = "interrupted"  # there while a run that SIGTERM ended waits to go on
ATTEMPTS = ".attempts.json"  # how far a start has come, while a launcher may start it again
FAILURE = ".failure.json"  # what has ended such a start, as a process saw it whose own error it is

# Of a run's checkpoints: links to the newest one and to the best one.
LAST = "last"
BEST = "best"

# Of a checkpoint.
TENSORS = "tensors.safetensors"
STATE = "state.json"
SUMS = "SHA256SUMS"

# Of a checkpoint that several processes wrote: its manifest, and what each wrote.
PARTS = "parts.json"
ANY_PART = "part-*-of-*.safetensors"

_STEP = "step-"
_RESUMED = "resumed_at_step_"


def own_place(setting: str) -> str:
    """Return where an author's own files are looked for whose setting names nothing that is here.

    An archive with its data has them there.
    """
    return f"{DATA}/{OWN_FILES}/{setting}"


def step_folder(checkpoints: Path, step: int) -> Path:
    """Return where the checkpoint after `step` steps lies; names sort like numbers."""
    return checkpoints / f"{_STEP}{step:09d}"


def part_file(rank: int, size: int) -> str:
    """Return the name of what process `rank` of `size` writes of a checkpoint."""
    return f"part-{rank}-of-{size}.safetensors"


def step_of(checkpoint: Path) -> int:
    """Return the number of steps after which the checkpoint in this folder was saved."""
    return int(checkpoint.name.removeprefix(_STEP))


def names_a_step(checkpoint: Path) -> bool:
    """Tell whether a path has a name that `step_folder` gives."""
    number = checkpoint.name.removeprefix(_STEP)
    is_number = number.isascii() and number.isdecimal()
    return is_number and checkpoint.name == step_folder(checkpoint.parent, int(number)).name


def steps_newest_first(checkpoints: Path) -> list[Path]:
    """Return the step folders of a run's folder of checkpoints, the newest first.

    Only names that `step_folder` gives are taken: step-000000025.bak was set aside by somebody.
    """
    folders = (path for path in checkpoints.glob(f"{_STEP}*") if names_a_step(path))
    # A link that leads nowhere counts: the disk behind it may come back.
    return sorted((p for p in folders if p.is_dir() or p.is_symlink()), key=step_of, reverse=True)


def run_of(checkpoint: Path) -> Path | None:
    """Return the run that a checkpoint lies in; None for a copy of the checkpoint alone."""
    if checkpoint.parent.name != CHECKPOINTS:
        return None
    return checkpoint.parent.parent


def evaluation_file(run: Path, name: str) -> Path:
    """Return where the metrics of a run's checkpoint lie; its name is LAST, BEST or step-N."""
    path = run / EVALUATION
    return path.with_stem(f"{path.stem}-{name}")


def figures_folder(run: Path, name: str) -> Path:
    """Return where the figures of a run's checkpoint lie; those of the last one are the run's."""
    return run / (FIGURES if name == LAST else f"{FIGURES}-{name}")


def resumed_folder(run: Path, step: int) -> Path:
    """Return where a run that was resumed after `step` steps keeps the context of that time."""
    return run / f"{_RESUMED}{step}"


def resumed_at(folder: Path) -> int:
    """Return after how many steps the training began whose context a folder holds."""
    number = folder.name.removeprefix(_RESUMED)
    return int(number) if folder.name.startswith(_RESUMED) and number.isdecimal() else 0


def context_folders(run: Path) -> list[Path]:
    """Return the run's folder, and those with the contexts of the times when it was resumed."""
    folders = (path for path in run.glob(f"{_RESUMED}*") if path.is_dir())
    resumed = (path for path in folders if path == resumed_folder(run, resumed_at(path)))
    return [run, *sorted(resumed, key=resumed_at)]
