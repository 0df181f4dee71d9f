"""Train and evaluate one seed of a claim through the author's commands.

`record` and `verify` do it in the same way. Beside the run lies cost.json: what its training took,
with the attempts that were stopped.
"""

import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from repro.core import layout
from repro.core.errors import UserError
from repro.core.files import JsonObject, parse_object, read_object, write_json
from repro.core.project import WITHOUT_TRACKER, run_author_command, tool_settings
from repro.core.text import listed
from repro.results.claims import Claim

_COST = "cost.json"


@dataclass
class Spent:
    """What a training took until now; `finished` says whether it came to its end."""

    seconds: float = 0.0
    peak_memory_mib: float = 0.0
    finished: bool = False


@dataclass(frozen=True)
class SeedResult:
    """What the training of one seed gave: the claim's metric, the bits of the weights, the cost."""

    value: float
    bits: str
    steps: int
    spent: Spent


def measure(root: Path, claim: Claim, seed: int, folder: Path) -> SeedResult:
    """Train and evaluate one seed of a claim in `folder`, and read what came of it."""
    # Without a tracker: whoever repeats a result need not reach the author's server.
    arguments = [f"seed={seed}", f"run_dir={folder}", "resume=auto", WITHOUT_TRACKER]
    spent = _train(root, [*claim.arguments, *arguments], folder)
    (folder / layout.EVALUATION).unlink(missing_ok=True)  # of an earlier attempt
    from repro.training.checkpoint import newest_whole  # here: it imports torch

    # Not by its name `last`: the runs of an archive have no links.
    newest = newest_whole(folder / layout.CHECKPOINTS)
    run_author_command(root, "evaluate", ["--checkpoint", str(newest)])
    metrics = read_object(folder / layout.EVALUATION)
    bits = metrics.get("bits")
    steps = metrics.get("steps")
    if missing := sorted({"bits", "seed", "step", "steps"} - metrics.keys()):
        program = tool_settings(root)["evaluate"]
        raise UserError(f"{folder / layout.EVALUATION} lacks {listed(missing)}: see {program}")
    if not isinstance(bits, str) or not isinstance(steps, int):
        raise UserError(f"{folder / layout.EVALUATION}: bits is no text, or steps no whole number")
    value = _value_of(metrics, claim, seed)
    return SeedResult(value, bits, steps, spent)


def _value_of(metrics: JsonObject, claim: Claim, seed: int) -> float:
    """Return the claim's metric; UserError if it is missing, or no finite number."""
    numbers = {name: value for name, value in metrics.items() if type(value) in (int, float)}
    value = numbers.get(claim.metric)
    if not isinstance(value, int | float) or not math.isfinite(value):
        known = ", ".join(f"{name}={number}" for name, number in numbers.items())
        raise UserError(
            f"claim {claim.name}, seed {seed}: expected {claim.metric}, a finite number, in "
            f"{layout.EVALUATION}; there are {known}"
        )
    return float(value)


def _train(root: Path, arguments: list[str], folder: Path) -> Spent:
    """Train to the end; return what it took, with earlier attempts that were stopped."""
    path = folder / _COST
    spent = _read_spent(path)
    if spent.finished:
        run_author_command(root, "train", arguments)  # it finds that nothing is left to do
        return spent
    started = time.monotonic()
    try:
        done = run_author_command(root, "train", arguments)
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
