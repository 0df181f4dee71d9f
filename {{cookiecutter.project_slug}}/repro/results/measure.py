"""Train and evaluate one seed of a claim through the author's commands.

`record` and `verify` do it in the same way. Beside the run lies cost.json: what its training took,
with the attempts that were stopped.
"""

import math
import time
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

from pydantic import TypeAdapter, ValidationError

from repro.core import layout
from repro.core.errors import UserError
from repro.core.files import JsonObject, parse_object, read_object, write_file, write_json
from repro.core.project import WITHOUT_TRACKER, command_module, run_author_command
from repro.core.text import listed
from repro.results.claims import Claim
from repro.results.recording import RecordedCheckpoint
from repro.runs.evaluation import best_step

_COST = "cost.json"


@dataclass
class Spent:
    """What a training took until now; `finished` says whether it came to its end."""

    seconds: float = 0.0
    peak_memory_mib: float = 0.0
    finished: bool = False


@dataclass(frozen=True)
class SeedResult:
    """What the training of one seed gave: the claim's metric, the bits of the weights, the cost.

    `value` is of the claim's checkpoint, `bits` are of the last one. `best` is None unless the
    claim is of the best one.
    """

    value: float
    bits: str
    steps: int
    spent: Spent
    best: RecordedCheckpoint | None = None


def measure(root: Path, claim: Claim, seed: int, folder: Path, processes: int = 1) -> SeedResult:
    """Train and evaluate one seed of a claim in `folder`, and read what came of it.

    The last checkpoint is always evaluated. If the claim is of the best one, that one is evaluated,
    too, and metrics.json becomes a copy of its metrics. `processes`: how many the training takes.
    """
    # Without a tracker: whoever repeats a result need not reach the author's server.
    arguments = [f"seed={seed}", f"run_dir={folder}", WITHOUT_TRACKER]
    if folder.is_dir() and any(folder.iterdir()):  # it was stopped
        arguments.append("resume=auto")
    spent = _train(root, [*claim.arguments, *arguments], folder, processes)
    from repro.training.checkpoint import newest_whole  # here: it imports torch

    # Not by its name `last`: the runs of an archive have no links.
    newest = newest_whole(folder / layout.CHECKPOINTS)
    if claim.checkpoint == layout.LAST:
        last = _evaluate(root, newest, folder / layout.EVALUATION)
        return SeedResult(_value_of(last, claim, seed), last.bits, last.steps, spent)
    best_folder = find_best(f"claim {claim.name}, seed {seed}", newest)
    best_metrics = layout.evaluation_file(folder, layout.BEST)
    last = _evaluate(root, newest, layout.evaluation_file(folder, layout.LAST))
    best = _evaluate(root, best_folder, best_metrics)
    write_file(folder / layout.EVALUATION, best_metrics.read_bytes())
    return SeedResult(
        value=_value_of(best, claim, seed),
        bits=last.bits,
        steps=last.steps,
        spent=spent,
        best=RecordedCheckpoint(layout.step_of(best_folder), best.bits),
    )


def find_best(of: str, newest: Path) -> Path:
    """Return the best checkpoint of the run whose newest one this is; UserError without one.

    `of` says in the error's line whose run it is.
    """
    from repro.training.checkpoint import find_fault  # here: it imports torch

    step = best_step(newest)
    if not step:
        raise UserError(
            f"{of}: {newest.parent.parent} has no best checkpoint: the training names no metric "
            "that chooses it, or no validation gave a number for that (NaN at each, see "
            f"metrics.jsonl); mend that, or claim checkpoint: {layout.LAST}"
        )
    folder = layout.step_folder(newest.parent, step)
    if fault := find_fault(folder):
        raise UserError(
            f"{of}: the best checkpoint is that of step {step}, and {folder} cannot be read "
            f"({fault}): restore it, or delete {newest.parent.parent} and train again"
        )
    return folder


class _Evaluation(NamedTuple):
    """What the evaluation of a checkpoint wrote, in the file `path`."""

    path: Path
    metrics: JsonObject
    bits: str
    steps: int


def _evaluate(root: Path, checkpoint: Path, path: Path) -> _Evaluation:
    """Evaluate a checkpoint and read the file that this writes; UserError if it lacks something."""
    path.unlink(missing_ok=True)  # of an earlier attempt
    run_author_command(root, "evaluate", ["--checkpoint", str(checkpoint)])
    metrics = read_object(path)
    bits = metrics.get("bits")
    steps = metrics.get("steps")
    if missing := sorted({"bits", "seed", "step", "steps"} - metrics.keys()):
        program = command_module(root, "evaluate")
        raise UserError(
            f"{path} lacks {listed(missing)}: see {program}, which has to write it by "
            "evaluation_places(checkpoint, step).write(metrics) of repro.runs"
        )
    if not isinstance(bits, str) or not isinstance(steps, int):
        raise UserError(f"{path}: bits is no text, or steps no whole number")
    return _Evaluation(path, metrics, bits, steps)


def _value_of(evaluation: _Evaluation, claim: Claim, seed: int) -> float:
    """Return the claim's metric; UserError if it is missing, or no finite number."""
    metrics = evaluation.metrics
    numbers = {name: value for name, value in metrics.items() if type(value) in (int, float)}
    value = numbers.get(claim.metric)
    if not isinstance(value, int | float) or not _is_finite(value):
        known = ", ".join(f"{name}={number}" for name, number in numbers.items())
        raise UserError(
            f"claim {claim.name}, seed {seed}: expected {claim.metric}, a finite number, in "
            f"{evaluation.path.name}; there are {known}"
        )
    return float(value)


def _is_finite(number: float) -> bool:
    """Tell whether a number is finite; a whole number larger than every float is not."""
    try:
        return math.isfinite(number)
    except OverflowError:
        return False


def _train(root: Path, arguments: list[str], folder: Path, processes: int) -> Spent:
    """Train to the end; return what it took, with earlier attempts that were stopped."""
    path = folder / _COST
    spent = _read_spent(path)
    train = partial(run_author_command, root, "train", arguments, processes=processes)
    if spent.finished:
        train()  # it finds that nothing is left to do
        return spent
    started = time.monotonic()
    try:
        done = train()
        spent.peak_memory_mib = max(spent.peak_memory_mib, done.peak_memory_mib)
        spent.finished = True
    finally:
        spent.seconds += time.monotonic() - started
        if folder.is_dir():
            write_json(path, asdict(spent))
    return spent


def _read_spent(path: Path) -> Spent:
    try:
        return TypeAdapter(Spent).validate_python(parse_object(path))
    except ValidationError:
        return Spent()
