"""Define every setting: its name, its type and its range. No other place names them.

Hydra composes the values in configs/, pydantic checks them (repro/runs/configuration.py): a typo, a
wrong type or a value out of range is refused before anything is written. The rest of the code sees
one frozen, typed `Config`. To add a setting: add a field here and its value in configs/. What the
kit itself reads (seeds, batches, output) is in repro/runs/settings.py, which this extends.
"""

import os
from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from experiment import ROOT as ROOT
from repro.runs.configuration import Loader
from repro.runs.settings import (
    Count,
    ExperimentConfig,
    Fraction,
    NotNegative,
    OptionalPath,
    Part,
    Positive,
    Settings,
)
from repro.runs.settings import Training as KitTraining


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
    attention: Literal["math", "fused"] = "math"

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
    learning_rate: Positive
    weight_decay: NotNegative
    betas: Annotated[list[Fraction], Field(min_length=2, max_length=2)]


class SGD(Settings):
    name: Literal["sgd"]
    learning_rate: Positive
    weight_decay: NotNegative
    momentum: Fraction


# A model, data set or optimizer of yours: add its class here.
Model = Annotated[SmallCNN | ResNet18 | ImageTransformer, Field(discriminator="name")]
Dataset = Annotated[Digits | Download | ImageFolder, Field(discriminator="name")]
Optimizer = Annotated[AdamW | SGD, Field(discriminator="name")]


class Training(KitTraining):
    warmup_epochs: NotNegative

    @model_validator(mode="after")
    def _warms_up_within(self) -> "Training":
        if self.epochs is None and self.warmup_epochs:
            raise ValueError("training.steps has no epochs: expected warmup_epochs=0")
        if self.epochs is not None and self.warmup_epochs > self.epochs:
            raise ValueError("warmup_epochs should be at most epochs")
        return self


class Config(ExperimentConfig):
    # Where files are: such settings have no influence on the bits, and take any text.
    PATHS: ClassVar[tuple[str, ...]] = (*ExperimentConfig.PATHS, "image_dir", "weights")

    model: Model
    dataset: Dataset
    optimizer: Optimizer
    training: Training
    image_dir: OptionalPath
    weights: OptionalPath

    @model_validator(mode="after")
    def _consistent(self) -> "Config":
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


LOADER = Loader(Config, ROOT / "configs", Config.PATHS, (*Config.FREE, *Config.PATHS))
