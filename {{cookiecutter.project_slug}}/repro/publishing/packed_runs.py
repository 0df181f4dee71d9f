"""Find the runs that were recorded, each of them whole, to be packed into an archive."""

from pathlib import Path

from repro.core import layout
from repro.core.errors import refuse
from repro.results.claims import RECORDED_RUNS, recorded_run
from repro.results.recording import RecordedClaim


def find_runs(root: Path, name: str, claim: RecordedClaim) -> dict[str, Path]:
    """Find the recorded run of each seed, known by its conditions and bits, its checkpoints whole.

    UserError if one is missing or damaged.
    """
    from repro.training.checkpoint import find_fault  # here: it imports torch

    runs = {}
    faults = []
    for seed in claim.values:
        run = recorded_run(root, name, claim, int(seed))
        if not run:
            faults.append(
                f"{name}: the recorded run of seed {seed} is not in {RECORDED_RUNS}: make record"
            )
            continue
        runs[seed] = run
        if fault := _best_is_missing(run, claim, seed):
            faults.append(fault)
        for checkpoint in layout.steps_newest_first(run / layout.CHECKPOINTS):
            if fault := find_fault(checkpoint):
                remedy = f"delete {run}, then make record"
                faults.append(f"{checkpoint} is damaged ({fault}): {remedy}")
    refuse(faults)
    return runs


def _best_is_missing(run: Path, claim: RecordedClaim, seed: str) -> str | None:
    """Say what to do if the best checkpoint, which the claim is of, is not in the run."""
    if claim.checkpoint != layout.BEST:
        return None
    steps = {best[seed].step for best in claim.best.values() if seed in best}
    checkpoints = run / layout.CHECKPOINTS
    if any(layout.step_folder(checkpoints, step).is_dir() for step in steps):
        return None
    return f"{checkpoints} has no best checkpoint: delete {run}, then make record"
