"""Find a mean that is passed as a sum: the sums of a batch's halves add up to that of the whole.

So do their weights. `backward_in_shards` asks here, at each of its losses, while `checking_sums` is
in force; `repro audit` and the project's own tests are what puts it in force. A loss that couples
samples (each is compared with the others of its batch) declares it: `Weighted(..., coupled=True)`.
A loss that draws random numbers draws others for the halves, so its sum is compared roughly: a mean
passed as a sum is wrong by as much as it is large.
"""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from repro.core.errors import UserError
from repro.training.batches import cut, size_of
from repro.training.weighted import Weighted, weighted

TOLERANCE = 1e-4  # relative: of fp32, in any order of addition
_ROUGHLY = 0.5  # relative: where the loss draws random numbers


class Difference(NamedTuple):
    """What does not add up, `of` ("sum" or "weight"): of the whole batch, and of its halves."""

    of: str
    whole: float
    halves: tuple[float, float]


_differences: ContextVar[list[Difference] | None] = ContextVar("differences", default=None)


@contextmanager
def checking_sums() -> Iterator[list[Difference]]:
    """Check every loss of the steps done inside; the list has what does not add up."""
    found: list[Difference] = []
    token = _differences.set(found)
    try:
        yield found
    finally:
        _differences.reset(token)


def check_halves(model: nn.Module, batch: Any, samples: int, loss: Callable[[Any], object]) -> None:
    """Compare a loss of a batch of `samples` with those of its halves, where that is asked for.

    The model is in eval mode meanwhile: neither dropout nor a batch's statistics are to differ. Not
    checked are a batch of one sample, one that cannot be cut, and a loss that fails for a half.
    """
    found = _differences.get()
    if found is None or samples < 2 or not _has_samples_first(batch, samples):
        return
    halves = cut(batch, [slice(0, samples // 2), slice(samples // 2, samples)])
    with _in_eval_mode(model):
        whole = weighted(loss(batch))
        if whole.coupled:
            return
        after = _generators()
        try:
            first = weighted(loss(halves[0]))
            draws = _generators() != after
            second = weighted(loss(halves[1]))
        except (RuntimeError, ValueError, IndexError):
            return  # it needs a whole batch
    found += _compared(whole, first, second, _ROUGHLY if draws else TOLERANCE)


@contextmanager
def _in_eval_mode(model: nn.Module) -> Iterator[None]:
    training = [module for module in model.modules() if module.training]
    for module in training:  # not model.eval(): a module's own may do more (merge weights)
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True


def _generators() -> str:
    """Return the states of the generators: they differ where other numbers were drawn."""
    states = [torch.get_rng_state(), *(torch.cuda.get_rng_state_all())]
    numbers = [state.numpy().tobytes() for state in states]
    return repr((numbers, random.getstate(), np.random.get_state(legacy=False)))


def _has_samples_first(batch: Any, samples: int) -> bool:
    """Tell whether the first dimension of all of a batch is that of its samples."""
    try:
        return size_of(batch) == samples
    except UserError:
        return False


def _compared(
    whole: Weighted, first: Weighted, second: Weighted, tolerance: float
) -> list[Difference]:
    """Return whether the sums, and whether the weights, do not add up."""
    differences = []
    for name, near in (("sum", tolerance), ("weight", TOLERANCE)):
        values = (getattr(each, name) for each in (whole, first, second))
        wanted, one, two = (
            value.item() if isinstance(value, Tensor) else float(value) for value in values
        )
        if abs(one + two - wanted) > near * max(abs(wanted), abs(one), abs(two)):
            differences.append(Difference(name, wanted, (one, two)))
    return differences
