"""Evaluate a checkpoint on the test samples; writes metrics into its run.

examples:
  python -m experiment.evaluate                                        the newest run
  python -m experiment.evaluate --checkpoint runs/mine/checkpoints/best
"""

import sys

from experiment import ROOT
from repro.core.command import run_command
from repro.tasks import evaluate_command


def evaluate(session):
    from experiment.loop import evaluate  # imports torch: after the profile is in force

    return evaluate(session)


if __name__ == "__main__":
    sys.exit(run_command(lambda: evaluate_command(ROOT, __doc__)))
