"""Optimizers and the learning rate.

To add an optimizer: name it in OPTIMIZERS, and add its settings in config.py.
"""

import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from experiment.config import Config

OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adamw": torch.optim.AdamW,
    "sgd": torch.optim.SGD,
}


def build_optimizer(config: Config, parameters: Iterable[Tensor]) -> torch.optim.Optimizer:
    """Return the optimizer that `config.optimizer` names.

    Fused: the default implementations take the root with MKL, whose last bit depends on the CPU
    model even in the portable profile (measured); the fused kernels do not.
    """
    settings = config.optimizer.model_dump(exclude={"name", "learning_rate"})
    optimizer = OPTIMIZERS[config.optimizer.name]
    return optimizer(parameters, lr=config.optimizer.learning_rate, fused=True, **settings)


def learning_rate(config: Config, steps_per_epoch: int, step: int) -> float:
    """Return the rate of a step: a linear warm-up, then half a cosine to zero.

    Rounded to 12 digits: the last bit of a cosine differs between C libraries.
    """
    warmup = config.training.warmup_epochs * steps_per_epoch
    total = config.training.epochs * steps_per_epoch
    rising = min(1.0, (step + 1) / warmup) if warmup else 1.0
    done = max(0.0, (step - warmup) / max(1.0, total - warmup))
    falling = 0.5 * (1 + math.cos(math.pi * done))
    return float(f"{config.optimizer.learning_rate * rising * falling:.12g}")
