"""The trace of a run: a fingerprint of everything a step depends on and of what it does.

`trace.jsonl` opens with a header (the conditions), then has one line per step, in causal order: the
samples, the inputs, the loss and the other numbers of the step, the gradients, the weights and the
buffers after it. Two runs of the same bits have the same lines, whatever the number of workers and
processes, stopped and resumed or not; where two runs part, the first line that differs tells the
step and its first differing quantity what happened there (repro/diff.py).

A fingerprint is the sum of the bytes, taken as 64-bit words, each times an odd number made from its
place, modulo 2^64. One changed word always changes it, and so do swapped words but for bad luck.
Integer sums do not depend on their order: every device and number of threads gives the same.
"""

import json
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch._utils import _flatten_dense_tensors  # in one call, as DistributedDataParallel does

from repro.lines import TRACE, read_lines
from repro.parallel import Processes, parts_of_shards

EFFECTS = ("gradients", "weights", "buffers")
Quantities = Callable[[], dict[str, str]]  # names and values, when they are asked for
_TOGETHER = 1 << 16  # smaller tensors are joined first: a call costs more than to copy them
_multipliers: dict[torch.device, Tensor] = {}
_slices: dict[tuple[torch.device, int, int], Tensor] = {}  # of them


Group = Sequence[Tensor | None]


def fingerprint(tensors: Group) -> int:
    """The fingerprint of the tensors' bytes, one after the other; waits for a GPU."""
    return fingerprints([tensors])()[0]


@torch.no_grad()
def fingerprints(groups: Sequence[Group]) -> Callable[[], list[int]]:
    """The fingerprint of each group, when it is asked for; nothing waits for a GPU here.

    The tensors' sizes count, too, and `None` (no gradient) is another thing than zeros. As few
    calls of torch as can be: right after a training step each of them takes three times as long.
    """
    totals, owners, sums = [], [], []
    joined: dict[torch.dtype, list[tuple[int, int, int, list[Tensor]]]] = {}
    for number, group in enumerate(groups):
        sizes, place = 0, 0
        small: dict[torch.dtype, list[Tensor]] = {}
        for position, tensor in enumerate(group):
            if tensor is None:
                continue
            length = tensor.numel()
            sizes += (2 * position + 1) * (length + 1)
            if length < _TOGETHER:
                small.setdefault(tensor.dtype, []).append(tensor)
            else:
                words = _words([tensor])
                owners.append(number)
                sums.append(_weighted(words, place))
                place += words.numel()
        for dtype, tensors in small.items():
            size = sum(tensor.numel() for tensor in tensors) * dtype.itemsize
            count = -(-size // 8)
            if rest := (8 * count - size) // dtype.itemsize:  # each group has whole words
                tensors.append(tensors[0].new_zeros(rest))
            joined.setdefault(dtype, []).append((number, place, count, tensors))
            place += count
        totals.append(sizes)
    for parts in joined.values():
        words = _words([tensor for *_, tensors in parts for tensor in tensors])
        pieces = words.split([count for _, _, count, _ in parts])
        for (number, place, _, _), piece in zip(parts, pieces, strict=True):
            owners.append(number)
            sums.append(_weighted(piece, place))
    read = _later(torch.stack(sums)) if sums else list

    def total() -> list[int]:
        found = list(totals)
        for number, value in zip(owners, read(), strict=True):
            found[number] += value
        return [_signed(value) for value in found]

    return total


def _words(tensors: list[Tensor]) -> Tensor:
    """The bytes of tensors of one dtype, one after the other, as int64; zeros fill the last."""
    flat = _flatten_dense_tensors(tensors) if len(tensors) > 1 else tensors[0].flatten()
    if flat.storage_offset() or flat.stride(0) != 1:
        flat = flat.new_empty(len(flat)).copy_(flat)  # words are aligned, next to each other
    if rest := -flat.numel() * flat.element_size() % 8:
        flat = torch.cat([flat, flat.new_zeros(rest // flat.element_size())])
    return flat.view(torch.int64)


def _weighted(words: Tensor, place: int) -> Tensor:
    """The sum of words times the odd numbers of the places from `place` on."""
    key = (words.device, place, words.numel())
    odd = _slices.get(key)
    if odd is None:
        end = place + words.numel()
        numbers = _multipliers.get(words.device)
        if numbers is None or len(numbers) < end:
            numbers = _multipliers[words.device] = _odd_numbers(max(end, 1 << 16), words.device)
        if len(_slices) > 4096:  # shapes that change from step to step
            _slices.clear()
        odd = _slices[key] = numbers[place:end]
    # torch.dot has no integers on CUDA.
    return (words * odd).sum() if words.is_cuda else torch.dot(words, odd)


def _odd_numbers(count: int, device: torch.device) -> Tensor:
    """int64, odd, well mixed: the finalizer of SplitMix64 (https://prng.di.unimi.it/splitmix64.c)."""
    numbers = torch.arange(1, count + 1, device=device) * -7046029254386353131
    for shift, factor in ((30, -4658895280553007687), (27, -7723592293110705685)):
        numbers = (numbers ^ (numbers >> shift)) * factor
    return (numbers ^ (numbers >> 31)) | 1


def shards_fingerprints(
    batches: Sequence[Sequence[Tensor] | None], size: int, processes: Processes
) -> list[int]:
    """Of what this process has of several batches of `size`; all processes' add up to the whole's.

    They are those of the slices, so they depend on training.shards, as the bits do.
    """
    slices = [
        (which, 2 * number + 1, part)
        for which, batch in enumerate(batches)
        for number, part in parts_of_shards(batch, size, processes)
        if part is not None
    ]
    totals = [0] * len(batches)
    if slices:
        found = fingerprints([part for _, _, part in slices])()
        for (which, factor, _), value in zip(slices, found, strict=True):
            totals[which] = _signed(totals[which] + factor * value)
    return totals


def _signed(number: int) -> int:
    """Modulo 2^64, as int64 has it."""
    return (number + 2**63) % 2**64 - 2**63


_modules: "WeakKeyDictionary[nn.Module, list[nn.Module]]" = WeakKeyDictionary()


def state_quantities(model: nn.Module, gradients: bool = True) -> Quantities:
    """Fingerprints of a model's gradients, weights and buffers; its modules stay those it has."""
    if model not in _modules:  # model.parameters() walks through the tree of modules each time
        _modules[model] = list(model.modules())
    modules = _modules[model]
    weights = [w for m in modules for w in m._parameters.values() if w is not None]
    groups: list[Group] = [weights, [b for m in modules for b in m._buffers.values()]]
    if gradients:
        groups.insert(0, [weight.grad for weight in weights])
    names, read = EFFECTS[-len(groups) :], fingerprints(groups)
    return lambda: {name: _hex(value) for name, value in zip(names, read(), strict=True)}


def _later(values: Tensor) -> Callable[[], list[int]]:
    """How to read `values`: from a GPU they come while the next step is computed."""
    if not values.is_cuda:
        return values.tolist
    here = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
    here.copy_(values, non_blocking=True)
    there = torch.cuda.Event()
    there.record()

    def read() -> list[int]:
        there.synchronize()
        return here.tolist()

    return read


def step_quantities(
    model: nn.Module, fingerprints: Sequence[int], numbers: dict[str, float]
) -> Quantities:
    """A step's quantities in causal order, floats in exact form.

    `fingerprints`: of the samples' indices and of the inputs. `numbers`: first the loss, from which
    the gradients follow.
    """
    samples, inputs = map(_hex, fingerprints)
    loss, *others = ((name, float(value).hex()) for name, value in numbers.items())
    first = {"samples": samples, "inputs": inputs, **dict([loss]), "gradients": ""}
    state = state_quantities(model)
    return lambda: {**first, **dict(others), **state()}


def _hex(number: int) -> str:
    return f"{number % 2**64:016x}"


def _without_stop(header: dict[str, Any]) -> dict[str, Any]:
    """A header without training.max_steps: where training stops changes no step before it."""
    config = header["conditions"]["config"]
    training = {k: v for k, v in config["training"].items() if k != "max_steps"}
    conditions = {**header["conditions"], "config": {**config, "training": training}}
    return {**header, "conditions": conditions}


class Trace:
    """The trace of the run in `folder`, which goes on after `step` steps; for a `with` statement.

    Lines after that step are cut; `header` is added if it is another one than the last.
    """

    def __init__(self, folder: Path, header: dict[str, Any], model: nn.Module, step: int) -> None:
        path, header = folder / TRACE, _without_stop(header)
        lines = [line for line in read_lines(path) if line["step"] <= step]
        headers = [line for line in lines if "header" in line]
        if not headers or headers[-1]["header"] != header:
            lines.append({"step": step, "header": header})
        if not step:
            start = state_quantities(model, gradients=False)
            lines = [{"step": 0, "header": header}, {"step": 0, **start()}]
        temporary = path.with_name(".trace.partial")
        temporary.write_text("".join(json.dumps(line) + "\n" for line in lines))
        temporary.replace(path)
        self._file, self._flushed = path.open("a"), time.monotonic()
        self._pending: list[tuple[int, Quantities]] = []

    def log(self, step: int, quantities: Quantities) -> None:
        """Append the line of a step; it reaches the file within a second of training."""
        self._pending.append((step, quantities))
        if time.monotonic() - self._flushed > 1:
            self.flush()

    def flush(self) -> None:
        """Write all lines to the file, before a checkpoint that they lead to."""
        for step, quantities in self._pending:
            self._file.write(json.dumps({"step": step, **quantities()}) + "\n")
        self._file.flush()
        self._pending.clear()
        self._flushed = time.monotonic()

    def __enter__(self) -> "Trace":
        return self

    def __exit__(self, error: object, *_: object) -> None:
        with suppress(OSError) if error else nullcontext():  # a full disk was told already
            self.flush()
            self._file.close()
