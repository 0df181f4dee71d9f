"""Train by DistributedDataParallel or FSDP2, with the same bits in each start of each process.

The number of processes is a condition: the libraries add in an order of their own, which depends on
it. Weights, the order of samples, seeds and losses are those of `shards`.
"""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from repro.core.errors import UserError
from repro.training.engine import Engine, EngineSettings
from repro.training.processes import Processes
from repro.training.scale.library import LibraryEngine, Root
from repro.training.scale.sharded import ShardedEngine


def made(settings: EngineSettings, processes: Processes) -> Engine:
    """Return the engine that the settings name."""
    if settings.parallel == "ddp":
        return DistributedEngine(processes, settings.bucket_mib)
    return ShardedEngine(processes)


class DistributedEngine(LibraryEngine):
    """DistributedDataParallel: each process holds all weights, and gradients go in buckets."""

    def __init__(self, processes: Processes, bucket_mib: int) -> None:
        super().__init__(processes)
        self._bucket_mib = bucket_mib
        self._frozen: list[nn.Parameter] = []  # as the training began

    def take(self, model: nn.Module, optimizers: Mapping[str, Optimizer]) -> None:
        self._refuse_other_models(model)
        self._frozen = [p for p in model.parameters() if not p.requires_grad]
        # By itself DDP makes its buckets anew after a process's first step, in the order in which
        # the gradients came: a process that goes on would add in another order.
        device = self._processes.device
        root = Root(model, device)
        # Without an unused parameter DDP warns once that nobody need look for one. With one it
        # copies to the host, in each step, which of them no process has used: a GPU would be waited
        # for (finalize_bucket_dense of torch's reducer.cpp), so there it may warn.
        if device.type == "cpu":
            root.never = nn.Parameter(torch.zeros(1))
        self._root = DistributedDataParallel(
            root,
            init_sync=False,  # all have the weights that follow from the seed
            forward_sync_buffers=False,  # they are copied after each step
            find_unused_parameters=True,
            bucket_cap_mb=self._bucket_mib,
        )

    def refuse_sizes(self, smallest: int) -> None:
        # It is asked before each step: DDP adds up what had gradients when it was made, and would
        # leave each process with weights of its own.
        if thawed := sum(parameter.requires_grad for parameter in self._frozen):
            raise UserError(
                f"training.parallel=ddp: {thawed} parameters that were frozen as the training "
                "began have gradients now: expected all that is ever trained to have "
                "requires_grad=True then; give it a rate of 0 until it is to change"
            )

    def _exchanging(self, is_last: bool) -> AbstractContextManager[object]:
        there: AbstractContextManager[object] = self._root.no_sync()
        return nullcontext() if is_last else there

    def _root_module(self) -> Any:
        return self._root.module
