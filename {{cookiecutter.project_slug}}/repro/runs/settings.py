"""Base classes for the settings of a project: those that the kit itself reads.

An author's `Config` extends `ExperimentConfig` with a model, a data set, an optimizer and whatever
else the science needs (experiment/config.py). All of them are frozen; unknown keys, "3" for 3 and
NaN are refused (repro/runs/configuration.py says so in words).
"""

from os.path import expanduser
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from repro.core.files import JsonObject
from repro.core.hashing import derive_seed
from repro.core.project import RESUME_CHANGED_CODE, RESUME_OTHER_PROCESSES
from repro.core.redaction import redact_mapping, redact_shapes
from repro.environment.profile import resolve_profile
from repro.runs.config_values import without_setting
from repro.runs.configuration import power_of_two, refuse_missing_engines, refuse_mps, run_name

Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Part = Annotated[float, Field(gt=0, lt=0.5)]  # of the samples: for validation, for the test
PathText = Annotated[str, Field(min_length=1), AfterValidator(expanduser)]
# It may come from a variable of the environment that is set to nothing.
OptionalPath = Annotated[PathText | None, BeforeValidator(lambda value: value or None)]


class Settings(BaseModel):
    """A group of settings: frozen; unknown keys, "3" for 3 and NaN are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Seeds(Settings):
    """The seeds of the phases. `null` in configs/ derives one from the master seed."""

    data_split: Seed
    model_init: Seed
    training: Seed
    evaluation: Seed


class Training(Settings):
    """How long a training is, and how its batches are made and computed."""

    epochs: Count | None
    steps: Count | None = None
    batch_size: Count
    shards: Annotated[Count, AfterValidator(power_of_two)]
    drop_last: bool = False
    gradient_clip: Positive | None = None
    precision: Literal["fp32", "tf32", "bf16"] = "fp32"
    compile: bool = False
    parallel: Annotated[
        Literal["shards", "ddp", "fsdp"], AfterValidator(refuse_missing_engines)
    ] = "shards"
    processes: Annotated[int, Field(ge=2)] | None = None  # of ddp and fsdp, which depend on it
    bucket_mib: Count = 25  # of DDP, which adds up gradients in buckets
    recheck_every: Count | None = None  # steps between two that are computed twice and compared
    patience: Count | None = None  # validations without a better one, after which training ends
    max_steps: Count | None

    @model_validator(mode="after")
    def _has_one_length(self) -> "Training":
        if (self.epochs is None) == (self.steps is None):
            raise ValueError(
                "needs one of epochs and steps: training.steps=1000 training.epochs=null"
            )
        if (self.processes is None) != (self.parallel == "shards"):
            raise ValueError(
                "processes is for parallel=ddp and parallel=fsdp, whose bits depend on their "
                "number: training.parallel=ddp training.processes=4"
            )
        if self.processes and (self.recheck_every or self.compile):
            raise ValueError(
                "parallel=ddp and parallel=fsdp have neither recheck_every nor compile"
            )
        if self.shards > self.batch_size:
            raise ValueError("shards should be at most batch_size")
        return self


class Evaluation(Settings):
    """How samples are evaluated, and how often while a training lasts."""

    batch_size: Count  # fixed: the rows of a matrix product may change with their number
    every: Count | None = None  # steps between two validations; None: one at each epoch's end


class Output(Settings):
    """What a run writes, and how often."""

    log_every: Count
    checkpoint_every: Count | None
    keep_checkpoints: Count
    trace: bool


class Tracking(Settings):
    """Where a run is shown while it trains."""

    name: Literal["none", "tensorboard", "mlflow", "wandb"]
    uri: PathText | None = None
    largest_mb: Annotated[int, Field(ge=0)] = 0
    wait: Annotated[int, Field(ge=1, le=3600)] = 30


class ExperimentConfig(Settings):
    """All settings that the kit reads.

    `FREE`: those that have no influence on the bits; "group.name" is one of a group.
    """

    PATHS: ClassVar[tuple[str, ...]] = ("data_dir", "run_dir", "resume")
    FREE: ClassVar[tuple[str, ...]] = (
        *("output", "num_workers", "tracker", RESUME_CHANGED_CODE, RESUME_OTHER_PROCESSES),
        "training.recheck_every",  # the same computation once more: tests compare the bits
    )

    name: Annotated[str, AfterValidator(run_name)]
    seed: Seed
    seeds: Seeds
    profile: Annotated[Literal["auto", "portable", "native"], AfterValidator(resolve_profile)]
    determinism: Literal["strict", "warn", "off"]
    device: Annotated[Literal["auto", "cpu", "cuda"], BeforeValidator(refuse_mps)]
    threads: Annotated[int, Field(ge=1, le=1024)]
    tracker: Tracking
    training: Training
    evaluation: Evaluation
    output: Output
    num_workers: Annotated[int, Field(ge=0, le=1024)]
    data_dir: PathText
    run_dir: PathText | None
    resume: PathText | None
    resume_changed_code: bool = False
    resume_other_processes: bool = False

    @model_validator(mode="before")
    @classmethod
    def _derive_seeds(cls, values: Any) -> Any:
        """Fill the phases' seeds that were not given, each as a function of the master seed."""
        master = values.get("seed")
        given = values.get("seeds")
        if not isinstance(given, dict):
            return values  # the field's own check will say so
        if not isinstance(master, int):
            master = 0  # likewise: one line for one fault
        seeds = {}
        for phase, seed in given.items():
            seeds[phase] = derive_seed(master, phase) if seed is None else seed
        return {**values, "seeds": seeds}

    @model_validator(mode="after")
    def _compiles_natively(self) -> "ExperimentConfig":
        if self.training.compile and self.profile != "native":
            raise ValueError("training.compile=true needs profile=native: bits of one CPU model")
        return self

    def bits_settings(self) -> JsonObject:
        """Return the settings that may change the bits, as JSON: not FREE, PATHS and secrets."""
        settings: JsonObject = self.model_dump(mode="json", exclude={*self.PATHS})
        for name in self.FREE:
            settings = without_setting(settings, name)
        return dict(redact_mapping(settings, clean=redact_shapes))
