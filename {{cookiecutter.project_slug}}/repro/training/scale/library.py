"""What DistributedDataParallel and FSDP2 have in common: one sum of gradients over all processes.

The number of processes is a condition: the libraries add in an order of their own, which depends on
it. The model is wrapped in place. The root of the wrapped modules calls the author's loss function
as its forward pass, so the library sees all that the loss does, whatever parts of the model it
calls. Weights, the order of samples, seeds and losses are those of `shards`.
"""

import json
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from repro.core.errors import refuse
from repro.training.agreement import faults_of_summands, kind_of
from repro.training.buffers import buffers_of
from repro.training.engine import Engine
from repro.training.parallel import (
    LateWeights,
    Loss,
    join_numbers,
    numbers_of_shard,
    scale_gradients,
    shard_slices,
)
from repro.training.processes import Processes
from repro.training.tree_sum import TreeSum, added
from repro.training.weighted import Weighted, weighted

Result = TypeVar("Result")


class Root(nn.Module):
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


class LibraryEngine(Engine):
    """What both libraries have in common: one sum of a step's gradients over all processes."""

    def __init__(self, processes: Processes) -> None:
        self._processes = processes
        self._root: Any = None  # what the library has made of a Root

    def _refuse_other_models(self, model: nn.Module) -> None:
        """Raise UserError, in all processes, if their models are not alike."""
        kinds = [kind_of(parameter) for parameter in model.parameters()]
        told = [json.loads(text) for text in self._processes.texts(json.dumps(kinds))]
        refuse(faults_of_summands(told))

    def _went_backward(self, parameters: Sequence[nn.Parameter]) -> None:
        """Come after the backward passes of a step, before anything else is exchanged."""

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
        parameters = [*model.parameters()]
        earlier = [parameter.grad for parameter in parameters]
        for parameter in (*parameters, self._root_module().always):
            parameter.grad = None
        buffers = buffers_of(model)
        buffers.begin()
        sums = TreeSum()
        for number, batch in zip(processes.own, batches, strict=True):
            if batch is not None:
                buffers.reset()  # so that they advance once in a step
            with self._exchanging(number == processes.own[-1]):
                sums.add(self._backward_of_shard(number, batch, size, loss))
        self._went_backward(parameters)
        mean, factor = join_numbers(sums.total(), size, processes, late)
        scale_gradients([p.grad for p in parameters if p.grad is not None], factor)
        for parameter, before in zip(parameters, earlier, strict=True):
            parameter.grad = added(before, parameter.grad)
        filled = next(n for n, s in enumerate(shard_slices(size, processes.shards)) if s.stop)
        buffers.share(processes, filled * processes.size // processes.shards)
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
        return [*numbers_of_shard(parts[0])] if parts else [None] * 3

    def _root_module(self) -> Any:
        return self._root
