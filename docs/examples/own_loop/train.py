"""Train a model. Settings are key=value pairs; configs/config.yaml lists them all.

examples:
  python -m experiment.train
  python -m experiment.train training.epochs=3
  python -m experiment.train run_dir=runs/mine                 a folder of your choice
  python -m experiment.train run_dir=runs/mine resume=auto     continue after a crash
"""

import sys

from experiment import ROOT
from repro.core.command import run_command
from repro.tasks import train_command


def train(session):
    from experiment.loop import train  # imports torch: after the profile is in force

    train(session)


if __name__ == "__main__":
    sys.exit(run_command(lambda: train_command(ROOT, __doc__)))
