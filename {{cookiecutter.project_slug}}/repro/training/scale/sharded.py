"""Train by FSDP2: each process holds some rows of each weight, gradient and moment.

Promises the bits of the same number of processes again, and a checkpoint in which each row is once.
"""

import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from weakref import WeakValueDictionary

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, Shard
from torch.optim import Adam, AdamW, Optimizer
from torch.optim.optimizer import register_optimizer_step_pre_hook

from repro.core.errors import UserError, reason_of, refuse
from repro.core.layout import step_folder
from repro.training.packing import LoadedState, State
from repro.training.part import Part
from repro.training.processes import Processes
from repro.training.scale import parts
from repro.training.scale.exchanges import Exchanges
from repro.training.scale.library import LibraryEngine, Root
from repro.training.unsaved import tensors_in

Result = TypeVar("Result")


# Of a block that FSDP2 gathers by itself: less would be more messages than work.
_LEAST_VALUES = 1 << 16


class ShardedEngine(LibraryEngine):
    """FSDP2: each process holds some rows of each weight, of its gradient and of its moments."""

    is_sharded = True

    def __init__(self, processes: Processes) -> None:
        super().__init__(processes)
        self._cut: dict[str, tuple[int, ...]] = {}  # see _places_of_parts
        self._exchanges = Exchanges(processes)
        self._mesh: DeviceMesh = init_device_mesh(processes.device.type, (processes.size,))

    def take(self, model: nn.Module, optimizers: Mapping[str, Optimizer]) -> None:
        self._refuse_other_models(model)
        _refuse_fused(optimizers)
        names = {id(parameter): name for name, parameter in model.named_parameters()}
        given = WeakValueDictionary({id(parameter): parameter for parameter in model.parameters()})
        root = Root(model, self._processes.device)
        try:
            for block in _blocks(model):
                fully_shard(block, mesh=self._mesh)
            self._root = fully_shard(root, mesh=self._mesh)
        except (ValueError, NotImplementedError, RuntimeError) as error:
            reason = reason_of(error, 160)
            raise UserError(
                f"training.parallel=fsdp cannot take this model ({reason}): expected weights with "
                "at least one dimension; training.parallel=ddp takes all"
            ) from error
        for number, module in enumerate(root.modules()):
            if isinstance(module, FSDPModule):
                self._exchanges.watch(module, str(number))
        now = dict(model.named_parameters())
        for optimizer in optimizers.values():
            for group in optimizer.param_groups:
                group["params"] = [now[names[id(parameter)]] for parameter in group["params"]]
        register_optimizer_step_pre_hook(partial(_refuse_given, given))
        self._cut = _places_of_parts(model, optimizers)

    def refuse_sizes(self, smallest: int) -> None:
        if smallest < self._processes.shards:
            raise UserError(
                f"training.parallel=fsdp: a step has {smallest} samples, fewer than "
                f"training.shards={self._processes.shards}, so a process would have nothing to "
                "compute while the others wait for it: expected training.drop_last=true or larger "
                "batches"
            )

    def _went_backward(self, parameters: Sequence[nn.Parameter]) -> None:
        unused = [number for number, p in enumerate(parameters) if p.grad is None]
        self._exchanges.end(f"gradients but of {unused}")

    def refuse_state(self, others: Mapping[str, Any]) -> None:
        for name, other in others.items():
            if any(tensor.numel() > 1 for tensor in tensors_in(other.state_dict())):
                raise UserError(
                    f"training.parallel=fsdp: state={{{name!r}: ...}} holds tensors, which no "
                    "process could cut as its weights are: make it a part of model (an average as "
                    "a copy of the network), or take training.parallel=ddp"
                )

    @contextmanager
    def naming_faults(self) -> Iterator[None]:
        try:
            yield
        except (RuntimeError, ValueError, AssertionError) as error:
            if isinstance(error, UserError) or not _is_of_fsdp(error):
                raise
            reason = reason_of(error, 160)
            raise UserError(
                f"training.parallel=fsdp cannot do this ({reason}): expected weights of one type "
                "in each block, none in two blocks, and all of them used in step.backward and "
                "session.predict alone, in the forward of the modules that hold them; "
                "training.parallel=ddp takes all"
            ) from error

    def compute(self, work: Callable[[], Result]) -> Result:
        found: Result = self._root(work)
        self._exchanges.end("computed")
        # The root keeps its weights whole after a forward pass alone. Where no checkpoint came
        # after it, the gradients of the next step were wrong (measured: their norm by 9 %).
        for module in self._root.modules():
            if isinstance(module, FSDPModule):
                module.reshard()
        return found

    def together(self, processes: Processes, work: Callable[[], Result]) -> Result:
        return work()  # it exchanges weights: one that fails ends, and the others see that

    def calls(self, own: int, most: int) -> int:
        return most

    def whole(self, value: Tensor) -> Tensor:
        return value.full_tensor() if isinstance(value, DTensor) else value

    def parts(self, state: Any) -> Any:
        if isinstance(state, DTensor):
            return _part_of(state)
        if isinstance(state, Mapping):
            return {key: self.parts(value) for key, value in state.items()}
        if isinstance(state, list | tuple):
            return [self.parts(value) for value in state]
        return state

    def placed(self, known: Any, state: State) -> State:
        weights = dict(known.model.state_dict())
        optimizers = {
            name: self._of_optimizer(known.optimizers[name], of_one)
            for name, of_one in state.get("optimizers", {}).items()
            if name in known.optimizers
        }
        model = {
            name: self._like(weights.get(name), value) for name, value in state["model"].items()
        }
        return {**state, "model": model, "optimizers": optimizers}

    def _of_optimizer(self, optimizer: Optimizer, state: State) -> State:
        """Return an optimizer's state with its moments cut as its parameters are."""
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        moments = {
            number: {
                name: self._like(_at(parameters, number), value) for name, value in of_one.items()
            }
            for number, of_one in state.get("state", {}).items()
        }
        return {**state, "state": moments}

    def _like(self, wanted: Any, value: Any) -> Any:
        """Return a value of a checkpoint as DTensor where `wanted` is one."""
        if not isinstance(wanted, DTensor) or not isinstance(value, Part):
            return value
        return DTensor.from_local(
            value.tensor.to(wanted.device),
            self._mesh,
            [Shard(0)],
            run_check=False,
            shape=torch.Size(value.shape),
            stride=wanted.stride(),
        )

    def save(self, checkpoints: Path | None, step: int, state: State) -> None:
        # The others learn where: process 0 alone has opened the run.
        there = self._processes.texts(str(checkpoints or "-"))[0]
        parts.save(step_folder(Path(there), step), state, self._processes)

    def finish(self, folders: Sequence[Path]) -> None:
        self._processes.alone(lambda: [*map(parts.consolidate, folders)])

    def load(self, folder: Path) -> LoadedState:
        def is_cut(name: str, shape: tuple[int, ...]) -> bool:
            return self._cut.get(name, self._cut.get(name.rpartition(".")[0])) == shape

        return parts.load(folder, self._processes.rank, self._processes.size, is_cut)

    @contextmanager
    def _exchanging(self, is_last: bool) -> Iterator[None]:
        self._root.set_requires_gradient_sync(is_last)
        yield


def _is_of_fsdp(error: Exception) -> bool:
    """Tell whether an error is FSDP2's, or one of a weight that is in parts."""
    frames = traceback.extract_tb(error.__traceback__)
    return "DTensor" in str(error) or "/fsdp/" in Path(frames[-1].filename).as_posix()


def _at(parameters: Sequence[Tensor], number: object) -> Tensor | None:
    """Return the parameter of that number; None if there is none."""
    if isinstance(number, int) and 0 <= number < len(parameters):
        return parameters[number]
    return None


def _part_of(tensor: DTensor) -> Part:
    """Return this process's rows: FSDP2 cuts the first dimension as torch.chunk does."""
    shape = tuple(tensor.shape)
    rows = -(-shape[0] // tensor.device_mesh.size())  # rounded up
    start = min(shape[0], rows * tensor.device_mesh.get_local_rank())
    return Part(tensor.to_local().detach().contiguous(), shape, start)


def _places_of_parts(
    model: nn.Module, optimizers: Mapping[str, Optimizer]
) -> dict[str, tuple[int, ...]]:
    """Return the shape of each sharded tensor of a state, by its name in the files of it.

    The moments of a parameter have the name of their place, and its shape: they are not made yet.
    """
    found = {f".model.{name}": value for name, value in model.state_dict().items()}
    for name, optimizer in optimizers.items():
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        for number, parameter in enumerate(parameters):
            found[f".optimizers.{name}.state.{number}"] = parameter
    return {name: tuple(each.shape) for name, each in found.items() if isinstance(each, DTensor)}


def _blocks(model: nn.Module) -> list[nn.Module]:
    """Return the modules whose weights are gathered by themselves, inner ones first."""
    found = [
        child
        for module in model.modules()
        if isinstance(module, nn.ModuleList | nn.Sequential)
        for child in module.children()
        if sum(parameter.numel() for parameter in child.parameters()) >= _LEAST_VALUES
        and not isinstance(child, nn.ModuleList | FSDPModule)
    ]
    return [*dict.fromkeys(reversed(found))]


def _refuse_given(given: Mapping[int, nn.Parameter], optimizer: Optimizer, *_: object) -> None:
    """Raise UserError where an optimizer of any kind holds what FSDP2 has put others in place of.

    No gradient ever comes to these, so nothing else would tell.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    if dead := sum(given.get(id(parameter)) is parameter for parameter in parameters):
        raise UserError(
            f"training.parallel=fsdp: {dead} parameters of a {type(optimizer).__name__} were taken "
            "from the model before session.register, which has put others into their place, and "
            "are not trained: expected them taken after it, or the optimizer among those registered"
        )


def _refuse_fused(optimizers: Mapping[str, Optimizer]) -> None:
    """Raise UserError for fused kernels that torch cannot call with weights in parts."""
    kinds = {
        name: type(optimizer).__name__
        for name, optimizer in optimizers.items()
        if any(group.get("fused") for group in optimizer.param_groups)
        and not isinstance(optimizer, Adam | AdamW)
    }
    refuse(
        [
            f"training.parallel=fsdp: the optimizer {name} is {kind} with fused=True, which takes "
            f"whole weights alone: expected {kind}(..., fused=False), or AdamW"
            for name, kind in kinds.items()
        ]
    )
