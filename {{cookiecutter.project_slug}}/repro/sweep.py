"""A sweep: one command with several values for some settings, every combination a run of its own.

`seed=1,2,3` or `training.epochs=range(1,4)`, in Hydra's grammar. All combinations are checked
before the first one starts; one that fails does not stop the others.
"""

import subprocess
import sys
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper

from repro.command import UserError
from repro.configuration import Loader


def sweep(root: Path, module: str, loader: Loader[Any], settings: list[str]) -> int:
    """Run `python -m module` for every combination, one after the other; 1 if one failed."""
    parsed, faults = loader.parse(settings)
    if faults:
        raise UserError(faults)
    jobs = BasicSweeper.split_arguments(parsed, max_batch_size=None)[0]
    for job in jobs:
        loader.load(job)
    failed = []
    for number, job in enumerate(jobs, 1):
        print(f"job {number}/{len(jobs)}: {' '.join(job)}", flush=True)
        if subprocess.run([sys.executable, "-m", module, *job], cwd=root).returncode:
            failed.append(f"failed: {' '.join(job)}")
    for line in failed:
        print(line, file=sys.stderr)
    return 1 if failed else 0
