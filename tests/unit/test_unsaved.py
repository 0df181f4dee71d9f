"""State that changes and no checkpoint holds is refused by its name, and so is what is not put
back. tests/unit/test_session.py does the same with loops.
"""

import copy
import sys
from collections import deque
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest
import torch
from repro.core.errors import UserError
from repro.runs.unregistered import Unregistered
from repro.tasks.task_in_session import made_task
from repro.training.unsaved import reachable, refuse_not_restored
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


def queue(trainer: Any) -> None:
    trainer.queue = deque([torch.ones(2)], maxlen=3)


def scheduler(trainer: Any) -> None:
    trainer.scheduler = torch.optim.lr_scheduler.StepLR(trainer.optimizer, 3)


def inner_optimizer(trainer: Any) -> None:
    trainer.optimizer.base = torch.optim.SGD(trainer.model.parameters(), lr=0.1, momentum=0.9)
    trainer.optimizer.base.step()


class Callable:
    def __init__(self) -> None:
        self.shadow = torch.ones(2)

    def __call__(self) -> None:
        pass


def callable_object(trainer: Any) -> None:
    trainer.average = Callable()


def bound_method(trainer: Any) -> None:
    trainer.update = partial(Callable().__call__)


@dataclass(slots=True)
class Slots:
    values: Tensor


def slots(trainer: Any) -> None:
    trainer.slots = Slots(torch.ones(2))


def sparse(trainer: Any) -> None:
    trainer.adjacency = torch.eye(3).to_sparse()


LOST = {
    "trainer.queue[0]": queue,
    "trainer.scheduler": scheduler,
    "the state of trainer.optimizer.base": inner_optimizer,
    "trainer.average.shadow": callable_object,
    "trainer.update.shadow": bound_method,
    "trainer.slots.values": slots,
    "trainer.adjacency": sparse,
    "trainer.ema": ema,
    "the state of trainer.second": second_optimizer,
    "trainer.helper.history['losses'][1]": tensor_in_an_object,
}


def change(part: Any) -> None:
    """Change a state as a step would."""
    for tensor in (value for _, value in reachable(part, "", {}) if isinstance(value, Tensor)):
        with torch.no_grad():
            (tensor.to_dense() if tensor.is_sparse else tensor).add_(1)
    for optimizer in (getattr(part, "second", None), getattr(part.optimizer, "base", None)):
        if optimizer:
            optimizer.step()
    if hasattr(part, "scheduler"):
        part.scheduler.step()
    if hasattr(part, "adjacency"):
        part.adjacency = part.adjacency * 2


@pytest.mark.parametrize("when", ["before", "later"])
@pytest.mark.parametrize("name", LOST)
def test_what_a_trainer_changes_and_nobody_saves_is_refused_by_name(name: str, when: str) -> None:
    """There when the loop begins, or made in a step."""

    def loop() -> None:
        trainer = Trainer()
        if when == "before":
            LOST[name](trainer)
        kept = Unregistered([], sys._getframe(), trainer.state_dict())
        kept.refuse_changed(trainer.state_dict())
        if when == "later":
            LOST[name](trainer)
        trainer.step()
        change(trainer)
        kept.refuse_changed(trainer.state_dict())

    with pytest.raises(UserError) as refused:
        loop()
    (line,) = refused.value.lines
    assert line.startswith(f"{name} of loop() changes in a step and is in no checkpoint")


def test_what_is_saved_as_well_is_not_refused() -> None:
    trainer = Trainer()
    for make in (ema, second_optimizer, tensor_in_an_object, queue, scheduler, sparse):
        make(trainer)
    trainer.scaler = torch.amp.GradScaler("cpu")
    trainer.scaler.scale(torch.ones(1))  # its tensors are made now; its state has numbers
    trainer.nothing = torch.nn.MSELoss()
    trainer.backend = torch
    trainer.saved = {
        "queue": [tensor.clone() for tensor in trainer.queue],  # as `.cpu()` copies on a GPU
        "scheduler": trainer.scheduler.state_dict(),
        "scaler": trainer.scaler.state_dict(),
        "adjacency": trainer.adjacency,
        "ema": trainer.ema.state_dict(),
        "second": trainer.second.state_dict(),
        "losses": [trainer.helper.history["losses"][1][:1]],  # a view of it will do
    }
    kept = Unregistered([], sys._getframe(), trainer.state_dict())
    trainer.step()
    change(trainer)
    trainer.saved |= {"queue": [*trainer.queue], "scheduler": trainer.scheduler.state_dict()}
    trainer.saved |= {"ema": trainer.ema.state_dict(), "second": trainer.second.state_dict()}
    trainer.saved |= {"adjacency": trainer.adjacency}
    kept.refuse_changed(trainer.state_dict())


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


def test_a_trainer_that_is_a_module_or_can_be_called_is_looked_at_as_any_other() -> None:
    class Lit(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Linear(2, 2)
            self.other = [torch.ones(2)]

        def fit(self) -> None:
            kept = Unregistered([], sys._getframe(), {"model": self.state_dict()})
            self.other[0] += 1
            kept.refuse_changed({"model": self.state_dict()})

    with pytest.raises(UserError, match=r"self\.other\[0\] of fit\(\)"):
        Lit().fit()


def test_a_checkpoint_of_a_cpu_may_go_on_on_a_gpu() -> None:
    refuse_not_restored(
        {"generators": {"cuda": []}}, {"generators": {"cuda": [torch.ones(1)]}}, "step-4"
    )


def test_a_tensor_of_no_elements_and_a_constant_are_fine() -> None:
    trainer = Trainer()
    trainer.empty = torch.empty(0)
    trainer.view: Tensor = trainer.model.table[1:]
    trainer.weights = torch.ones(3)
    kept = Unregistered([], sys._getframe(), trainer.state_dict())
    trainer.step()
    trainer.model.table += 1
    kept.refuse_changed(trainer.state_dict())


class Holder:
    """A task of an author's, whose attributes are looked at."""

    def __init__(self) -> None:
        self.count = 0
        self.average: torch.Tensor | None = None
        self.name = "steps"


def test_numbers_of_a_holder_are_looked_at_also_those_that_a_step_makes() -> None:
    holder = Holder()
    kept = Unregistered([], None, {}, [holder])
    holder.seen = 1  # type: ignore[attr-defined]  # as a step makes it: nothing is known of it yet
    kept.refuse_changed({})
    holder.seen = 2  # type: ignore[attr-defined]
    holder.count = 1
    with pytest.raises(UserError) as refused:
        kept.refuse_changed({})
    first, second = str(refused.value).splitlines()
    assert first.startswith("self.count of Holder changes in a step")
    assert second.startswith("self.seen of Holder changes in a step")
    assert "session.notes" not in first  # a task has none


def test_an_average_that_a_step_begins_is_refused() -> None:
    holder = Holder()
    kept = Unregistered([], None, {}, [holder])
    holder.average = torch.ones(3)
    with pytest.raises(UserError, match="average of Holder changes"):
        kept.refuse_changed({})


def test_a_task_of_another_signature_is_one_line() -> None:
    class Wrong:
        def __init__(self, config: object) -> None: ...

    with pytest.raises(UserError, match=r"Wrong\(config, facts\): too many positional arguments"):
        made_task(Wrong, None, {})


def test_a_variable_that_the_loop_binds_is_no_state() -> None:
    kept = Unregistered([], sys._getframe(), {})
    for norm in (0.5, 0.25, 0.125):
        kept.refuse_changed({})
        assert norm
