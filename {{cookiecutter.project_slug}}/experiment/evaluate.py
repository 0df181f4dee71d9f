"""Evaluate a checkpoint on the test samples; writes metrics and pictures into its run.

Those of the last checkpoint are metrics-last.json, metrics.json and figures/, those of the best one
metrics-best.json and figures-best/.

examples:
  python -m experiment.evaluate                                        the newest run
  python -m experiment.evaluate --checkpoint runs/mine/checkpoints/best
"""

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from experiment import ROOT
from repro import environment
from repro.core import layout
from repro.core.command import Parser, run_command
from repro.core.files import JsonObject

if TYPE_CHECKING:
    from experiment.config import Config
    from experiment.trainer import Trainer


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
    from experiment.metrics import classification_metrics
    from experiment.train import conditions_of
    from repro.results.claims import compare_with_recorded
    from repro.runs.evaluation import evaluation_places
    from repro.runs.figures import draw
    from repro.runs.logs import read_lines
    from repro.tracking import send

    trainer = load_trainer(config, folder)
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
    places = evaluation_places(folder, trainer.step)
    places.write(metrics)
    curves = read_lines(places.run / layout.METRICS)
    for figures in places.figures:
        draw(figures, results.confusion, classes, curves)
    print(f"test accuracy {results.accuracy:.4f}  loss {results.loss:.4f}  step {trainer.step}")
    print(f"bits {trainer.bits}")
    print(f"written: {places}")
    send(ROOT, places.run)
    situation = conditions_of(trainer.config, trainer.data.manifest)
    verdict, equal = compare_with_recorded(ROOT, situation, metrics, places.run)
    print(verdict)
    return 0 if equal else 1


def load_trainer(config: "Config", folder: Path) -> "Trainer":
    """Load the weights of the checkpoint in `folder`, onto a device that is here."""
    import torch

    from experiment.trainer import Trainer
    from repro.training import checkpoint

    if config.device == "cuda" and not torch.cuda.is_available():
        config = config.model_copy(update={"device": "auto"})  # trained elsewhere
    trainer = Trainer(config)
    trainer.load_weights(checkpoint.load(folder))
    return trainer


if __name__ == "__main__":
    sys.exit(run_command(main))
