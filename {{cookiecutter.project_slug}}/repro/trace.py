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
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch._utils import _flatten_dense_tensors  # in one call, as DistributedDataParallel does

from repro.lines import TRACE, read_lines
from repro.parallel import Processes, parts_of_shards

EFFECTS = ("gradients", "weights", "buffers")
Quantities = Callable[[], dict[str, str]]  # names and values, when they are asked for
_TOGETHER = 1 << 16  # smaller tensors are joined first: a call costs more than to copy them
_multipliers: dict[torch.device, Tensor] = {}


@torch.no_grad()
def fingerprint(tensors: Iterable[Tensor | None]) -> Tensor:
    """The fingerprint of the tensors' bytes, an int64 of no dimension on their device.

    Nothing waits for a GPU here. `None` (no gradient) is another thing than zeros.
    """
    joined: dict[torch.dtype, list[Tensor]] = {}
    alone, sizes = [], 0
    for number, tensor in enumerate(tensors):
        if tensor is not None:
            length = tensor.numel()
            sizes += (2 * number + 1) * (length + 1)
            if length < _TOGETHER or tensor.is_cuda:
                joined.setdefault(tensor.dtype, []).append(tensor)
            else:
                flat = tensor.flatten()
                alone.append(flat.clone() if flat.storage_offset() else flat)  # words are aligned
    total: Tensor | int = _signed(sizes)
    place = 0
    # Which is joined depends on shapes alone: so do the places.
    for flat in [*alone, *map(_flatten_dense_tensors, joined.values())]:
        if rest := -len(flat) * flat.element_size() % 8 // flat.element_size():
            flat = torch.cat([flat, flat.new_zeros(rest)])
        words = flat.view(torch.int64)
        total, place = total + _weighted(words, place), place + len(words)
    return total if isinstance(total, Tensor) else torch.tensor(total)


def _weighted(words: Tensor, place: int) -> Tensor:
    """The sum of words times the odd numbers of the places from `place` on."""
    needed = place + len(words)
    odd = _multipliers.get(words.device)
    if odd is None or len(odd) < needed:
        odd = _odd_numbers(max(needed, 1 << 16), words.device)
        _multipliers[words.device] = odd
    # torch.dot has no integers on CUDA.
    if words.is_cuda:
        return (words * odd[place:needed]).sum()
    return torch.dot(words, odd[place:needed])


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
    return [
        _signed(
            sum(
                int(fingerprint(part)) * (2 * number + 1)
                for number, part in parts_of_shards(batch, size, processes)
                if part is not None
            )
        )
        for batch in batches
    ]


def _signed(number: int) -> int:
    """Modulo 2^64, as int64 has it."""
    return (number + 2**63) % 2**64 - 2**63


def state_quantities(model: nn.Module, gradients: bool = True) -> Quantities:
    """Fingerprints of a model's gradients, weights and buffers."""
    parameters = list(model.parameters())
    groups: list[Iterable[Tensor | None]] = [parameters, model.buffers()]
    if gradients:
        groups.insert(0, [parameter.grad for parameter in parameters])
    device = parameters[0].device if parameters else torch.device("cpu")
    found = _later(torch.stack([fingerprint(group).to(device) for group in groups]))
    names = EFFECTS if gradients else EFFECTS[1:]
    return lambda: {name: _hex(value) for name, value in zip(names, found(), strict=True)}


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
        self._file = path.open("a", buffering=1)  # a line at a time
        self._pending: list[tuple[int, Quantities]] = []

    def log(self, step: int, quantities: Quantities) -> None:
        """Append the line of the step before this one; `flush` appends all."""
        self.flush()
        self._pending.append((step, quantities))

    def flush(self) -> None:
        """Append what has not been written yet."""
        for step, quantities in self._pending:
            self._file.write(json.dumps({"step": step, **quantities()}) + "\n")
        self._pending.clear()

    def __enter__(self) -> "Trace":
        return self

    def __exit__(self, error: object, *_: object) -> None:
        with suppress(OSError) if error else nullcontext():  # a full disk was told already
            self.flush()
            self._file.close()
