"""Evaluate a checkpoint on the test samples; writes metrics.json and pictures into its run.

examples:
  python -m experiment.evaluate                                        the newest run
  python -m experiment.evaluate --checkpoint runs/mine/checkpoints/best
"""

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from experiment import ROOT
from repro import environment
from repro.core import layout
from repro.core.command import Parser, run_command
from repro.core.files import JsonObject, write_json

if TYPE_CHECKING:
    from experiment.config import Config


def main() -> int:
    parser = Parser("experiment.evaluate", __doc__)
    default = ROOT / layout.RUNS / layout.LATEST / layout.CHECKPOINTS / layout.LAST
    parser.add_argument("--checkpoint", type=Path, default=default, help="a checkpoint's folder")
    folder = parser.parse_args().checkpoint.resolve()
    environment.enter_early(ROOT, [])
    config = read_config(folder)
    environment.enter(config.profile, config.threads)
    return evaluate(config, folder)


def read_config(folder: Path) -> "Config":
    """Return the config of a checkpoint; its run's config_used.yaml tells where the data lie."""
    # Imported here, because Hydra comes with it: after the interpreter was started anew.
    from experiment.config import FREE, LOADER
    from repro.runs.configuration import settings_beside, settings_of

    return LOADER.revive({**settings_beside(folder, FREE), **settings_of(folder)})


def evaluate(config: "Config", folder: Path) -> int:
    """Write metrics and pictures; 1 if a recorded result of the same training is another one."""
    # Imported here, because torch reads the environment when it is imported.
    import torch

    from experiment.metrics import classification_metrics
    from experiment.train import conditions_of
    from experiment.trainer import Trainer
    from repro.results.claims import compare_with_recorded
    from repro.runs.figures import draw
    from repro.runs.logs import read_lines
    from repro.tracking import send
    from repro.training import checkpoint

    if config.device == "cuda" and not torch.cuda.is_available():
        config = config.model_copy(update={"device": "auto"})  # trained elsewhere
    trainer = Trainer(config)
    trainer.load_weights(checkpoint.load(folder))
    logits, labels = trainer.predict(trainer.data.test)
    classes = trainer.data.classes
    results = classification_metrics(logits, labels, classes)
    metrics: JsonObject = {
        **asdict(results),
        "step": trainer.step,
        "steps": trainer.last_step,
        "seed": config.seed,
        "bits": trainer.bits,
    }
    targets = targets_of(folder, trainer.step)
    write_json(targets.metrics, metrics)
    draw(targets.figures, results.confusion, classes, read_lines(targets.run / layout.METRICS))
    print(f"test accuracy {results.accuracy:.4f}  loss {results.loss:.4f}  step {trainer.step}")
    print(f"bits {trainer.bits}")
    print(f"written: {targets.metrics}, {targets.figures}")
    send(ROOT, targets.run)
    situation = conditions_of(config, trainer.data.manifest)
    verdict, equal = compare_with_recorded(ROOT, situation, metrics, targets.run)
    print(verdict)
    return 0 if equal else 1


class Targets(NamedTuple):
    """Where the results of an evaluation go, and the run that they belong to."""

    run: Path
    metrics: Path
    figures: Path


def targets_of(folder: Path, step: int) -> Targets:
    """Return where the results of the checkpoint in `folder` go.

    Those of the last checkpoint are the run's; another one does not overwrite them.
    """
    run = layout.run_of(folder) or folder
    metrics = run / layout.EVALUATION
    figures = run / layout.FIGURES
    checkpoints = layout.steps_newest_first(run / layout.CHECKPOINTS)
    if checkpoints and folder != checkpoints[0].resolve():
        metrics = metrics.with_stem(f"{metrics.stem}-step-{step}")
        figures = figures.with_name(f"{figures.name}-step-{step}")
    return Targets(run, metrics, figures)


if __name__ == "__main__":
    sys.exit(run_command(main))
