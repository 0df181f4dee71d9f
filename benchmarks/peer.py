"""Train as one of the peers does, stretch by stretch, whenever benchmarks/peers.py says so.

    python benchmarks/peer.py PROJECT LOOP STRETCHES STEPS [key=value ...]

Every loop gets the model, the data, the optimizer and the threads of the same project, in a process
of its own. On standard input comes a line for each stretch of STEPS steps, on standard output goes
a line of JSON with what it took. The first stretch is not counted: caches are cold.
"""

import json
import os
import resource
import shutil
import sys
import tempfile
import time
from pathlib import Path

project = Path(sys.argv[1]).resolve()
sys.path.insert(0, str(project))

from experiment.config import LOADER  # noqa: E402
from repro import environment  # noqa: E402

name, stretches, steps = sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
in_all = stretches * steps
folder = Path(tempfile.mkdtemp())
length = ("training.epochs=null", f"training.steps={in_all}")
saving = (f"output.checkpoint_every={steps}", f"run_dir={folder / 'run'}")
config = LOADER.load([*length, *(saving if name == "duties" else ()), *sys.argv[5:]])
environment.enter(config.profile, config.threads)
# What libraries print is not an answer.
answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)


class Gate:
    """Hold a loop between two stretches, until the next one may begin."""

    def __init__(self) -> None:
        self.began: tuple[float, float] | None = None

    def before(self, index: int) -> None:
        """Come before each step; `index`: how many steps were done."""
        if index % steps == 0:
            self.end()
            sys.stdin.readline()
            self.began = (time.perf_counter(), time.process_time())

    def end(self) -> None:
        """Tell what the stretch took that ends here, if there is one."""
        if self.began:
            wall, processor = self.began
            self.answer(
                seconds=time.perf_counter() - wall, processor=time.process_time() - processor
            )
        self.began = None

    def answer(self, **found: float) -> None:
        print(json.dumps(found), file=answers, flush=True)


GATE = Gate()


def main() -> None:
    from peer_loops import LOOPS  # torch comes after the profile

    try:
        LOOPS[name](config, folder, in_all, steps, GATE)
    finally:
        shutil.rmtree(folder)
    GATE.answer(peak=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


if __name__ == "__main__":
    main()
