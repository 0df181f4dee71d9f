"""Define every setting: its name, its type and its range. No other place names them.

Hydra composes the values in configs/, pydantic checks them (repro/runs/configuration.py): a typo, a
wrong type or a value out of range is refused before anything is written. The rest of the code sees
one frozen, typed `Config`. To add a setting: add a field here and its value in configs/.
"""

import os
from os.path import expanduser
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from experiment import ROOT as ROOT
from repro.core.files import JsonObject
from repro.core.hashing import derive_seed
from repro.core.redaction import redact_mapping, redact_shapes
from repro.runs.configuration import Loader, power_of_two, run_name

# Settings that say where and how to run; they may differ between two runs of equal bits.
PATHS = ("data_dir", "image_dir", "weights", "run_dir", "resume")
FREE = ("output", "num_workers", "tracker", *PATHS)

Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Part = Annotated[float, Field(gt=0, lt=0.5)]
PathText = Annotated[str, Field(min_length=1), AfterValidator(expanduser)]
# It may come from a variable of the environment that is set to nothing.
OptionalPath = Annotated[PathText | None, BeforeValidator(lambda value: value or None)]


class Settings(BaseModel):
    """A group of settings: frozen; unknown keys, "3" for 3 and NaN are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class SmallCNN(Settings):
    name: Literal["small_cnn"]
    width: Count
    dropout: Fraction


class ResNet18(Settings):
    name: Literal["resnet18"]
    stem: Literal["small", "imagenet"]
    weights_sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None


class ImageTransformer(Settings):
    name: Literal["image_transformer"]
    patch: Count
    width: Count
    depth: Count
    heads: Count
    dropout: Fraction

    @model_validator(mode="after")
    def _consistent(self) -> "ImageTransformer":
        if self.width % self.heads:
            raise ValueError("width should be a multiple of heads")
        return self


class Digits(Settings):
    name: Literal["digits"]
    validation_fraction: Part
    test_fraction: Part
    shift: Annotated[int, Field(ge=0, le=4)]


class Download(Settings):
    name: Literal["cifar10", "fashion_mnist"]
    validation_fraction: Part  # of the training samples: these data sets bring their test samples
    shift: Annotated[int, Field(ge=0, le=16)]
    flip: bool


class ImageFolder(Settings):
    name: Literal["image_folder"]
    size: Annotated[int, Field(ge=8, le=4096)]
    validation_fraction: Part
    test_fraction: Part
    shift: Annotated[int, Field(ge=0, le=512)]
    flip: bool


class AdamW(Settings):
    name: Literal["adamw"]
    learning_rate: Annotated[float, Field(gt=0)]
    weight_decay: Annotated[float, Field(ge=0)]
    betas: Annotated[list[Fraction], Field(min_length=2, max_length=2)]


class SGD(Settings):
    name: Literal["sgd"]
    learning_rate: Annotated[float, Field(gt=0)]
    weight_decay: Annotated[float, Field(ge=0)]
    momentum: Fraction


# A model, data set or optimizer of yours: add its class here.
Model = Annotated[SmallCNN | ResNet18 | ImageTransformer, Field(discriminator="name")]
Dataset = Annotated[Digits | Download | ImageFolder, Field(discriminator="name")]
Optimizer = Annotated[AdamW | SGD, Field(discriminator="name")]


class Seeds(Settings):
    data_split: Seed
    model_init: Seed
    training: Seed
    evaluation: Seed


class Training(Settings):
    epochs: Count
    batch_size: Count
    shards: Annotated[Count, AfterValidator(power_of_two)]
    drop_last: bool
    warmup_epochs: Annotated[float, Field(ge=0)]
    gradient_clip: Annotated[float, Field(gt=0)] | None
    precision: Literal["fp32", "bf16"]
    compile: bool
    max_steps: Count | None

    @model_validator(mode="after")
    def _consistent(self) -> "Training":
        if self.shards > self.batch_size:
            raise ValueError("shards should be at most batch_size")
        if self.warmup_epochs > self.epochs:
            raise ValueError("warmup_epochs should be at most epochs")
        return self


class Evaluation(Settings):
    batch_size: Count


class Output(Settings):
    log_every: Count
    checkpoint_every: Count | None
    keep_checkpoints: Count
    trace: bool


class Tracker(Settings):
    name: Literal["none", "tensorboard", "mlflow", "wandb"]
    uri: PathText | None = None
    largest_mb: Annotated[int, Field(ge=0)] = 0
    wait: Annotated[int, Field(ge=1, le=3600)] = 30


class Config(Settings):
    name: Annotated[str, AfterValidator(run_name)]
    seed: Seed
    seeds: Seeds
    profile: Literal["portable", "native"]
    determinism: Literal["strict", "warn", "off"]
    device: Literal["auto", "cpu", "cuda"]
    threads: Annotated[int, Field(ge=1, le=1024)]
    model: Model
    dataset: Dataset
    optimizer: Optimizer
    tracker: Tracker
    training: Training
    evaluation: Evaluation
    output: Output
    num_workers: Annotated[int, Field(ge=0, le=1024)]
    data_dir: PathText
    image_dir: OptionalPath
    weights: OptionalPath
    run_dir: PathText | None
    resume: PathText | None

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
    def _consistent(self) -> "Config":
        if self.training.compile and self.profile != "native":
            raise ValueError("training.compile=true needs profile=native: bits of one CPU model")
        if self.weights and not self._takes_weights():
            needed = "model=resnet18 and model.weights_sha256=..., which sha256sum PATH prints"
            raise ValueError(f"weights=PATH needs {needed}")
        if self.dataset.name == "image_folder" and not self.image_dir:
            raise ValueError("dataset=image_folder needs image_dir=PATH, with a folder per class")
        return self

    def _takes_weights(self) -> bool:
        """Tell whether `weights` may be set with this model."""
        if hasattr(self.model, "weights_sha256"):
            return self.model.weights_sha256 is not None
        # The variable is an offer: a model that takes no weights leaves it.
        return "WEIGHTS" in os.environ  # repro: ignore[environment-read] no bits depend on it

    def bits_settings(self) -> JsonObject:
        """Return the settings that may change the bits, as JSON: all but FREE, and no secrets."""
        settings = self.model_dump(mode="json", exclude=set(FREE))
        return dict(redact_mapping(settings, clean=redact_shapes))


LOADER = Loader(Config, ROOT / "configs", PATHS, FREE)
