"""Sum large tensors over processes through one small buffer: bucket by bucket, in a fixed order.

The values of all tensors, one after the other, are cut into buckets of one size, and each bucket is
exchanged and added by itself. Each value is added in the same tree as without buckets, so the bits
are the same for every size of them.
"""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from repro.training.tree_sum import Summands

# Bytes of a bucket, of which the buffer holds two: what is sent, and what comes. On GPUs so much
# that the time of its messages counts little, which are as many as processes (docs/scaling.md). On
# CPUs 8 MiB were faster than 64 (measured), and less memory.
_ON_CPU = 8 << 20
_ON_GPU = 128 << 20
_ON_GPU_FOR_EACH_PROCESS = 4 << 20

Pieces = list[tuple[int, slice]]  # the numbers of tensors, and which of their values


class Buckets:
    """The buffer of a number of processes, which each sum uses anew."""

    def __init__(self, processes: int, device: torch.device) -> None:
        self._processes = processes
        self._buffer = torch.empty(0, dtype=torch.uint8)
        on_gpu = max(_ON_GPU, _ON_GPU_FOR_EACH_PROCESS * processes)
        self.largest = on_gpu if device.type == "cuda" else _ON_CPU

    @torch.no_grad()
    def sum(
        self,
        summands: Summands,
        like: Sequence[Tensor],
        add: Callable[[Tensor, Tensor], None],
    ) -> list[Tensor]:
        """Return the totals of tensors of one dtype; `like` has their shapes and their layout.

        `add(values, room)` puts the sums of all processes in the place of the values, which are a
        vector whose length the processes divide; `room` is as long. None counts as minus zero.
        """
        # Laid out in memory as the weight is: fused optimizers take both in that order.
        totals = [torch.empty_like(shape, requires_grad=False) for shape in like]
        sizes = [shape.numel() for shape in like]
        zero = torch.full((1,), -0.0, dtype=like[0].dtype, device=like[0].device)
        own = _Vectors(zero if summand is None else summand for summand in summands)
        found = _Vectors(totals)
        per_process = self.largest // zero.itemsize // self._processes
        for pieces in buckets_of(sizes, per_process * self._processes):
            lengths = [values.stop - values.start for _, values in pieces]
            padding = -sum(lengths) % self._processes
            sent, room = self._vectors(sum(lengths) + padding, zero)
            parts = [
                zero.expand(length) if summands[number] is None else own.of(number)[values]
                for (number, values), length in zip(pieces, lengths, strict=True)
            ]
            torch.cat([*parts, zero.new_zeros(padding)], out=sent)
            add(sent, room)
            for (number, values), part in zip(
                pieces, sent[: sum(lengths)].split(lengths), strict=True
            ):
                found.of(number)[values].copy_(part)
                if values.stop == sizes[number]:
                    found.end(number)
        return totals

    def _vectors(self, length: int, like: Tensor) -> tuple[Tensor, Tensor]:
        """Return two vectors of the buffer, which grows up to two buckets."""
        size = length * like.itemsize
        if self._buffer.numel() < 2 * size or self._buffer.device != like.device:
            self._buffer = torch.empty(2 * size, dtype=torch.uint8, device=like.device)
        sent, room = self._buffer[: 2 * size].view(like.dtype).split(length)
        return sent, room


class _Vectors:
    """Tensors as vectors, in their order; one that is not stored row by row has a copy in turn."""

    def __init__(self, tensors: Iterator[Tensor] | Sequence[Tensor]) -> None:
        self._tensors = [*tensors]
        self._number = -1
        self._vector = torch.empty(0)

    def of(self, number: int) -> Tensor:
        """Return a tensor's values, one after the other."""
        if number != self._number:
            self._vector = self._tensors[number].reshape(-1)
            self._number = number
        return self._vector

    def end(self, number: int) -> None:
        """Put what was written into a copy back into its tensor."""
        tensor = self._tensors[number]
        if not tensor.is_contiguous():
            tensor.copy_(self._vector.view(tensor.shape))


def buckets_of(sizes: Sequence[int], most: int) -> Iterator[Pieces]:
    """Yield what each bucket holds of tensors of these sizes; every one but the last is full."""
    pieces: Pieces = []
    room = most
    for number, size in enumerate(sizes):
        start = 0
        while start < size:
            stop = min(size, start + room)
            pieces.append((number, slice(start, stop)))
            room -= stop - start
            start = stop
            if not room:
                yield pieces
                pieces = []
                room = most
    if pieces:
        yield pieces
