"""Send a run to Weights & Biases: to files in its folder (offline), or to `tracker.uri`'s server.

Offline needs no account; `wandb sync` sends the files later. All that the client would collect by
itself is switched off: git, code, the command, the console, the machine, installed packages.
"""

import os
import shutil
from importlib import import_module
from pathlib import Path
from typing import Any

from repro.tracking import MetricLine, Params, Place


class Adapter:
    def __init__(self, place: Place) -> None:
        os.environ["WANDB_ERROR_REPORTING"] = "false"
        wandb: Any = import_module("wandb")  # Any: mypy would read all of it
        nothing_by_itself = {
            "disable_git": True,
            "disable_code": True,
            "disable_job_creation": True,
            "save_code": False,
            "console": "off",
            "x_disable_meta": True,
            "x_disable_stats": True,
            "x_disable_machine_info": True,
            "x_save_requirements": False,
            "x_transaction_log_flush_interval": 1.0,  # seconds of curves that a crash may cost
            "host": "",
            "program": "",
        }
        server = {"base_url": place.uri} if place.uri else {}
        self.run = wandb.init(
            project=place.project,
            id=place.id,
            name=place.folder.name,
            dir=place.folder,
            resume="allow",
            mode="online" if place.uri else "offline",
            settings=wandb.Settings(silent=True, **nothing_by_itself, **server),
        )

    def log_params(self, params: Params) -> None:
        self.run.config.update({**params}, allow_val_change=True)

    def log_metrics(self, lines: list[MetricLine]) -> None:
        for line in lines:
            self.run.log(line.values, step=line.step)

    def log_artifact(self, path: Path, name: str) -> None:
        copy = Path(self.run.dir, name)  # what `wandb sync` will send
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
        self.run.save(str(copy), base_path=self.run.dir, policy="now")

    def finish(self, finished: bool) -> None:
        self.run.finish(exit_code=0 if finished else 1)
