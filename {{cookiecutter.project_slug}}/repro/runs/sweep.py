"""A sweep: one command with several values for some settings, every combination a run of its own.

`seed=1,2,3` or `training.epochs=range(1,4)`, in Hydra's grammar. All combinations are checked
before the first one starts; one that fails does not stop the others. At the end stands the command
that compares the runs.
"""

import shlex
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper

from repro.core.errors import UserError
from repro.runs.configuration import Loader


def sweep(root: Path, module: str, loader: Loader[Any], settings: list[str]) -> int:
    """Run `python -m module` for every combination, one after the other; 1 if one failed."""
    parsed, faults = loader.parse(settings)
    if faults:
        raise UserError(faults)
    jobs = BasicSweeper.split_arguments(parsed, max_batch_size=None)[0]
    configs = [loader.load(job) for job in jobs]
    from repro.runs.folder import new_folder  # only now: a fault is told before torch is imported

    failed, folders = [], []
    for number, (job, config) in enumerate(zip(jobs, configs, strict=True), 1):
        print(f"job {number}/{len(jobs)}: {' '.join(job)}", flush=True)
        folder, chosen = config.run_dir, None
        if not (config.run_dir or config.resume):  # chosen here, to know it
            chosen = new_folder(root, config.name, config.seed)
            folder = str(chosen.relative_to(root))
            job = [*job, f"run_dir={folder}"]
        try:
            code = subprocess.run([sys.executable, "-m", module, *job], cwd=root).returncode
        finally:
            with suppress(OSError):  # what was refused at once leaves nothing behind
                if chosen:
                    chosen.rmdir()
        if code:
            failed.append(f"failed: {' '.join(job)}")
        elif folder:
            folders.append(folder)
    for line in failed:
        print(line, file=sys.stderr)
    if len(folders) > 1:
        print(f"to compare them: python -m repro compare {shlex.join(folders)}")
    return 1 if failed else 0
