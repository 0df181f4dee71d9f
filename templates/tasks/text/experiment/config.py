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
from repro.runs.settings import Evaluation as KitEvaluation
from repro.runs.settings import Training as KitTraining


class GPT(Settings):
    name: Literal["gpt"]
    context: Annotated[int, Field(ge=2)]
    width: Count
    depth: Count
    heads: Count
    dropout: Fraction
    attention: Literal["math", "fused"] = "math"

    @model_validator(mode="after")
    def _consistent(self) -> "GPT":
        if self.width % self.heads:
            raise ValueError("width should be a multiple of heads")
        return self


class PythonSource(Settings):
    name: Literal["networkx"]
    validation_fraction: Part  # of the files, as test_fraction
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
Model = Annotated[GPT, Field(discriminator="name")]
Dataset = Annotated[PythonSource, Field(discriminator="name")]
Optimizer = Annotated[AdamW | SGD, Field(discriminator="name")]


class Training(KitTraining):
    warmup_steps: Annotated[int, Field(ge=0)]

    @model_validator(mode="after")
    def _has_steps(self) -> "Training":
        if self.steps is None:
            raise ValueError("windows of a text have no epochs: expected steps=N and epochs=null")
        if self.warmup_steps > self.steps:
            raise ValueError("warmup_steps should be at most steps")
        return self


class Evaluation(KitEvaluation):
    sampled: Count


class Config(ExperimentConfig):
    model: Model
    dataset: Dataset
    optimizer: Optimizer
    training: Training
    evaluation: Evaluation


LOADER = Loader(Config, ROOT / "configs", Config.PATHS, (*Config.FREE, *Config.PATHS))
