"""Get the data, check them, split them, write a manifest. The same bytes every time.

examples:
  python -m experiment.prepare
  python -m experiment.prepare data_dir=/scratch/data
"""

import sys

if not __package__:  # as a file, which finds neither this package nor the kit
    print("error: started as a file: expected python -m experiment.prepare", file=sys.stderr)
    sys.exit(2)

from experiment import ROOT
from repro.core.command import run_command
from repro.tasks import prepare_command

if __name__ == "__main__":
    sys.exit(run_command(lambda: prepare_command(ROOT, __doc__)))
