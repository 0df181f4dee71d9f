"""Train a model. Settings are key=value pairs; configs/config.yaml lists them all.

examples:
  python -m experiment.train
  python -m experiment.train training.epochs=3 optimizer=sgd
  python -m experiment.train run_dir=runs/mine                 a folder of your choice
  python -m experiment.train run_dir=runs/mine resume=auto     continue after a crash
  python -m experiment.train -m seed=1,2,3                     a sweep, one run after the other
  torchrun --nproc-per-node 2 -m experiment.train training.shards=4    two processes
"""

import json
import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from experiment import ROOT
from repro import environment
from repro.core.command import Parser, run_command
from repro.core.files import JsonObject

if TYPE_CHECKING:
    from experiment.config import Config
    from experiment.trainer import Trainer
    from repro.runs.conditions import Situation


def main() -> int:
    parser = Parser("experiment.train", __doc__)
    parser.add_argument("settings", nargs="*", metavar="key=value")
    parser.add_argument("-m", "--multirun", action="store_true", help="run every combination")
    parser.add_argument("--conditions", action="store_true", help="print what bits depend on")
    arguments = parser.parse_intermixed_args()
    if not arguments.multirun:  # each run of a sweep is a process of its own
        environment.enter_early(ROOT, arguments.settings)
    from experiment.config import LOADER  # imports Hydra: after the interpreter was started anew

    if arguments.multirun:
        from repro.runs.sweep import sweep

        return sweep(ROOT, "experiment.train", LOADER, arguments.settings)
    config = LOADER.load(arguments.settings)
    environment.enter(config.profile, config.threads)
    if arguments.conditions:
        print(json.dumps(conditions_of(config).as_json()))
        return 0
    return train(config)


def conditions_of(config: "Config", manifest: "JsonObject | None" = None) -> "Situation":
    """Return what the bits depend on (repro/runs/conditions.py); `manifest` if it was read."""
    from experiment import data
    from repro.runs.conditions import conditions_here
    from repro.training.parallel import choose_device

    if manifest is None:
        manifest = data.as_json(data.read_manifest(config))
    device = choose_device(config.device).type
    return conditions_here(ROOT, config.bits_settings(), manifest, config.profile, device)


def train(config: "Config") -> int:
    """Train in a new run folder, or go on in an old one; return the exit code.

    With several processes (torchrun) each comes here; the first one alone writes files.
    """
    # Imported here, because torch reads the environment when it is imported.
    from experiment.trainer import Trainer
    from repro.runs.folder import find_start
    from repro.training.interruption import EXIT_CODE
    from repro.training.unsaved import refuse_unsaved

    trainer = Trainer(config)
    start = trainer.processes.first(lambda: find_start(ROOT, config))
    start_from(start, trainer)
    if start and trainer.step >= trainer.last_step:
        if trainer.processes.rank == 0:
            print(f"{start} has done {trainer.step} steps: nothing is left to train")
            print(f"bits {trainer.bits}")
        trainer.processes.close()
        return 0
    refuse_unsaved(trainer, trainer.state_dict())
    trainer.processes.wait()  # until all have read what the first one is going to change
    if trainer.processes.rank:
        finished = trainer.fit(None)
        trainer.processes.close()
    else:
        finished = train_in_run(start, trainer)
    return 0 if finished else EXIT_CODE


def start_from(start: Path | None, trainer: "Trainer") -> None:
    """Load the checkpoint `start`, if there is one; refuse one of other settings or data."""
    from repro.runs.folder import refuse_other_run, refuse_other_training, trained_with
    from repro.training import checkpoint
    from repro.training.unsaved import refuse_not_restored

    config = trainer.config
    if start:
        state = checkpoint.load(start)
        refuse_other_training(trained_with(state), trained_with(trainer.state_dict()), start)
        trainer.load_state_dict(state)
        refuse_not_restored(state, trainer.state_dict(), start)
        return
    trainer.initialize()
    if config.resume == "auto" and config.run_dir:
        refuse_other_run(ROOT / config.run_dir, config.bits_settings())


def train_in_run(start: Path | None, trainer: "Trainer") -> bool:
    """Train in a run's folder, which process 0 alone writes to; False if SIGTERM ended it early."""
    from repro.runs.conditions import Facts
    from repro.runs.folder import open_run
    from repro.runs.trace import Trace
    from repro.tracking import TrackerSettings, tracked
    from repro.training.determinism import flags
    from repro.training.interruption import mark

    config = trainer.config
    # The folder is made last: what was refused before leaves nothing behind.
    run = open_run(ROOT, config, start)
    run.begin(trainer.step)
    if start:
        trainer.name_checkpoints(run)
        print(f"resuming after step {trainer.step}")
    situation = conditions_of(config, trainer.data.manifest)
    facts = Facts(situation, flags(), config.seed, config.seeds.model_dump())
    run.describe(ROOT, config.model_dump(mode="json"), facts, trainer.step)
    tracing: AbstractContextManager[Trace | None] = nullcontext()
    if config.output.trace:
        tracing = Trace(run.folder, facts, trainer.model, trainer.step)
    chosen = config.tracker
    tracker = TrackerSettings(chosen.name, chosen.uri, chosen.largest_mb, chosen.wait)
    with tracked(ROOT, run.folder, tracker), tracing as trace:
        finished = trainer.fit(run, trace)
        trainer.processes.close()
        if not finished:
            mark(run.folder, trainer.step)
    if finished:
        print(f"bits {trainer.bits}")
        print(f"run  {run.folder}")
    else:
        print(f"SIGTERM: saved after step {trainer.step}: run_dir={run.folder} resume=auto goes on")
    return finished


if __name__ == "__main__":
    sys.exit(run_command(main))
