"""Learning rates of a task's optimizers, the numbers of a step, and when patience is lost."""

import math
from collections.abc import Callable
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from repro.core.errors import UserError
from repro.tasks import warmup_and_cosine
from repro.tasks.loop import lost_patience
from repro.tasks.portable import refuse_other_bits
from repro.tasks.rates import Rates
from repro.tasks.reading import numbers_of
from torch import nn, optim
from torch.optim import Optimizer

# Rates -----------------------------------------------------------------------------------------


def weights() -> list[nn.Parameter]:
    return [nn.Parameter(torch.ones(2)) for _ in range(2)]


def two_groups() -> Optimizer:
    """A backbone that learns slowly, and a head."""
    backbone, head = weights()
    groups = [{"params": [backbone], "lr": 1e-4}, {"params": [head]}]
    return optim.SGD(groups, lr=0.3)


def test_each_group_keeps_its_own_rate() -> None:
    optimizer = two_groups()
    rates = Rates({"model": optimizer})
    assert rates.set(0.5) == {"learning_rate": 5e-5}
    assert [group["lr"] for group in optimizer.param_groups] == [5e-5, 0.15]
    assert rates.set(1 / 3) == {"learning_rate": 3.33333333333e-5}  # of the own rate, to 12 digits
    assert optimizer.param_groups[1]["lr"] == 0.1
    assert rates.set(0) == {"learning_rate": 0.0}


def test_the_own_rates_are_those_before_a_checkpoint_is_loaded() -> None:
    rates = Rates({"model": (optimizer := two_groups())})
    rates.set(0.1)
    state = optimizer.state_dict()
    resumed = two_groups()
    again = Rates({"model": resumed})
    resumed.load_state_dict(state)
    again.set(1)
    assert [group["lr"] for group in resumed.param_groups] == [1e-4, 0.3]


def test_several_optimizers_may_have_a_factor_each() -> None:
    optimizers = {"main": two_groups(), "critic": optim.SGD(weights(), lr=2.0)}
    rates = Rates(optimizers)
    told = rates.set({"main": 0.5, "critic": 0.25})
    assert told == {"learning_rate.main": 5e-5, "learning_rate.critic": 0.5}
    assert rates.set(0.5) == {"learning_rate.main": 5e-5, "learning_rate.critic": 1.0}


@pytest.mark.parametrize(
    ("factors", "words"),
    [
        (math.nan, "returned nan: expected a number of 0 or more"),
        (math.inf, "returned inf: expected"),
        (-0.1, "returned -0.1: expected"),
        (None, "returned None: expected"),
        ({"main": 1.0}, "no factor for the optimizer critic, only for main: expected one for each"),
        ({}, "no factor for the optimizer main, only for none"),
        ({"main": 1.0, "critic": math.nan}, "returned nan"),
        ({"main": 1.0, "critic": 1.0, "x": 1}, "a factor for x: the optimizers are main, critic"),
    ],
)
def test_what_is_no_factor_is_refused(factors: Any, words: str) -> None:
    rates = Rates({"main": two_groups(), "critic": two_groups()})
    with pytest.raises(UserError, match=words):
        rates.set(factors)


def test_a_group_that_comes_later_is_refused() -> None:
    optimizer = two_groups()
    rates = Rates({"model": optimizer})
    optimizer.add_param_group({"params": weights(), "lr": 1.0})
    with pytest.raises(UserError, match="model has 3 groups, and had 2 when the training began"):
        rates.set(1.0)


def test_a_warmup_and_half_a_cosine() -> None:
    factors = [warmup_and_cosine(step, 10, warmup=4, floor=0.1) for step in range(11)]
    assert factors[:4] == [0.25, 0.5, 0.75, 1.0]
    assert factors[7] == pytest.approx(0.1 + 0.9 * 0.5)
    assert factors[10] == pytest.approx(0.1)
    assert all(a >= b for a, b in pairwise(factors[3:]))
    assert warmup_and_cosine(0, 10) == 1.0
    assert warmup_and_cosine(3, 3, warmup=3) == 1.0  # a warm-up to the end
    assert warmup_and_cosine(99, 10) == 0.0


# Optimizers whose bits depend on the CPU -------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda p: optim.Adam(p), r"critic is Adam without fused=True.*write Adam\(..., fused=T"),
        (lambda p: optim.AdamW(p, fused=False), "critic is AdamW without fused=True"),
        (lambda p: optim.Adagrad(p), "critic is Adagrad without fused=True"),
        (lambda p: optim.RMSprop(p), "critic is RMSprop, which has no fused kernel"),
        (lambda p: optim.NAdam(p), "critic is NAdam, which has no fused kernel"),
    ],
)
def test_an_optimizer_with_other_bits_on_other_cpus_is_refused(
    make: Callable[[Any], Optimizer], words: str
) -> None:
    fine = optim.AdamW(weights(), fused=True)
    with pytest.raises(UserError, match=words) as error:
        refuse_other_bits({"model": fine, "critic": make(weights())})
    assert len(error.value.lines) == 1


def test_fused_optimizers_and_those_without_a_root_are_fine() -> None:
    class Mine(Optimizer):
        """Not torch's: the audit looks at its operations."""

    makes: list[Callable[[Any], Optimizer]] = [
        lambda p: optim.SGD(p, lr=1.0),
        lambda p: optim.Adam(p, fused=True),
        lambda p: optim.Adagrad(p, fused=True),
        lambda p: Mine(p, {}),
    ]
    refuse_other_bits({str(place): make(weights()) for place, make in enumerate(makes)})


# The numbers of a step -------------------------------------------------------------------------


def test_the_loss_comes_first_and_then_the_rates() -> None:
    given = {"right": np.float32(0.5), "loss": torch.tensor([2.0]), "norm": 1}
    found = numbers_of(given, {"learning_rate": 0.1})
    assert [*found.items()] == [
        ("loss", 2.0),
        ("learning_rate", 0.1),
        ("right", 0.5),
        ("norm", 1.0),
    ]
    assert {type(value) for value in found.values()} == {float}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (None, "train_step returned None: expected numbers by name"),
        ({}, "train_step returned {}: expected numbers by name"),
        (torch.ones(1), "train_step returned tensor"),
        ({"loss": torch.ones(2)}, r"train_step: loss is a tensor \[2\]: expected one number"),
        ({"loss": "1"}, "train_step: loss is a str"),
        ({"loss": 1.0, "is_good": True}, "train_step: is_good is a bool"),
        ({"total": 1.0, "norm": 2.0}, "returned total, norm: expected a number called loss, too"),
        ({"loss": 1.0, "learning_rate": 2.0}, "returned learning_rate, which the kit tells"),
    ],
)
def test_what_is_no_number_of_a_step_is_refused(given: Any, words: str) -> None:
    with pytest.raises(UserError, match=words):
        numbers_of(given, {"learning_rate": 0.1})


# Patience --------------------------------------------------------------------------------------


def lost(patience: int | None, validations: str, notes: dict[str, Any]) -> list[bool]:
    """Tell after each validation whether patience is lost; "+" is a better one."""
    session: Any = SimpleNamespace(notes=notes)
    return [lost_patience(session, each == "+", patience) for each in validations]


def test_patience_is_lost_after_so_many_validations_without_a_better_one() -> None:
    assert lost(2, "+-+--", {}) == [False, False, False, False, True]
    assert lost(1, "+-", {}) == [False, True]
    assert not any(lost(None, "+------", {}))


def test_patience_is_counted_on_after_a_resume() -> None:
    notes: dict[str, Any] = {"mine": 1}
    assert lost(3, "+--", notes) == [False] * 3
    assert lost(3, "-", dict(notes)) == [True]
    assert notes["mine"] == 1
