"""Evaluate a checkpoint on the test samples; writes metrics.json and pictures into its run.

examples:
  python -m experiment.evaluate                                        the newest run
  python -m experiment.evaluate --checkpoint runs/mine/checkpoints/best
"""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiment import ROOT
from repro import environment
from repro.core import layout
from repro.core.command import Parser, run_command

if TYPE_CHECKING:
    from experiment.config import Config


def main() -> int:
    parser = Parser("experiment.evaluate", __doc__)
    default = ROOT / "runs" / "latest" / "checkpoints" / "last"
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
    from repro.core.layout import METRICS
    from repro.results.claims import compare_with_recorded
    from repro.runs.figures import draw
    from repro.runs.logs import read_lines
    from repro.tracking import send
    from repro.training import checkpoint

    if config.device == "cuda" and not torch.cuda.is_available():
        config = config.model_copy(update={"device": "auto"})  # trained elsewhere
    trainer = Trainer(config)
    trainer.load_weights(checkpoint.load(folder))
    logits, labels = trainer.predict("test")
    classes = trainer.data.classes
    metrics: dict[str, Any] = {
        **classification_metrics(logits, labels, classes),
        "step": trainer.step,
        "steps": trainer.last_step,
        "seed": config.seed,
        "bits": trainer.bits,
    }
    run = folder.parent.parent if folder.parent.name == "checkpoints" else folder
    # Of the last checkpoint; another one does not overwrite its metrics.
    steps = layout.steps_newest_first(run / "checkpoints")
    suffix = f"-step-{trainer.step}" if steps and folder != steps[0].resolve() else ""
    target, figures = run / f"metrics{suffix}.json", run / f"figures{suffix}"
    target.write_text(json.dumps(metrics, indent=1, sort_keys=True) + "\n")
    draw(figures, metrics["confusion"], classes, read_lines(run / METRICS))
    told = f"test accuracy {metrics['accuracy']:.4f}  loss {metrics['loss']:.4f}"
    print(f"{told}  step {trainer.step}")
    print(f"bits {metrics['bits']}")
    print(f"written: {target}, {figures}")
    send(ROOT, run)
    now = conditions_of(config, trainer.data.manifest)
    verdict, equal = compare_with_recorded(ROOT, now, metrics, run)
    print(verdict)
    return 0 if equal else 1


if __name__ == "__main__":
    sys.exit(run_command(main))
