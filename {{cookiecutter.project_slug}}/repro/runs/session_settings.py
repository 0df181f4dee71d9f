"""What a session has to know of the author's settings, whatever else there is."""

from typing import Any, Protocol

from repro.core.errors import refuse
from repro.core.files import JsonObject
from repro.runs.configuration import RunSettings


class SeedSettings(Protocol):
    """The seeds of the phases: data_split, model_init, training, evaluation."""

    def model_dump(self) -> dict[str, Any]: ...


class TrainingSettings(Protocol):
    """How a training is cut: into shards, and at a last step."""

    @property
    def shards(self) -> int: ...
    @property
    def max_steps(self) -> int | None: ...


class OutputSettings(Protocol):
    """What is written, and how often."""

    @property
    def log_every(self) -> int: ...
    @property
    def checkpoint_every(self) -> int | None: ...
    @property
    def keep_checkpoints(self) -> int: ...
    @property
    def trace(self) -> bool: ...


class SessionSettings(RunSettings, Protocol):
    """The settings of a session; REQUIRED lists them by their names."""

    @property
    def seeds(self) -> SeedSettings: ...
    @property
    def profile(self) -> str: ...
    @property
    def threads(self) -> int: ...
    @property
    def determinism(self) -> Any: ...
    @property
    def device(self) -> str: ...
    @property
    def num_workers(self) -> int: ...
    @property
    def training(self) -> TrainingSettings: ...
    @property
    def output(self) -> OutputSettings: ...
    def bits_settings(self) -> JsonObject: ...
    def model_dump(self, *, mode: str) -> JsonObject: ...


REQUIRED = (
    *("name", "seed", "profile", "threads", "determinism", "device", "num_workers"),
    *("run_dir", "resume", "tracker.name", "bits_settings"),
    *(f"seeds.{phase}" for phase in ("data_split", "model_init", "training", "evaluation")),
    *("training.shards", "training.max_steps"),
    *(f"output.{name}" for name in ("log_every", "checkpoint_every", "keep_checkpoints", "trace")),
)


def refuse_missing_settings(config: object) -> None:
    """Raise UserError for each setting that a session needs and the config lacks."""
    missing = [name for name in REQUIRED if not _has(config, name)]
    refuse(
        [
            f"the config has no {name}, which a session needs: put it into experiment/config.py "
            "and configs/config.yaml, as a new project has it"
            for name in missing
        ]
    )


def _has(config: object, name: str) -> bool:
    value = config
    for part in name.split("."):
        if not hasattr(value, part):
            return False
        value = getattr(value, part)
    return True
