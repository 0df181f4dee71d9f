"""Train a model. Settings are key=value pairs; configs/config.yaml lists them all.

examples:
  python -m experiment.train
  python -m experiment.train training.epochs=3 optimizer=sgd
  python -m experiment.train run_dir=runs/mine                 a folder of your choice
  python -m experiment.train run_dir=runs/mine resume=auto     continue after a crash
  python -m experiment.train -m seed=1,2,3                     a sweep, one run after the other
"""

import json
import os
import subprocess
import sys
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from omegaconf import OmegaConf

from experiment.config import FREE, ROOT, Config, load_config, parse_overrides
from repro import environment
from repro.command import Parser, UserError, run_command


def main() -> int:
    parser = Parser("experiment.train", __doc__)
    parser.add_argument("settings", nargs="*", metavar="key=value")
    parser.add_argument("-m", "--multirun", action="store_true", help="run every combination")
    parser.add_argument("--conditions", action="store_true", help="print what bits depend on")
    arguments = parser.parse_intermixed_args()
    if arguments.multirun:
        return sweep(arguments.settings)
    config = load_config(arguments.settings)
    if os.environ.get("WORLD_SIZE", "1") != "1":
        raise UserError("several processes (torchrun) are not supported yet: start it without")
    environment.enter(config.profile, config.threads)
    if arguments.conditions:
        print(json.dumps(conditions_of(config)))
        return 0
    train(config)
    return 0


def sweep(settings: list[str]) -> int:
    """Run every combination, each in a process of its own; 1 if one of them failed."""
    parsed, faults = parse_overrides(settings)
    if faults:
        raise UserError(faults)
    jobs = BasicSweeper.split_arguments(parsed, max_batch_size=None)[0]
    for job in jobs:
        load_config(job)  # refuse faults before the first job starts
    failed = []
    for number, job in enumerate(jobs, 1):
        print(f"job {number}/{len(jobs)}: {' '.join(job)}", flush=True)
        if subprocess.run([sys.executable, "-m", "experiment.train", *job], cwd=ROOT).returncode:
            failed.append(f"failed: {' '.join(job)}")
    print("\n".join(failed), file=sys.stderr)
    return 1 if failed else 0


def conditions_of(config: Config) -> dict[str, Any]:
    """What the bits of a training with `config` depend on (repro/conditions.py)."""
    from experiment import data
    from experiment.trainer import choose_device
    from repro.conditions import conditions, hardware_class
    from repro.hashing import sha256_json

    digest = sha256_json(data.read_manifest(config))
    return {
        "conditions": conditions(ROOT, config.bits_settings(), digest),
        "hardware_class": hardware_class(config.profile, choose_device(config.device).type),
    }


def train(config: Config) -> None:
    """Train in a new run folder, or go on in an old one."""
    # Imported here, because torch reads the environment when it is imported.
    from experiment.trainer import Trainer
    from repro import checkpoint
    from repro.conditions import differences
    from repro.determinism import flags
    from repro.provenance import log_experiment_context
    from repro.redaction import redact_command, redact_mapping
    from repro.run import find_start, open_run

    trainer = Trainer(config)
    start = find_start(ROOT, config.run_dir, config.resume)
    if start:
        state = checkpoint.load(start)
        lines = differences({"config": comparable(state["config"])}, {"config": comparable(config)})
        if lines:
            raise UserError([f"{start} was trained with another config:", *lines])
        trainer.load_state_dict(state)
    elif config.resume == "auto" and config.run_dir:
        used = ROOT / config.run_dir / "config_used.yaml"  # of a run that saved nothing
        old: Any = OmegaConf.to_container(OmegaConf.load(used)) if used.is_file() else None
        old = old and {key: value for key, value in old.items() if key not in FREE}
        if lines := old and differences(
            {"config": comparable(old)}, {"config": comparable(config)}
        ):
            raise UserError([f"{used.parent} holds a run with another config:", *lines])
    # The folder is made last: what is refused above leaves nothing behind.
    run = open_run(ROOT, config.name, config.seed, config.run_dir, config.resume, start)
    run.begin(trainer.step)
    context_folder = run.folder
    if start:
        trainer.point(run)
        context_folder = run.folder / f"resumed_at_step_{trainer.step}"
        print(f"resuming after step {trainer.step}")
    saved = OmegaConf.create(redact_mapping(config.model_dump(mode="json")))
    OmegaConf.save(saved, run.folder / "config_used.yaml")
    with (run.folder / "command.txt").open("a") as file:
        file.write(redact_command(["python", "-m", "experiment.train", *sys.argv[1:]]) + "\n")
    extra = {**conditions_of(config), "flags": flags(), "seeds": config.seeds.model_dump()}
    log_experiment_context(context_folder, ROOT, extra)
    trainer.fit(run)
    print(f"bits {checkpoint.weights_digest(trainer.model.state_dict())}")
    print(f"run  {run.folder}")


def comparable(config: Config | dict[str, Any]) -> dict[str, Any]:
    """The settings that a resumed run must share: where it stops may differ."""
    values = config.bits_settings() if isinstance(config, Config) else config
    return {**values, "training": {**values["training"], "max_steps": None}}


if __name__ == "__main__":
    sys.exit(run_command(main))
