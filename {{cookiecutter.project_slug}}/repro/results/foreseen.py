"""Say, before anything is trained, which claims a training will not give.

What an evaluation measures is asked of the author's code with untrained weights. Where it cannot
say so, which may be with a loop of one's own, the first trained seed does. Where it says that there
is no such number, a training of one step is evaluated: a program of one's own may add some.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from pydantic import TypeAdapter

from repro.core import layout
from repro.core.files import read_object
from repro.core.project import MAX_STEPS, WITHOUT_TRACKER, run_author_command
from repro.core.text import listed
from repro.results.claims import Claim, asked
from repro.runs.conditions import Situation

_OURS = ("step", "steps", "seed")  # numbers that the kit itself puts beside those of an evaluation


class Foreseen(NamedTuple):
    """What a claim's training depends on here, and a line for each thing that it will not give."""

    situation: Situation
    faults: list[str]


@dataclass(frozen=True)
class _Results:
    """The numbers of an evaluation by name, what is wrong in it, if a best checkpoint is kept.

    None where it is not known.
    """

    numbers: list[str] | None
    fault: str | None
    keeps_best: bool | None


def foresee(root: Path, claim: Claim, arguments: list[str]) -> Foreseen:
    """Ask the author's code what a training with these arguments would depend on, and give."""
    answer = asked(root, [*arguments, "--foresee"])
    results = TypeAdapter(_Results).validate_python(answer)
    situation = TypeAdapter(Situation).validate_python(answer)
    of = f"claim {claim.name}"
    faults = _faults_of(
        claim, results, partial(_rehearsed, root, arguments, situation.conditions.processes)
    )
    return Foreseen(situation, [f"{of}: {fault}" for fault in faults])


def _faults_of(
    claim: Claim, results: _Results, rehearsed: Callable[[], Collection[str]]
) -> list[str]:
    faults = []
    if results.fault:
        faults.append(f"{results.fault}; nothing was trained")
    numbers = results.numbers
    is_missing = numbers is not None and claim.metric not in (*numbers, *_OURS)
    if numbers is not None and is_missing and claim.metric not in rehearsed():
        faults.append(
            f"no evaluation gives a number {claim.metric}: expected metric to be one of "
            f"{listed(numbers, 20)}; nothing was trained"
        )
    if claim.checkpoint == layout.BEST and results.keeps_best is False:
        faults.append(
            f"the task keeps no best checkpoint: expected best and validate_on in it, or "
            f"checkpoint: {layout.LAST}; nothing was trained"
        )
    return faults


def _rehearsed(root: Path, arguments: list[str], processes: int) -> Collection[str]:
    """Return the names of the numbers that the evaluation of a training of one step writes."""
    with TemporaryDirectory() as folder:
        run = Path(folder, "run")
        short = [f"{MAX_STEPS}=1", f"run_dir={run}", WITHOUT_TRACKER]
        run_author_command(root, "train", [*arguments, *short], capture=True, processes=processes)
        (checkpoint,) = layout.steps_newest_first(run / layout.CHECKPOINTS)
        run_author_command(root, "evaluate", ["--checkpoint", str(checkpoint)], capture=True)
        metrics = read_object(run / layout.EVALUATION)
    # What is not there after a step may be a number later.
    return [name for name, value in metrics.items() if value is None or type(value) in (int, float)]
