"""Tell which checkpoints of a run are the last and the best one, and where evaluations of them go.

The last one is that of the newest step. Its state.json names the step of the best one. The links
`last` and `best` are not looked at: the runs of an archive have none.
"""

from pathlib import Path
from typing import NamedTuple

from repro.core import layout
from repro.core.files import JsonObject, read_object, write_json


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
    checkpoint = checkpoint.resolve()
    run = layout.run_of(checkpoint) or checkpoint
    names = _names_in_run(run, checkpoint, step)
    metrics = [layout.evaluation_file(run, name) for name in names]
    figures = [layout.figures_folder(run, name) for name in names]
    if not names or layout.LAST in names:
        metrics.append(run / layout.EVALUATION)
    return EvaluationPlaces(run, metrics, figures or [run / layout.FIGURES])


def _names_in_run(run: Path, checkpoint: Path, step: int) -> list[str]:
    """Return what a run calls a checkpoint of its own: last, best, both, or step-N."""
    checkpoints = run / layout.CHECKPOINTS
    newest_first = layout.steps_newest_first(checkpoints)
    if not newest_first:
        return []
    last = newest_first[0]
    named = {
        layout.LAST: last,
        layout.BEST: layout.step_folder(checkpoints, best_step(last)),
    }
    names = [name for name, folder in named.items() if folder.resolve() == checkpoint]
    return names or [f"step-{step}"]


def best_step(checkpoint: Path) -> int:
    """Return the step of the best checkpoint until this one was saved; 0 if there is none yet."""
    best = read_object(checkpoint / layout.STATE).get("best")
    step = best.get("step") if isinstance(best, dict) else None
    return step if isinstance(step, int) else 0
