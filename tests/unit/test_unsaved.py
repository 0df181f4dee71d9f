"""State that no checkpoint holds is refused by its name, and so is what is not put back."""

import copy
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from repro.core.errors import UserError
from repro.training.unsaved import refuse_not_restored, refuse_unsaved
from torch import Tensor, nn
from torch.utils.data import TensorDataset


@dataclass
class Helper:
    """As authors put some of their state aside."""

    history: dict[str, list[Any]] = field(default_factory=dict)


class Trainer:
    """A model with hidden buffers, an optimizer, and what tests put beside them."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
        self.model.register_buffer("table", torch.arange(3.0), persistent=False)
        self.forward = self.model
        self.frozen = [self.model[1]]
        self.optimizer = torch.optim.AdamW(self.model.parameters(), fused=True)
        self.data = TensorDataset(torch.rand(5, 3))
        self.device = torch.device("cpu")
        self.saved: dict[str, Any] = {}

    def step(self) -> None:
        self.model(torch.rand(4, 3)).sum().backward()
        self.optimizer.step()

    def state_dict(self) -> dict[str, Any]:
        return {
            "model": self.model.state_dict(),
            "buffers": {"table": self.model.table},
            "optimizer": self.optimizer.state_dict(),
            **self.saved,
        }


def ema(trainer: Any) -> None:
    trainer.ema = copy.deepcopy(trainer.model)


def second_optimizer(trainer: Any) -> None:
    trainer.second = torch.optim.SGD(trainer.model.parameters(), lr=0.1, momentum=0.9)
    trainer.second.step()


def tensor_in_an_object(trainer: Any) -> None:
    trainer.helper = Helper({"losses": [1.0, torch.ones(2)]})


LOST = {
    "Trainer.ema": ema,
    "the state of Trainer.second": second_optimizer,
    "Trainer.helper.history['losses'][1]": tensor_in_an_object,
}


@pytest.mark.parametrize("name", LOST)
def test_what_a_trainer_keeps_and_nobody_saves_is_refused_by_name(name: str) -> None:
    trainer = Trainer()
    refuse_unsaved(trainer, trainer.state_dict())
    trainer.step()
    refuse_unsaved(trainer, trainer.state_dict())
    LOST[name](trainer)
    trainer.step()
    with pytest.raises(UserError) as refused:
        refuse_unsaved(trainer, trainer.state_dict())
    (line,) = refused.value.lines
    assert line.startswith(f"{name} is in no checkpoint")


def test_what_is_saved_as_well_is_not_refused() -> None:
    trainer = Trainer()
    for make in LOST.values():
        make(trainer)
    trainer.saved = {
        "ema": trainer.ema.state_dict(),
        "second": trainer.second.state_dict(),
        "losses": [trainer.helper.history["losses"][1][:1]],  # a view of it will do
    }
    refuse_unsaved(trainer, trainer.state_dict())


def loaded() -> dict[str, Any]:
    return {
        "config": {"training": {"max_steps": 3}},
        "model": {"weight": torch.tensor([1.0, float("nan")])},
        "betas": [0.9, 0.999],
        "best": {"step": 4, "loss": float("nan")},
        "counts": {3: [1, None]},
    }


def test_what_was_put_back_is_the_same_whatever_the_config_says() -> None:
    now = {**loaded(), "config": {}, "betas": (0.9, 0.999), "new": 1}
    refuse_not_restored(loaded(), now, "step-4")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("model.weight", {"weight": torch.tensor([1.5, float("nan")])}),
        ("model.weight", {"weight": torch.tensor([1.0, float("nan")]).double()}),
        ("model.weight", {}),
        ("betas", [0.9]),
        ("best.step", {"step": 5, "loss": float("nan")}),
        ("counts.3.1", {3: [1, 2]}),
    ],
)
def test_what_is_not_put_back_is_named(name: str, value: Any) -> None:
    now = {**loaded(), name.partition(".")[0]: value}
    with pytest.raises(UserError, match=f"step-4 holds {name}, which load_state_dict has not"):
        refuse_not_restored(loaded(), now, "step-4")


def test_a_tensor_of_no_elements_and_a_constant_in_a_buffer_are_fine() -> None:
    trainer = Trainer()
    trainer.empty = torch.empty(0)
    trainer.view: Tensor = trainer.model.table[1:]
    refuse_unsaved(trainer, trainer.state_dict())
