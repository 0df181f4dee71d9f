"""Let the processes of a training exchange bytes, and add what they have in a fixed order.

What moves between processes are values, never sums of a library's own order: the sums are made by
`TreeSum`, so that W processes give the bits of one. A library moves bytes and does not ask whether
they mean the same to all, so `concatenate` and `sum` compare dtypes and shapes first.

What the processes tell each other beside the numbers of the model, such as the times of files,
differs from start to start: no recorder of operations sees it.
"""

import json
import operator
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, TypeVar
from zlib import crc32

import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes as unrecorded

from repro.core.errors import UserError, refuse
from repro.core.launch import launched
from repro.training.agreement import (
    Brought,
    faults_of_rows,
    faults_of_sizes,
    faults_of_summands,
    kind_of,
)
from repro.training.buckets import Buckets
from repro.training.joining import group_of_hosts, join
from repro.training.lost_processes import others_alive
from repro.training.patience import wait_for_it, work_for_all
from repro.training.tree_sum import Summands, TreeSum

Result = TypeVar("Result")


class Processes:
    """The processes that torchrun started; without it, this one alone. `rank` 0 writes the files.

    Each has the same weights and computes its `own` shards of every batch.
    """

    def __init__(self, shards: int, device: torch.device) -> None:
        launch = launched()
        self.rank = launch.rank
        self.size = launch.size
        self.shards = shards
        self.device = device
        self._buckets = Buckets(self.size, device)
        self._as_many = False  # whether all bring as many summands, once that was compared
        if shards % self.size:
            remedy = "expected a number that divides it: start fewer, or raise it (other bits)"
            raise UserError(
                f"{self.size} processes cannot share training.shards={shards}: {remedy}"
            )
        self.own = range(self.rank * shards // self.size, (self.rank + 1) * shards // self.size)
        if self.size > 1 and not dist.is_initialized():
            join(launch, "nccl" if device.type == "cuda" else "gloo")
        # What the hosts know goes from host to host: through NCCL it would wait for the GPUs.
        self._hosts: list[Any] = []
        if self.size > 1 and device.type == "cuda":
            self._hosts.append(group_of_hosts(launch))

    def alone(self, work: Callable[[], Result]) -> Result | None:
        """Let process 0 alone do `work`, for as long as it takes; return None in the others.

        A UserError of it is raised in all. `work` exchanges nothing with the others.
        """
        if self.size == 1:
            return work()
        if self.rank == 0:
            return work_for_all(work, self.texts)
        wait_for_it(self.texts)
        return None

    def first(self, work: Callable[[], Result]) -> Result:
        """Let process 0 do `work` before the others do it: they find nothing half-done.

        Process 0 may take as long as it needs; a UserError of it is raised in all.
        """
        done = self.alone(lambda: [work()])
        return done[0] if done else work()

    def together(self, work: Callable[[], Result]) -> Result:
        """Let each process do its own `work`; a UserError of any of them is raised in all.

        `work` exchanges nothing with the others: they would wait for one that has ended.
        """
        try:
            result = work()
            lines: list[str] = []
        except UserError as error:
            lines = error.lines
        told: list[list[str]] = [json.loads(text) for text in self.texts(json.dumps(lines))]
        refuse(next(filter(None, told), []))
        return result

    def wait(self) -> None:
        """Wait until all processes are here."""
        self._gather(torch.zeros(1))

    def close(self) -> None:
        """End together: a process that leaves early would break what the others still send."""
        if self.size > 1:
            self.wait()
            dist.destroy_process_group()

    def total(self, numbers: list[int]) -> list[int]:
        """Add up all processes' numbers, modulo 2^64, each a signed number of 64 bits.

        All bring equally many. TypeError if one is not a whole number.
        """
        numbers = [operator.index(number) for number in numbers]  # True is 1, 0.5 is refused
        if self.size == 1:
            return numbers
        own = torch.tensor(numbers, dtype=torch.int64)  # by itself [True] would be of one byte
        return self._gather(own).view(self.size, -1).sum(0).tolist()

    def total_there(self, numbers: Tensor) -> Tensor:
        """Add up all processes' int64 numbers where they are, modulo 2^64; return them, changed.

        Whole numbers have one sum in any order, so a library may add them up.
        """
        if self.size > 1:
            with others_alive():
                dist.all_reduce(numbers)
        return numbers

    def sum(self, summands: Summands, like: Sequence[Tensor]) -> Summands:
        """Add all processes' summands in the fixed tree; `like` has their shapes and dtypes.

        `None` counts as minus zero, which changes no number; what is None everywhere stays None.
        If the processes' dtypes or shapes are not the same, all raise the same UserError.
        """
        return self.sum_with_numbers([], summands, like)[1]

    def sum_with_numbers(
        self, numbers: list[float], summands: Summands, like: Sequence[Tensor]
    ) -> tuple[list[float], Summands]:
        """Add up summands as `sum` does, and a few numbers, in float64, by the same tree.

        The numbers need no message of their own. All processes bring equally many.
        """
        if self.size == 1:
            return numbers, summands
        totals_of_numbers, somewhere = self._exchange(numbers, summands, like)
        result: Summands = [None] * len(summands)
        for dtype in dict.fromkeys(tensor.dtype for tensor in like):
            places = [i for i, t in enumerate(like) if somewhere[i] and t.dtype is dtype]
            if places:
                shapes = [like[i] for i in places]
                totals = self._buckets.sum([summands[i] for i in places], shapes, self._add)
                for i, total in zip(places, totals, strict=True):
                    result[i] = total
        return totals_of_numbers, result

    def chunk_sizes(self, samples: int, chunk: int) -> list[int]:
        """Return how many samples each process evaluates: whole chunks, shared evenly."""
        chunks = -(-samples // chunk)  # rounded up
        edges = [min(samples, r * chunks // self.size * chunk) for r in range(self.size + 1)]
        return [end - start for start, end in pairwise(edges)]

    def concatenate(self, own: Tensor, sizes: Sequence[int]) -> Tensor:
        """Return the processes' tensors one after the other; process k has `sizes[k]` rows.

        Those with rows must have one dtype, and one shape after the first dimension. A process
        without rows takes both from them, whatever its own are; if none has rows, all take those
        of process 0. UserError, the same in all processes, if that or a number of rows is wrong.
        They may come from the host; those of several processes are on the processes' device.
        """
        brought = Brought([int(size) for size in sizes], str(own.dtype), [*own.shape])
        all_brought = [Brought(*json.loads(text)) for text in self.texts(json.dumps(brought))]
        refuse(faults_of_sizes(all_brought) or faults_of_rows(all_brought))
        if self.size == 1:
            return own
        own = own.to(self.device)  # NCCL takes no tensors of the host
        with_rows = [each for each in all_brought if each.shape[0]]
        model = with_rows[0] if with_rows else all_brought[0]
        dtype = getattr(torch, model.dtype.removeprefix("torch."))
        parts = [own.new_empty(size, *model.shape[1:], dtype=dtype) for size in sizes]
        if len(own):
            parts[self.rank] = own.contiguous()
        for source, part in enumerate(parts):
            self.copy_from(source, [part])
        return torch.cat(parts)

    def copy_from(self, source: int, tensors: Sequence[Tensor]) -> None:
        """Give all processes the values that process `source` has.

        All must bring the same dtypes and shapes: this is done in every step, and compares none.
        """
        if self.size == 1:
            return
        with others_alive():
            for dtype in dict.fromkeys(tensor.dtype for tensor in tensors):
                group = [tensor for tensor in tensors if tensor.dtype is dtype]
                flat = torch.cat([tensor.reshape(-1) for tensor in group])
                dist.broadcast(flat.view(torch.uint8), source)  # gloo knows few types
                pieces = flat.split([tensor.numel() for tensor in group])
                for tensor, piece in zip(group, pieces, strict=True):
                    tensor.copy_(piece.view(tensor.shape))

    def texts(self, own: str) -> list[str]:
        """Return the texts of all processes; they may have any lengths but 0."""
        if self.size == 1:
            return [own]
        with unrecorded():
            data = torch.frombuffer(bytearray(own.encode()), dtype=torch.uint8)
            lengths = self._gather(torch.tensor([len(data)])).tolist()
            padded = data.new_zeros(max(lengths))
            padded[: len(data)] = data
            rows = self._gather(padded).view(self.size, -1)
            return [
                row[:length].numpy().tobytes().decode()
                for row, length in zip(rows, lengths, strict=True)
            ]

    def _gather(self, own: Tensor) -> Tensor:
        """Return the vectors of all processes, one after the other; all are on the CPU.

        All must bring the same dtype and length.
        """
        if self.size == 1:
            return own
        with unrecorded(), others_alive():
            gathered = own.new_empty(self.size, len(own))
            arguments: list[Any] = [list(gathered), own, *self._hosts]
            dist.all_gather(*arguments)
            return gathered.view(-1)

    def _exchange(
        self, numbers: list[float], summands: Summands, like: Sequence[Tensor]
    ) -> tuple[list[float], list[bool]]:
        """Return the numbers' sums, and which summands any process has.

        UserError if the summands are not alike in all. Each process tells one word for each, in one
        message with the numbers: whether it has that summand, and a checksum of dtype and shape.
        """
        kinds = [
            kind_of(tensor if summand is None else summand)
            for summand, tensor in zip(summands, like, strict=True)
        ]
        told = [
            (crc32(kind.encode()) >> 2 << 1) + (summand is not None)  # 31 bits
            for kind, summand in zip(kinds, summands, strict=True)
        ]
        if not self._as_many:  # once, for messages of unequal lengths break the exchange
            counts = self._gather(torch.tensor([len(kinds)]))
            self._as_many = bool((counts == counts[0]).all())
            if not self._as_many:
                self._refuse_other_kinds(kinds)
        own = torch.tensor(numbers, dtype=torch.float64)
        message = torch.cat([own.view(torch.int32), torch.tensor(told, dtype=torch.int32)])
        rows = self._gather(message).view(self.size, -1)
        words = rows[:, 2 * len(numbers) :]  # a number takes the place of two
        checksums = words >> 1
        if (checksums != checksums[0]).any():
            self._refuse_other_kinds(kinds)
        somewhere = (words & 1).any(0).tolist()
        if not numbers:
            return [], somewhere
        sums = TreeSum()
        for row in rows[:, : 2 * len(numbers)].contiguous().view(torch.float64):
            sums.add([row.clone()])
        (totals,) = sums.total()
        assert totals is not None
        return totals.tolist(), somewhere

    def _refuse_other_kinds(self, kinds: list[str]) -> None:
        """Raise UserError in all processes, about the first summand that is not alike in all."""
        refuse(faults_of_summands([json.loads(text) for text in self.texts(json.dumps(kinds))]))

    def _add(self, values: Tensor, room: Tensor) -> None:
        """Let each process add one slice of all vectors, then give all slices to all.

        The traffic is that of a ring all-reduce: twice the vector, for any number of processes.
        """
        sums = TreeSum()
        with others_alive():
            dist.all_to_all_single(room, values)
            for piece in room.view(self.size, -1):
                sums.add([piece])
            (total,) = sums.total()
            assert total is not None
            dist.all_gather_single(values, total)  # a list of slices NCCL would copy
