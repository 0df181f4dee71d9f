"""Let FSDP2 exchange a block only when all processes exchange the same one.

The library does not ask whether they do. Where they do not, the weights of one block here and of
another one there make a mixture of both; blocks of unequal sizes end gloo's processes by an abort,
and where one process exchanges less than another, both wait for half an hour. Promises that all
processes end with the same line instead, whatever a model leaves out, forward or backward, in any
step.

Before each exchange all compare a word that says what comes next, through a group of their own in
which nothing else is sent. On CPUs the exchange begins when the words were compared. On GPUs it is
only queued, and the words of one are compared before the next: the hosts do not wait for each other
where their GPUs are busy anyway.
"""

from typing import Any
from zlib import crc32

import torch
import torch.distributed as dist
from torch.distributed.fsdp import FSDPModule
from torch.distributed.fsdp._fully_shard._fsdp_collectives import (
    DefaultAllGather,
    DefaultReduceScatter,
)
from torch.utils._python_dispatch import _disable_current_modes as unrecorded

from repro.core.errors import UserError
from repro.training.joining import EXCHANGE
from repro.training.lost_processes import others_alive
from repro.training.processes import Processes


class Exchanges:
    """What the processes have said that they exchange; all make one, at the same place."""

    def __init__(self, processes: Processes) -> None:
        self._waits = processes.device.type == "cpu"
        self._group: Any = dist.new_group(backend="gloo", timeout=EXCHANGE)
        self._open: list[tuple[Any, torch.Tensor]] = []  # words that are under way

    def watch(self, module: FSDPModule, name: str) -> None:
        """Compare before each exchange of a block; `name` is the same in all processes."""
        module.set_custom_all_gather(_Gathering(self, f"gather {name}"))
        module.set_custom_reduce_scatter(_Scattering(self, f"add {name}"))

    def begin(self, what: str) -> None:
        """Say what is exchanged next; UserError in all if it is not the same."""
        self._compare()
        word = crc32(what.encode())
        with unrecorded(), others_alive():
            words = torch.tensor([word, -word])
            work = dist.all_reduce(words, dist.ReduceOp.MAX, self._group, async_op=True)
        self._open.append((work, words))
        if self._waits:
            self._compare()

    def end(self, what: str) -> None:
        """Say what has been reached: whoever has other exchanges before it says another word."""
        self.begin(what)
        self._compare()

    def _compare(self) -> None:
        while self._open:
            work, words = self._open.pop()
            with unrecorded(), others_alive():
                work.wait()
                largest, smallest = words.tolist()
            if largest != -smallest:
                raise UserError(
                    "training.parallel=fsdp: the processes have called other parts of the model, "
                    "or others in another order, or not all of them used what came out, and would "
                    "mix up their weights: expected the same calls whatever the samples and the "
                    "random numbers are, or training.parallel=ddp"
                )


class _Watched:
    """FSDP2's own exchange of a block, after the words were compared."""

    def __init__(self, exchanges: Exchanges, what: str) -> None:
        self._exchanges = exchanges
        self._what = what

    def __call__(self, output_tensor: Any, input_tensor: Any, *rest: Any, **named: Any) -> Any:
        self._exchanges.begin(f"{self._what} {input_tensor.numel()}")
        its_own: Any = super()
        return its_own.__call__(output_tensor, input_tensor, *rest, **named)


class _Gathering(_Watched, DefaultAllGather):
    """Of weights."""


class _Scattering(_Watched, DefaultReduceScatter):
    """Of gradients; a process without one of them would bring fewer values."""
