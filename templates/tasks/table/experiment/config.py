"""Define every setting: its name, its type and its range. No other place names them.

Hydra composes the values in configs/, pydantic checks them (repro/runs/configuration.py): a typo, a
wrong type or a value out of range is refused before anything is written. The rest of the code sees
one frozen, typed `Config`. To add a setting: add a field here and its value in configs/. What the
kit itself reads (seeds, batches, output) is in repro/runs/settings.py, which this extends.
"""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from experiment import ROOT as ROOT
from repro.runs.configuration import Loader
from repro.runs.settings import (
    Count,
    ExperimentConfig,
    Fraction,
    NotNegative,
    Part,
    Positive,
    Settings,
)
from repro.runs.settings import Training as KitTraining


class MLP(Settings):
    name: Literal["mlp"]
    width: Count
    depth: Count
    dropout: Fraction


class Diabetes(Settings):
    name: Literal["diabetes"]
    validation_fraction: Part
    test_fraction: Part


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


# A model, data set or optimizer of yours: add its class here, as in AdamW | SGD.
Model = Annotated[MLP, Field(discriminator="name")]
Dataset = Annotated[Diabetes, Field(discriminator="name")]
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
    model: Model
    dataset: Dataset
    optimizer: Optimizer
    training: Training


LOADER = Loader(Config, ROOT / "configs", Config.PATHS, (*Config.FREE, *Config.PATHS))
