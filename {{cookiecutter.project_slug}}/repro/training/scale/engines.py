"""Train by DistributedDataParallel or FSDP2, with the same bits in each start of each process.

The number of processes is a condition: the libraries add in an order of their own, which depends on
it. The model is wrapped in place. The root of the wrapped modules calls the author's loss function
as its forward pass, so the library sees all that the loss does, whatever parts of the model it
calls. Weights, the order of samples, seeds and losses are those of `shards`.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, Shard, distribute_tensor
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Adam, AdamW, Optimizer

from repro.core.errors import UserError, refuse
from repro.core.launch import launched
from repro.core.layout import step_folder
from repro.training.engine import Engine, EngineSettings
from repro.training.halves import check_halves
from repro.training.parallel import LateWeights, Loss, join_numbers, scale_gradients, slices_here
from repro.training.part import Part
from repro.training.processes import Processes
from repro.training.scale import parts
from repro.training.tree_sum import TreeSum, added
from repro.training.weighted import Weighted, weighted

Result = TypeVar("Result")

# A ring adds in one order, whatever the size of a message; sums inside the switches were seen to
# differ from call to call (NVIDIA/nccl#1497).
_NCCL = {"NCCL_ALGO": "Ring", "NCCL_NVLS_ENABLE": "0"}
# Of a block that FSDP2 gathers by itself: less would be more messages than work.
_LEAST_VALUES = 1 << 16


def before_joining(settings: EngineSettings, device: torch.device) -> None:
    """Set NCCL's variables; UserError for other values, and for another number of processes."""
    size = launched().size
    if settings.processes != size:
        words = (
            f"training.processes={settings.processes}, a condition of training.parallel="
            f"{settings.parallel}, and {size} were started"
        )
        wanted = settings.processes or "N"
        raise UserError(
            f"{words}: start as many, torchrun --nproc-per-node={wanted} -m experiment.train "
            f"training.processes={wanted} ..."
        )
    if device.type == "cuda":
        refuse(
            [
                f"{name}={os.environ[name]}: the sums of training.parallel={settings.parallel} "
                f"have one order with {name}={value} alone: expected that, or nothing"
                for name, value in _NCCL.items()
                if os.environ.get(name, value) != value
            ]
        )
        os.environ.update(_NCCL)


def made(settings: EngineSettings, processes: Processes) -> Engine:
    """Return the engine that the settings name."""
    if settings.parallel == "ddp":
        return DistributedEngine(processes, settings.bucket_mib)
    return ShardedEngine(processes)


def environment(
    settings: EngineSettings, device: torch.device, processes: Processes | None
) -> dict[str, str]:
    """Return the backend with its version, the processes of each node, and NCCL's variables.

    `processes`: those of a training, which all call this. None tells what `record` and `verify`
    start: all of them on this machine.
    """
    layout = str(settings.processes)
    if processes:
        nodes = processes.texts(os.environ.get("GROUP_RANK", "0"))
        layout = "+".join(str(nodes.count(node)) for node in dict.fromkeys(nodes))
    backend = "gloo"
    variables = {}
    if device.type == "cuda":
        backend = "nccl " + ".".join(map(str, torch.cuda.nccl.version()))
        there = {name: value for name, value in os.environ.items() if name.startswith("NCCL_")}
        variables = {**_NCCL, **there}
    return {
        "processes per node": layout,
        "backend": f"{backend}, torch {torch.__version__}",
        **variables,
    }


class _Root(nn.Module):
    """The root of what a library wraps: its forward pass is a piece of work with the model.

    `always`: a parameter that each loss uses, so that a process without samples takes part, too.
    """

    def __init__(self, model: nn.Module, device: torch.device) -> None:
        super().__init__()
        self.model = model
        self.always = nn.Parameter(torch.zeros(1, device=device))

    def forward(self, work: Callable[[], Any]) -> Any:
        found = work()
        if not torch.is_grad_enabled():
            return found
        nothing = self.always.sum() * 0
        return nothing if found is None else found + nothing


class _LibraryEngine(Engine):
    """What both libraries have in common: one sum of a step's gradients over all processes."""

    def __init__(self, processes: Processes) -> None:
        self._processes = processes
        self._root: Any = None  # what the library has made of a _Root

    def _exchanging(self, is_last: bool) -> AbstractContextManager[object]:
        """Let the backward passes of the block exchange gradients if it has the last of a step."""
        raise NotImplementedError

    def backward(
        self,
        model: nn.Module,
        batches: Sequence[Any],
        size: int,
        processes: Processes,
        loss: Loss,
        late: LateWeights | None = None,
    ) -> Tensor:
        self.refuse_sizes(size)
        self._check_halves(model, batches, size, loss)
        parameters = [*model.parameters()]
        earlier = [parameter.grad for parameter in parameters]
        for parameter in (*parameters, self._root_module().always):
            parameter.grad = None
        sums = TreeSum()
        for number, batch in zip(processes.own, batches, strict=True):
            with self._exchanging(number == processes.own[-1]):
                sums.add(self._backward_of_shard(number, batch, size, loss))
        mean, factor = join_numbers(sums.total(), size, processes, late)
        scale_gradients([p.grad for p in parameters if p.grad is not None], factor)
        for parameter, before in zip(parameters, earlier, strict=True):
            parameter.grad = added(before, parameter.grad)
        if buffers := [*model.buffers()]:
            processes.copy_from(0, buffers)
        return mean

    def _backward_of_shard(
        self, number: int, batch: Any, size: int, loss: Loss
    ) -> list[Tensor | None]:
        """Go backward through a shard's share of the mean; return its sum, weight and fault."""
        parts: list[Weighted] = []

        def work() -> Tensor | None:
            if batch is None:
                return None
            parts.append(weighted(loss(number, batch)))
            return parts[0].sum

        share = self._root(work)
        (share * (self._processes.size / size)).sum().backward()  # the library makes a mean
        if not parts:
            return [None] * 3
        weight = parts[0].weight_tensor()
        unusable = ~(torch.isfinite(weight) & (weight >= 0))
        return [parts[0].sum.detach().double().reshape(()), weight.clone(), unusable.double()]

    def _check_halves(
        self, model: nn.Module, batches: Sequence[Any], size: int, loss: Loss
    ) -> None:
        first = slices_here(size, self._processes)[0]
        number = self._processes.own.start
        samples = first.stop - first.start
        check_halves(model, batches[0], samples, partial(loss, number))

    def _root_module(self) -> Any:
        return self._root


class DistributedEngine(_LibraryEngine):
    """DistributedDataParallel: each process holds all weights, and gradients go in buckets."""

    def __init__(self, processes: Processes, bucket_mib: int) -> None:
        super().__init__(processes)
        self._bucket_mib = bucket_mib

    def take(self, model: nn.Module, optimizers: Mapping[str, Optimizer]) -> None:
        # By itself DDP makes its buckets anew after a process's first step, in the order in which
        # the gradients came: a process that goes on would add in another order.
        root = _Root(model, self._processes.device)
        # Without an unused parameter DDP warns that nobody need look for one.
        root.never = nn.Parameter(torch.zeros(1, device=self._processes.device))
        self._root = DistributedDataParallel(
            root,
            forward_sync_buffers=False,  # they are copied after each step
            find_unused_parameters=True,
            bucket_cap_mb=self._bucket_mib,
        )

    def _exchanging(self, is_last: bool) -> AbstractContextManager[object]:
        there: AbstractContextManager[object] = self._root.no_sync()
        return nullcontext() if is_last else there

    def _root_module(self) -> Any:
        return self._root.module


class ShardedEngine(_LibraryEngine):
    """FSDP2: each process holds some rows of each weight, of its gradient and of its moments."""

    is_sharded = True

    def __init__(self, processes: Processes) -> None:
        super().__init__(processes)
        self._mesh: DeviceMesh = init_device_mesh(processes.device.type, (processes.size,))

    def take(self, model: nn.Module, optimizers: Mapping[str, Optimizer]) -> None:
        _refuse_fused(optimizers)
        names = {id(parameter): name for name, parameter in model.named_parameters()}
        root = _Root(model, self._processes.device)
        try:
            for block in _blocks(model):
                fully_shard(block, mesh=self._mesh)
            self._root = fully_shard(root, mesh=self._mesh)
        except (ValueError, NotImplementedError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:160]
            raise UserError(
                f"training.parallel=fsdp cannot take this model ({reason}): expected weights with "
                "at least one dimension; training.parallel=ddp takes all"
            ) from error
        now = dict(model.named_parameters())
        for optimizer in optimizers.values():
            for group in optimizer.param_groups:
                group["params"] = [now[names[id(parameter)]] for parameter in group["params"]]

    def refuse_sizes(self, smallest: int) -> None:
        if smallest < self._processes.shards:
            raise UserError(
                f"training.parallel=fsdp: a step has {smallest} samples, fewer than "
                f"training.shards={self._processes.shards}, so a process would have nothing to "
                "compute while the others wait for it: expected training.drop_last=true or larger "
                "batches"
            )

    def compute(self, work: Callable[[], Result]) -> Result:
        found: Result = self._root(work)
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

    def placed(self, known: Any, state: Mapping[str, Any]) -> Mapping[str, Any]:
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

    def _of_optimizer(self, optimizer: Optimizer, state: Mapping[str, Any]) -> Mapping[str, Any]:
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
        """Return a value of a checkpoint as DTensor where `wanted` is one of its shape."""
        if not isinstance(wanted, DTensor):
            return value
        if isinstance(value, Part):
            own = value.tensor.to(wanted.device)
            return DTensor.from_local(
                own,
                self._mesh,
                [Shard(0)],
                run_check=False,
                shape=torch.Size(value.shape),
                stride=wanted.stride(),
            )
        if isinstance(value, Tensor) and value.shape == wanted.shape:
            return distribute_tensor(
                value.to(wanted.device), self._mesh, [Shard(0)], src_data_rank=None
            )
        return value

    def save(self, checkpoints: Path | None, step: int, state: Mapping[str, Any]) -> None:
        # The others learn where: process 0 alone has opened the run.
        there = self._processes.texts(str(checkpoints or "-"))[0]
        parts.save(step_folder(Path(there), step), state, self._processes)

    def finish(self, folders: Sequence[Path]) -> None:
        for folder in folders:
            parts.consolidate(folder)

    def load(self, folder: Path) -> dict[str, Any]:
        return parts.load(folder, self._processes.rank, self._processes.size)

    @contextmanager
    def _exchanging(self, is_last: bool) -> Iterator[None]:
        self._root.set_requires_gradient_sync(is_last)
        yield


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
