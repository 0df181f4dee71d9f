"""Tell which checkpoints of a run are the last and the best one, and where evaluations of them go.

The last one is that of the newest step. Its state.json names the step of the best one. The links
`last` and `best` are not looked at: the runs of an archive have none.
"""

from pathlib import Path
from typing import NamedTuple

from repro.core import layout
from repro.core.files import JsonObject, read_object, write_json
from repro.core.special_files import resolved


class EvaluationPlaces(NamedTuple):
    """The run that an evaluated checkpoint belongs to, and where metrics and pictures of it go."""

    run: Path
    metrics: list[Path]
    figures: list[Path]

    def write(self, metrics: JsonObject) -> None:
        """Write the metrics to all their places."""
        for path in self.metrics:
            write_json(path, metrics)

    def __str__(self) -> str:
        names = [str(path.relative_to(self.run)) for path in (*self.metrics, *self.figures)]
        return f"{self.run}: {', '.join(names)}"


def evaluation_places(checkpoint: Path, step: int) -> EvaluationPlaces:
    """Return where the evaluation of a checkpoint goes, which was saved after `step` steps.

    The last checkpoint has metrics-last.json, metrics.json and figures/. The best one has
    metrics-best.json and figures-best/; where it is the last one, too, it has all of these. Another
    one has metrics-step-N.json and figures-step-N/. Of a copy of a checkpoint alone, outside a run,
    metrics.json and figures/ go into its own folder.
    """
    checkpoint = resolved(checkpoint)
    run = _run_of(checkpoint)
    if run is None:
        return EvaluationPlaces(
            checkpoint, [checkpoint / layout.EVALUATION], [checkpoint / layout.FIGURES]
        )
    names = _names_in_run(run, step)
    metrics = [layout.evaluation_file(run, name) for name in names]
    figures = [layout.figures_folder(run, name) for name in names]
    if layout.LAST in names:
        metrics.append(run / layout.EVALUATION)
    return EvaluationPlaces(run, metrics, figures)


def _run_of(checkpoint: Path) -> Path | None:
    """Return the run that a checkpoint lies in; None for a copy of the checkpoint alone.

    Such a copy may lie in a folder `checkpoints`, too: what holds that one need not be a run.
    """
    run = layout.run_of(checkpoint)
    if run is None or not (run / layout.CONFIG_USED).is_file():
        return None
    return run if layout.steps_newest_first(run / layout.CHECKPOINTS) else None


def _names_in_run(run: Path, step: int) -> list[str]:
    """Return what a run calls its checkpoint after `step` steps: last, best, both, or step-N.

    Steps are compared, not folders: in a copy of a run `last` and `best` may be folders.
    """
    last = layout.steps_newest_first(run / layout.CHECKPOINTS)[0]
    steps = {layout.LAST: layout.step_of(last), layout.BEST: best_step(last) or None}
    names = [name for name, known in steps.items() if known == step]
    return names or [f"step-{step}"]


def best_step(checkpoint: Path) -> int:
    """Return the step of the best checkpoint until this one was saved; 0 if there is none yet."""
    best = read_object(checkpoint / layout.STATE).get("best")
    step = best.get("step") if isinstance(best, dict) else None
    return step if type(step) is int else 0  # `true` is an int, too
