"""Shards and processes: fixed slices of the batch, computed alone and summed in a fixed order.

A shard has its own seed and its own shape, whoever computes it, so the gradient of a step is a
function of (weights, samples, seed, number of shards) alone. The sum is a fixed binary tree:
floating-point addition is not associative. Each of W processes (W divides the shards) computes a
subtree; what they exchange are bytes, never sums of a library's own order. So W processes give the
bits of one.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from itertools import pairwise
from typing import TypeVar
from weakref import WeakKeyDictionary

import torch
import torch.distributed as dist
from torch import Tensor, nn

from repro.core.errors import UserError

Summands = list[Tensor | None]
Owner = dict[str, Tensor | None]  # a module's _buffers
Result = TypeVar("Result")


def shard_slices(size: int, shards: int) -> list[slice]:
    """Cut a batch of `size` samples into `shards` slices; some are empty if there are too few."""
    return [slice(k * size // shards, (k + 1) * size // shards) for k in range(shards)]


class TreeSum:
    """Sums lists of tensors in a fixed binary tree, in memory of log2(count) lists.

    Works like a binary counter: two partial sums of equal size are added and carried up. `None`
    (an unused parameter's gradient, an empty shard) counts as zero.
    """

    def __init__(self) -> None:
        self._levels: list[Summands | None] = []

    def add(self, summands: Summands) -> None:
        """Add the next list; all lists have the same length. The tensors become the sum's own."""
        for level, partial in enumerate(self._levels):
            if partial is None:
                self._levels[level] = summands
                return
            summands = [_add(a, b) for a, b in zip(partial, summands, strict=True)]
            self._levels[level] = None
        self._levels.append(summands)

    def total(self) -> Summands:
        """The sum; the number of lists added must be a power of two."""
        *below, top = self._levels
        if top is None or any(level is not None for level in below):
            raise ValueError("the number of summands is not a power of two")
        return top


def _add(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    if a is None or b is None:
        return b if a is None else a
    return a.add_(b)  # in place: a new tensor for each sum costs ResNet-18 more than the addition


def choose_device(name: str) -> torch.device:
    """The device of that name; "auto" takes the GPU if there is one, each process its own."""
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("device=cuda: torch finds no GPU here; use device=cpu or device=auto")
    if name == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
    torch.cuda.set_device(device)
    return device


class Processes:
    """The processes that torchrun started; without it, this one alone. `rank` 0 writes the files.

    Each has the same weights and computes its `own` shards of every batch.
    """

    def __init__(self, shards: int, device: torch.device) -> None:
        self.rank = int(os.environ.get("RANK", 0))
        self.size = int(os.environ.get("WORLD_SIZE", 1))
        self.shards, self.device = shards, device
        if shards % self.size:
            words = "expected a number that divides it: start fewer, or raise it (other bits)"
            raise UserError(f"{self.size} processes cannot share training.shards={shards}: {words}")
        self.own = range(self.rank * shards // self.size, (self.rank + 1) * shards // self.size)
        if self.size > 1 and not dist.is_initialized():
            backend = "nccl" if device.type == "cuda" else "gloo"
            dist.init_process_group(backend, timeout=timedelta(minutes=30))

    def part(self, size: int) -> slice:
        """The samples of a batch of `size` that this process computes."""
        return slice(self.own.start * size // self.shards, self.own.stop * size // self.shards)

    def first(self, work: Callable[[], Result]) -> Result:
        """Let process 0 do `work` before the others do it: it finds nothing half-done."""
        if self.rank == 0:
            result = work()
            self.wait()
            return result
        self.wait()
        return work()

    def wait(self) -> None:
        """Until all processes are here."""
        self._gather(torch.zeros(1))

    def close(self) -> None:
        """The end: a process that leaves earlier than the others would break their last words."""
        if self.size > 1:
            self.wait()
            dist.destroy_process_group()

    def total(self, numbers: list[int]) -> list[int]:
        """All processes' numbers added up, modulo 2^64, each a signed number of 64 bits."""
        if self.size == 1:
            return numbers
        return self._gather(torch.tensor(numbers)).view(self.size, -1).sum(0).tolist()

    def sum(self, summands: Summands, like: Sequence[Tensor]) -> Summands:
        """All processes' summands, added in the fixed tree; `like` has their shapes and dtypes.

        `None` counts as minus zero, which changes no number; what is None everywhere stays None.
        """
        if self.size == 1:
            return summands
        there = torch.tensor([summand is not None for summand in summands])
        known = self._gather(there.float()).view(self.size, -1).any(0).tolist()
        result: Summands = [None] * len(summands)
        for dtype in dict.fromkeys(tensor.dtype for tensor in like):
            places = [i for i, t in enumerate(like) if known[i] and t.dtype is dtype]
            if not places:
                continue
            filled = [(i, summands[i]) for i in places]
            own = [torch.full_like(like[i], -0.0) if s is None else s for i, s in filled]
            sizes = [like[i].numel() for i in places]
            padding = own[0].new_zeros(-sum(sizes) % self.size)
            flat = torch.cat([*(tensor.reshape(-1) for tensor in own), padding])
            pieces = self._sum_flat(flat).split([*sizes, len(padding)])
            for i, piece in zip(places, pieces, strict=False):
                # Laid out in memory as the weight is: fused optimizers take both in that order.
                kept = torch.empty_like(like[i], requires_grad=False)
                result[i] = kept.copy_(piece.view(like[i].shape))
        return result

    def chunk_sizes(self, samples: int, chunk: int) -> list[int]:
        """How many samples each process evaluates: whole chunks, as even as they can be shared."""
        chunks = -(-samples // chunk)
        edges = [min(samples, r * chunks // self.size * chunk) for r in range(self.size + 1)]
        return [end - start for start, end in pairwise(edges)]

    def concatenate(self, own: Tensor, sizes: Sequence[int]) -> Tensor:
        """The processes' tensors one after the other, `sizes` rows each."""
        if self.size == 1:
            return own
        parts = [own.new_empty(size, *own.shape[1:]) for size in sizes]
        parts[self.rank] = own.contiguous()
        for source, part in enumerate(parts):
            self.copy_from(source, [part])
        return torch.cat(parts)

    def copy_from(self, source: int, tensors: Sequence[Tensor]) -> None:
        """Give all processes the values that process `source` has."""
        if self.size > 1:
            with _others_alive():
                for dtype in dict.fromkeys(tensor.dtype for tensor in tensors):
                    group = [tensor for tensor in tensors if tensor.dtype is dtype]
                    flat = torch.cat([tensor.reshape(-1) for tensor in group])
                    dist.broadcast(flat.view(torch.uint8), source)  # gloo knows few types
                    pieces = flat.split([tensor.numel() for tensor in group])
                    for tensor, piece in zip(group, pieces, strict=True):
                        tensor.copy_(piece.view(tensor.shape))

    def _gather(self, own: Tensor) -> Tensor:
        if self.size == 1:
            return own
        own = own.to(self.device)
        gathered = own.new_empty(self.size, len(own))
        with _others_alive():
            dist.all_gather(list(gathered), own)
        return gathered.view(-1).cpu()

    def _sum_flat(self, flat: Tensor) -> Tensor:
        """Each process adds one slice of all vectors; then all get all slices. Only bytes move.

        The traffic is that of a ring all-reduce: twice the vector, for any number of processes.
        """
        received, sums = torch.empty_like(flat), TreeSum()
        pieces = received.view(self.size, -1)
        with _others_alive():
            dist.all_to_all_single(received, flat)
            for piece in pieces:
                sums.add([piece])
            (total,) = sums.total()
            assert total is not None
            dist.all_gather(list(flat.view(self.size, -1)), total)
        return flat


@contextmanager
def _others_alive() -> Iterator[None]:
    """A lost connection means that another process ended: one line, not a traceback from each."""
    try:
        yield
    except RuntimeError as error:
        words = " ".join(str(error).split())[:160]
        raise UserError(
            f"another process of this training ended ({words}); start all again with resume=auto"
        ) from error


def parts_of_shards(
    batch: Sequence[Tensor] | None, size: int, processes: Processes
) -> Iterator[tuple[int, list[Tensor] | None]]:
    """This process's shards of a batch of `size`: number and slices, None for an empty one."""
    slices, offset = shard_slices(size, processes.shards), processes.part(size).start
    for number in processes.own:
        part = slice(slices[number].start - offset, slices[number].stop - offset)
        empty = batch is None or part.start == part.stop
        yield number, None if empty else [tensor[part] for tensor in batch or ()]


class _Buffers:
    """A model's buffers while a step's shards are computed.

    Those that the model begins with: all processes exchange the same ones, whatever a module makes
    later. One that is None or has another shape (a cache that grows) is left to its module.
    """

    def __init__(self, model: nn.Module) -> None:
        there = {id(b): (m._buffers, k, b) for m in model.modules() for k, b in m._buffers.items()}
        found = [(own, k, b.clone()) for own, k, b in there.values() if b is not None and _plain(b)]
        # In a module's own dict, by name, and a place for the value before the step.
        self._floating = [entry for entry in found if entry[2].is_floating_point()]
        self._others = [entry for entry in found if not entry[2].is_floating_point()]
        values = [before for *_, before in self._floating]
        self.like = [*(value.new_zeros(()) for value in values), *values]
        self._tensors: list[Tensor | None] = []

    def begin(self) -> None:
        """Note the values before a step."""
        self._tensors = []
        for own, name, before in self._floating + self._others:
            now = own.get(name)
            self._tensors.append(now if _fits(now, before) else None)
            before.copy_(_now(own, name, before))

    def reset(self) -> None:
        """Give all the values from before the step."""
        entries = zip(self._floating + self._others, self._tensors, strict=True)
        for (own, name, before), tensor in entries:
            if tensor is not None:
                own[name] = tensor.copy_(before)

    def values(self) -> Summands:
        """Of the floating-point ones after a shard: which changed, as 0 and 1; then all."""
        now = [_now(*entry).clone() for entry in self._floating]
        pairs = zip(now, self._floating, strict=True)
        return [*((new != before).any().to(new.dtype) for new, (*_, before) in pairs), *now]

    def set(self, totals: Summands, shards: int) -> None:
        """Give those that some shard changed the mean over the shards."""
        for number, (own, name, before) in enumerate(self._floating):
            changed, total = totals[number], totals[number + len(self._floating)]
            if changed is not None and total is not None:
                mean = torch.where(changed > 0, total / shards, before)
                self._put(own, name, mean, self._tensors[number])

    def share(self, processes: Processes, source: int) -> None:
        """Those that have no mean, as the last shard left them: in the process `source`."""
        values = [_now(*entry).clone() for entry in self._others]
        processes.copy_from(source, values)
        tensors = self._tensors[len(self._floating) :]
        for (own, name, _), value, tensor in zip(self._others, values, tensors, strict=True):
            self._put(own, name, value, tensor)

    @staticmethod
    def _put(own: Owner, name: str, value: Tensor, tensor: Tensor | None) -> None:
        if tensor is not None and _fits(own.get(name), value):
            own[name] = tensor.copy_(value)


def _plain(buffer: Tensor) -> bool:
    """Whether it has values of its own: not sparse, not one value that is shown many times."""
    return buffer.layout is torch.strided and all(
        step or size < 2 for size, step in zip(buffer.shape, buffer.stride(), strict=True)
    )


def _fits(now: Tensor | None, before: Tensor) -> bool:
    kinds = [t is not None and (t.shape, t.dtype, t.layout) for t in (now, before)]
    return kinds[0] == kinds[1]


def _now(own: Owner, name: str, before: Tensor) -> Tensor:
    now = own.get(name)
    return now.detach() if now is not None and _fits(now, before) else before


_buffers: "WeakKeyDictionary[nn.Module, _Buffers]" = WeakKeyDictionary()


def backward_in_shards(
    model: nn.Module,
    batch: Sequence[Tensor] | None,
    size: int,
    processes: Processes,
    forward: Callable[..., Tensor],
) -> Tensor:
    """Add the mean gradient of a batch of `size` to the parameters' `.grad`; return its loss.

    `batch`: this process's part of it (`Processes.part`), tensors with the samples in their first
    dimension; None if it has none. `forward(shard, *tensors)` seeds the generators for shard number
    `shard` and returns the SUM of the losses of its samples.
    Buffers start each shard from the same values. Floating-point ones (BatchNorm's statistics) get
    the mean over the shards that have samples; those that none changes stay as they are. Others
    (its counter) are the last such shard's: they advance once per step.
    """
    if processes.shards == 1 and batch is not None:
        loss = forward(0, *batch) / size
        loss.backward()
        return loss.detach()
    parameters = list(model.parameters())
    earlier = [parameter.grad for parameter in parameters]  # of the caller: as backward, add to it
    buffers = _buffers.get(model) or _buffers.setdefault(model, _Buffers(model))
    buffers.begin()
    sums = TreeSum()
    for number, part in parts_of_shards(batch, size, processes):
        if part is None:
            sums.add([None] * (1 + len(parameters) + len(buffers.like)))
            continue
        buffers.reset()
        for parameter in parameters:
            parameter.grad = None
        loss = forward(number, *part) / size
        loss.backward()
        gradients = [parameter.grad for parameter in parameters]
        # float: a process without samples does not know another type
        sums.add([loss.detach().float(), *gradients, *buffers.values()])
    scalar = torch.zeros((), device=processes.device)
    like = [scalar, *parameters, *buffers.like]
    total_loss, *rest = processes.sum(sums.total(), like)
    for parameter, before, gradient in zip(parameters, earlier, rest, strict=False):
        parameter.grad = _add(before, gradient)
    slices = shard_slices(size, processes.shards)
    filled = [number for number, part in enumerate(slices) if part.start < part.stop]
    buffers.set(rest[len(parameters) :], len(filled))
    buffers.share(processes, filled[-1] * processes.size // processes.shards)
    assert total_loss is not None  # at least one shard has samples
    return total_loss
