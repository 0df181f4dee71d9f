"""Find a mean that is passed as a sum: the sums of a batch's halves add up to that of the whole.

So do their weights. `backward_in_shards` asks here, at each of its losses, while `checking_sums` is
in force; `repro audit` and the project's own tests are what puts it in force. A loss that couples
samples (each is compared with the others of its batch) declares it: `Weighted(..., coupled=True)`.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

from torch import Tensor, nn

from repro.core.errors import UserError
from repro.training.batches import cut, size_of
from repro.training.weighted import Weighted, weighted

TOLERANCE = 1e-4  # relative: of fp32, in any order of addition


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


def check_halves(model: nn.Module, batch: Any, loss: Callable[[Any], object]) -> None:
    """Compare a loss of a batch with those of its halves, where that is asked for.

    The model is in eval mode meanwhile: neither dropout nor a batch's statistics are to differ. A
    batch that cannot be cut, or has one sample, is not checked.
    """
    found = _differences.get()
    if found is None or batch is None or not _can_be_cut(batch):
        return
    size = size_of(batch)
    halves = cut(batch, [slice(0, size // 2), slice(size // 2, size)])
    training = [module for module in model.modules() if module.training]
    model.eval()
    whole, first, second = (weighted(loss(part)) for part in (batch, *halves))
    for module in training:
        module.training = True
    if not whole.coupled:
        found += _compared(whole, first, second)


def _can_be_cut(batch: Any) -> bool:
    try:
        return size_of(batch) > 1
    except UserError:
        return False


def _compared(whole: Weighted, first: Weighted, second: Weighted) -> list[Difference]:
    """Return whether the sums, and whether the weights, do not add up."""
    differences = []
    for name in ("sum", "weight"):
        values = (getattr(each, name) for each in (whole, first, second))
        wanted, one, two = (
            value.item() if isinstance(value, Tensor) else float(value) for value in values
        )
        if abs(one + two - wanted) > TOLERANCE * max(abs(wanted), abs(one), abs(two)):
            differences.append(Difference(name, wanted, (one, two)))
    return differences
