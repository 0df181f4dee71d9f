"""Hold what a training changes: the model, its optimizers, and other objects with a state.

All of it is in every checkpoint, and put back from there when a training goes on.
"""

import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import nn
from torch.optim import Optimizer

from repro.core.errors import UserError, reason_of
from repro.training import model_state
from repro.training.packing import LoadedState, State
from repro.training.seeding import get_seed_state, set_seed_state

ONLY = "model"  # what a lone optimizer is called


@runtime_checkable
class Stateful(Protocol):
    """An object with a state: a scheduler, an average of weights, a scaler of gradients."""

    def state_dict(self) -> LoadedState: ...
    def load_state_dict(self, state: LoadedState, /) -> object: ...


@dataclass(frozen=True)
class Registered:
    """What a training changes. `frozen`: the modules that are in eval mode also in training.

    `places`: where each module keeps its parameters. To walk through a model takes as long as a
    tenth of a small step; its modules stay those it has.
    """

    model: nn.Module
    optimizers: dict[str, Optimizer]
    others: dict[str, Stateful]
    frozen: list[nn.Module]
    places: list[dict[str, nn.Parameter | None]]

    def all_parameters(self) -> list[nn.Parameter]:
        """Return the parameters of the model, each once, in the model's order."""
        there = (p for place in self.places for p in place.values() if p is not None)
        return list(dict.fromkeys(there))

    def clear_gradients(self) -> None:
        """Forget the gradients of all parameters."""
        for place in self.places:
            for parameter in place.values():
                if parameter is not None:
                    parameter.grad = None

    def parameters(self, optimizer: str) -> list[nn.Parameter]:
        """Return the parameters of an optimizer: those of the model in the model's order."""
        if optimizer not in self.optimizers:
            known = ", ".join(self.optimizers) or "none"
            raise UserError(f"there is no optimizer {optimizer}: registered are {known}")
        groups = self.optimizers[optimizer].param_groups
        own = {id(parameter) for group in groups for parameter in group["params"]}
        return [parameter for parameter in self.all_parameters() if id(parameter) in own]

    def train(self) -> None:
        """Put the model into the mode that it trains in."""
        if not self.model.training:
            self.model.train()
            for module in self.frozen:
                module.training = False

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Put the model into eval mode, without gradients, as long as the block lasts."""
        training = [module for module in self.model.modules() if module.training]
        self.model.eval()
        with torch.no_grad():
            yield
        for module in training:
            module.training = True

    def state_dict(self) -> LoadedState:
        """Return the states of all, and of the generators."""
        return {
            "model": self.model.state_dict(),
            "buffers": model_state.hidden_buffers(self.model),
            "optimizers": {name: each.state_dict() for name, each in self.optimizers.items()},
            "state": {name: each.state_dict() for name, each in self.others.items()},
            "generators": get_seed_state(),
        }

    def load(self, state: State) -> None:
        """Put back what `state_dict` returned; UserError if it does not fit."""
        self.load_to_evaluate(state)
        saved = _of_kind(state, "optimizers", self.optimizers)
        try:
            for name, optimizer in self.optimizers.items():
                model_state.restore_optimizer(optimizer, saved[name])
            set_seed_state(state.get("generators", {}))
        except ValueError as error:
            raise UserError(f"the checkpoint cannot be continued here: {error}") from error

    def load_to_evaluate(self, state: State) -> None:
        """Put back what an evaluation needs: all but the optimizers and the generators."""
        model_state.restore(state, self.model)
        saved = _of_kind(state, "state", self.others)
        for name, other in self.others.items():
            _load(name, other, saved[name])


def registered(
    model: nn.Module,
    optimizers: Optimizer | Mapping[str, Optimizer] | None,
    state: Mapping[str, Stateful] | None,
) -> Registered:
    """Check what an author registers, and return it; UserError for what cannot be kept."""
    model_state.refuse_unusable(model)
    if isinstance(optimizers, Optimizer):
        optimizers = {ONLY: optimizers}
    own = {id(parameter) for parameter in model.parameters()}
    for name, optimizer in (optimizers or {}).items():
        strange = [p for g in optimizer.param_groups for p in g["params"] if id(p) not in own]
        if strange:
            raise UserError(
                f"{len(strange)} parameters of the optimizer {name} are not the model's: register "
                "one nn.Module that holds every network, averages of weights included"
            )
    for name, other in (state or {}).items():
        if isinstance(other, nn.Module):
            raise UserError(
                f"state={{{name!r}: ...}} is a module: make it a part of model, as in "
                f'nn.ModuleDict({{"main": ..., {name!r}: ...}}), so that it is evaluated, traced '
                "and saved as the others are"
            )
        if not isinstance(other, Stateful):
            raise UserError(
                f"state={{{name!r}: ...}} is a {type(other).__name__}: expected an object with "
                "state_dict() and load_state_dict(state)"
            )
    frozen = [module for module in model.modules() if not module.training]
    model.eval()  # the first step finds it as any other one does
    places = [module._parameters for module in model.modules()]
    return Registered(model, dict(optimizers or {}), dict(state or {}), frozen, places)


def _load(name: str, other: Stateful, saved: Any) -> None:
    """Put back the state of an author's object; UserError, with the place, if it fails there."""
    try:
        other.load_state_dict(saved)
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        place = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}"
        words = f"{type(error).__name__}: {reason_of(error)} at {place}"
        raise UserError(
            f"the checkpoint's state of {name} cannot be put back ({words}): mend "
            f"{type(other).__name__}.load_state_dict, or take another checkpoint"
        ) from error


def _of_kind(state: State, kind: str, wanted: Mapping[str, object]) -> LoadedState:
    """Return a part of a checkpoint's state; UserError if it lacks what is registered."""
    saved: Any = state.get(kind, {})
    if not isinstance(saved, dict):
        raise UserError(f"the checkpoint has no {kind} by name: take another one")
    if missing := sorted(wanted.keys() - saved.keys()):
        there = ", ".join(saved) or "none"
        raise UserError(
            f"the checkpoint has no {kind} {', '.join(missing)} (there are {there}): it is of "
            "another training"
        )
    found: LoadedState = saved
    return found
