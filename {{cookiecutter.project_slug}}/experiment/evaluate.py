"""Evaluate a checkpoint on the test samples; writes metrics and pictures into its run.

Those of the last checkpoint are metrics-last.json, metrics.json and figures/, those of the best one
metrics-best.json and figures-best/.

examples:
  python -m experiment.evaluate                                        the newest run
  python -m experiment.evaluate --checkpoint runs/mine/checkpoints/best
"""

import sys

if not __package__:  # as a file, which finds neither this package nor the kit
    print("error: started as a file: expected python -m experiment.evaluate", file=sys.stderr)
    sys.exit(2)

from typing import TYPE_CHECKING, Any

from experiment import ROOT
from repro.core.command import run_command
from repro.tasks import evaluate_command

if TYPE_CHECKING:
    from repro.runs import EvaluationSession


def evaluate(session: "EvaluationSession") -> dict[str, Any]:
    """Evaluate the task of experiment/task.py; [tool.repro] names this function."""
    from repro.tasks import evaluate_task  # imports torch: after the profile is in force

    return evaluate_task(session)


if __name__ == "__main__":
    sys.exit(run_command(lambda: evaluate_command(ROOT, __doc__)))
