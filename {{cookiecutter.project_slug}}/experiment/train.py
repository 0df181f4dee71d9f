"""Train a model. Settings are key=value pairs; configs/config.yaml lists them all.

examples:
  python -m experiment.train
  python -m experiment.train training.max_steps=100 seed=7
  python -m experiment.train run_dir=runs/mine                 a folder of your choice
  python -m experiment.train run_dir=runs/mine resume=auto     continue after a crash
  python -m experiment.train -m seed=1,2,3                     a sweep, one run after the other
  torchrun --nproc-per-node 2 -m experiment.train training.shards=4    two processes
"""

import sys

if not __package__:  # as a file, which finds neither this package nor the kit
    print("error: started as a file: expected python -m experiment.train", file=sys.stderr)
    sys.exit(2)

from typing import TYPE_CHECKING

from experiment import ROOT
from repro.core.command import run_command
from repro.tasks import train_command

if TYPE_CHECKING:
    from repro.runs import Session


def train(session: "Session") -> None:
    """Train the task of experiment/task.py by the kit's loop; [tool.repro] names this function.

    For a loop of your own, write it here (repro/runs/session.py says what a session gives).
    """
    from repro.tasks import train_task  # imports torch: after the profile is in force

    train_task(session)


if __name__ == "__main__":
    sys.exit(run_command(lambda: train_command(ROOT, __doc__)))
