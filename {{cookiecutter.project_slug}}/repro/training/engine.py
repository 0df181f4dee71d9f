"""How the processes of a training share a step: by itself in the fixed order of `shards`.

`training.parallel` chooses another way: PyTorch's own DistributedDataParallel or FSDP2, which are
in repro/training/scale/, in projects that were made for it. Promises that all of a session asks the
engine where they differ: for the gradients of a step, for what a process holds of the weights, and
for what the order of their sums depends on.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from repro.core.errors import UserError
from repro.core.layout import step_folder
from repro.core.project import fault_without_engines
from repro.training import checkpoint
from repro.training.packing import LoadedState, State
from repro.training.parallel import LateWeights, Loss, backward_in_shards
from repro.training.processes import Processes

Result = TypeVar("Result")
SHARDS = "shards"
_ENGINES = "repro.training.scale.engines"
_LAUNCHING = "repro.training.scale.launching"


class EngineSettings(Protocol):
    """The settings of an engine; those of repro/runs/settings.py have them all."""

    @property
    def shards(self) -> int: ...
    @property
    def parallel(self) -> str: ...
    @property
    def processes(self) -> int | None: ...
    @property
    def bucket_mib(self) -> int: ...


class Joined(NamedTuple):
    """The processes that have met, and how they share a step.

    `environment`: what the order of the sums depends on, beside the settings: conditions.
    """

    processes: Processes
    engine: "Engine"
    environment: dict[str, str]


class Engine:
    """The fixed-order sum of `shards`, and what the other engines override.

    `is_sharded`: whether each process holds a part of each weight.
    """

    is_sharded = False

    def take(self, model: nn.Module, optimizers: Mapping[str, Optimizer]) -> None:
        """Prepare a model, and the optimizers of its parameters, for the first step."""

    def backward(
        self,
        model: nn.Module,
        batches: Sequence[Any],
        size: int,
        processes: Processes,
        loss: Loss,
        late: LateWeights | None = None,
    ) -> Tensor:
        """Add the mean gradient to the parameters' `.grad`; see `backward_in_shards`."""
        return backward_in_shards(model, batches, size, processes, loss, late)

    def refuse_state(self, others: Mapping[str, Any]) -> None:
        """Raise UserError for objects with a state that cannot be kept."""

    def naming_faults(self) -> AbstractContextManager[None]:
        """Turn what a library says of a model that it cannot take into one line."""
        return nullcontext()

    def refuse_sizes(self, smallest: int) -> None:
        """Raise UserError if a step of so few samples cannot be done."""

    def compute(self, work: Callable[[], Result]) -> Result:
        """Compute something with the model, outside of a step."""
        return work()

    def together(self, processes: Processes, work: Callable[[], Result]) -> Result:
        """Let each process do `work`, which computes with the model; all end if one fails."""
        return processes.together(work)

    def calls(self, own: int, most: int) -> int:
        """Return how often a process computes, if it has to `own` times and another `most`."""
        return own

    def whole(self, value: Tensor) -> Tensor:
        """Return a tensor of which each process may hold a part; all call it alike."""
        return value

    def parts(self, state: Any) -> Any:
        """Return a state (nested dicts and lists) with a `Part` for what this process has of it."""
        return state

    def save(self, checkpoints: Path | None, step: int, state: State) -> None:
        """Save a state after `step` steps; `checkpoints` is None in all processes but the first."""
        if checkpoints:
            checkpoint.save(step_folder(checkpoints, step), state)

    def finish(self, folders: Sequence[Path]) -> None:
        """Make checkpoints of a training that has ended such as everybody reads.

        Process 0 makes those in its `folders`. If there are parts, all processes call this.
        """

    def load(self, folder: Path) -> LoadedState:
        """Return the state of a checkpoint; of what is sharded, a `Part`."""
        return checkpoint.load(folder)

    def placed(self, known: Any, state: State) -> State:
        """Return a checkpoint's state as `known`, what is registered, can take it up."""
        return state


def local(tensor: Tensor) -> Tensor:
    """Return the rows of a tensor that this process holds: all, but for those of FSDP2."""
    to_local = getattr(tensor, "to_local", None)
    return tensor if to_local is None else to_local().detach()


def joined_with_whole_weights(settings: Any, device: torch.device) -> Joined:
    """Let the processes meet that do not train; the environment is that of a training from here."""
    found = Joined(Processes(settings.shards, device), Engine(), {})
    if (module := _module(settings, _LAUNCHING)) is None:
        return found
    return found._replace(environment=module.environment(settings, device, None))


def joined_to_train(settings: Any, device: torch.device) -> Joined:
    """Let the processes of a training meet; UserError for what breaks its engine's promise."""
    launching = _module(settings, _LAUNCHING)
    if launching:
        launching.refuse_other_launch(settings, device)
    processes = Processes(settings.shards, device)
    if launching is None:
        return Joined(processes, Engine(), {})
    engine = import_module(_ENGINES).made(settings, processes)
    return Joined(processes, engine, launching.environment(settings, device, processes))


def _module(settings: object, name: str) -> Any:
    """Return a module of the engine that the settings name; None for the fixed-order sum."""
    parallel = getattr(settings, "parallel", SHARDS)  # an own config need not have it
    if parallel == SHARDS:
        return None
    if fault := fault_without_engines():
        raise UserError(f"training.parallel={parallel}: {fault}")
    return import_module(name)
