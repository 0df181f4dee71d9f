"""The trace of a run: a fingerprint of everything a step depends on and of what it does.

`trace.jsonl` opens with a header (the conditions), then has one line per step, in causal order: the
samples, the inputs, the loss and the other numbers of the step, the gradients, the weights and the
buffers after it. Two runs of the same bits have the same lines, whatever the number of workers and
processes, stopped and resumed or not; where two runs part, the first line that differs tells the
step and its first differing quantity what happened there (repro/diagnosis/diff.py).

A tensor's fingerprint is the sum of its bytes, taken as 64-bit words, each times an odd number made
from its place, modulo 2^64; several tensors' is the sum of theirs, each times an odd number, too.
One changed word always changes it, and so do swapped words but for bad luck. Integer sums do not
depend on their order: every device and number of threads gives the same.

Right after a training step a call of torch takes three times as long as it takes in a row of its
like. So a step's small tensors are only copied, in one call, and fingerprinted later together with
its neighbours.
"""

import json
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from functools import partial
from itertools import pairwise
from operator import is_
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from repro.core.files import JsonObject, write_file
from repro.core.layout import TRACE
from repro.core.project import MAX_STEPS
from repro.runs.conditions import Facts
from repro.runs.logs import line_step, read_lines
from repro.training.parallel import Processes, parts_of_shards

EFFECTS = ("gradients", "weights", "buffers")
Quantities = Callable[[], dict[str, str]]  # names and values; once read, good until the next step
Group = Sequence[Tensor | None]
_COPIED = 1 << 14  # values; of larger tensors, copies cost more than to read them at once
_KINDS = 4  # of states that memory is kept for: layers may be skipped at random
_WAITING, _SECONDS = 8, 0.25  # steps that are fingerprinted together, at most
_multipliers: dict[torch.device, Tensor] = {}


@torch.no_grad()
def fingerprint(tensors: Group) -> int:
    """The fingerprint of the tensors' bytes; waits for a GPU.

    The tensors' sizes count, too, and `None` (no gradient) is another thing than zeros.
    """
    total = 0
    for factor, tensor in enumerate(tensors):
        if tensor is not None:
            words = _words(tensor)
            found = _dot(words, _odd_numbers(len(words), words.device)).item()
            total += (2 * factor + 1) * (int(found) + tensor.numel() + 1)
    return _signed(total)


def _words(tensor: Tensor) -> Tensor:
    """The bytes of a tensor as int64; zeros fill the last."""
    flat = tensor.flatten()
    if flat.storage_offset() or flat.stride(0) != 1:
        flat = flat.new_empty(len(flat)).copy_(flat)  # words are aligned, next to each other
    if rest := -flat.numel() * flat.element_size() % 8:
        flat = torch.cat([flat, flat.new_zeros(rest // flat.element_size())])
    return flat.view(torch.int64)


def _dot(words: Tensor, odd: Tensor) -> Tensor:
    # torch.dot has no integers on CUDA.
    return (words * odd).sum() if words.is_cuda else torch.dot(words, odd)


def _odd_numbers(count: int, device: torch.device) -> Tensor:
    """int64, odd, well mixed: the finalizer of SplitMix64 (https://prng.di.unimi.it/splitmix64.c)."""
    known = _multipliers.get(device)
    if known is None or len(known) < count:
        numbers = torch.arange(1, max(count, 1 << 16) + 1, device=device) * -7046029254386353131
        for shift, factor in ((30, -4658895280553007687), (27, -7723592293110705685)):
            numbers = (numbers ^ (numbers >> shift)) * factor
        known = _multipliers[device] = (numbers ^ (numbers >> 31)) | 1
    return known[:count]


class _State:
    """Some groups of tensors as they are when they are taken; calling it gives their fingerprints.

    It has memory for copies of the small ones, each from a whole word on, and is used again.
    """

    def __init__(self, groups: Sequence[Group], free: "list[_State]") -> None:
        self._free = free
        self._small: list[int] = []  # places among all tensors
        self._large: list[tuple[int, int, int, Tensor]] = []  # group, factor, place, odd numbers
        self._values: list[Tensor] = []  # what the words of the large ones add up to
        self._found: dict[str, str] = {}
        sizes, edges, place, end = [0] * len(groups), [0], -1, 0
        parts: list[tuple[Tensor, slice, Tensor]] = []  # and words and odd numbers
        for number, group in enumerate(groups):
            for position, tensor in enumerate(group):
                place += 1
                if tensor is None:
                    continue
                factor = 2 * position + 1
                length = -(-tensor.numel() * tensor.element_size() // 8)  # in 64-bit words
                odd_numbers = _odd_numbers(length, tensor.device)
                sizes[number] += factor * (tensor.numel() + 1)
                if tensor.numel() < _COPIED:
                    self._small.append(place)
                    part = slice(end, end := end + length)
                    parts.append((tensor, part, factor * odd_numbers))
                else:
                    self._large.append((number, factor, place, odd_numbers))
            edges.append(end)
        device = parts[0][0].device if parts else torch.device("cpu")
        words = torch.zeros(end, dtype=torch.int64, device=device)
        odd, self._views = torch.zeros_like(words), []
        for tensor, part, odd_numbers in parts:
            odd[part] = odd_numbers
            view = words[part].view(tensor.dtype)[: tensor.numel()]
            self._views.append(view.view(tensor.shape))
        ranges = [slice(*edges) for edges in pairwise(edges)]
        self._groups = [(size, words[a], odd[a]) for size, a in zip(sizes, ranges, strict=True)]

    def take(self, tensors: Sequence[Any]) -> None:
        self._found = {}
        if self._views:
            torch._foreach_copy_(self._views, [tensors[place] for place in self._small])
        self._values = [_dot(_words(tensors[place]), odd) for *_, place, odd in self._large]

    def __call__(self) -> dict[str, str]:
        if self._found:  # the second time would give it back once more
            return self._found
        totals = [size + int(_dot(words, odd).item()) for size, words, odd in self._groups]
        for (number, factor, *_), value in zip(self._large, self._values, strict=True):
            totals[number] += factor * int(value.item())
        self._free.append(self)
        names = EFFECTS[-len(totals) :]
        self._found = {name: _hex(total) for name, total in zip(names, totals, strict=True)}
        return self._found


def shards_fingerprints(
    batches: Sequence[Sequence[Tensor] | None], size: int, processes: Processes
) -> list[int]:
    """Of what this process has of several batches of `size`; all processes' add up to the whole's.

    They are those of the slices, so they depend on training.shards, as the bits do.
    """
    totals = [0] * len(batches)
    for which, batch in enumerate(batches):
        for number, part in parts_of_shards(batch, size, processes):
            if part is not None:
                totals[which] += (2 * number + 1) * fingerprint(part)
    return [_signed(total) for total in totals]


def _signed(number: int) -> int:
    """Modulo 2^64, as int64 has it."""
    return (number + 2**63) % 2**64 - 2**63


class _Memory:
    """What is known of a model: where its tensors are, and states that are not in use."""

    def __init__(self, model: nn.Module) -> None:
        modules = list(model.modules())  # model.parameters() walks through the tree each time
        self.parameters = [module._parameters for module in modules]
        self.buffers = [module._buffers for module in modules]
        self.weights: list[Tensor] = []
        self.free: dict[Any, list[_State]] = {}


_memories: "WeakKeyDictionary[nn.Module, _Memory]" = WeakKeyDictionary()


@torch.no_grad()
def state_quantities(model: nn.Module, gradients: bool = True) -> Quantities:
    """Fingerprints of a model's gradients, weights and buffers; its modules stay those it has."""
    memory = _memories.get(model) or _memories.setdefault(model, _Memory(model))
    weights: list[Any] = [w for own in memory.parameters for w in own.values() if w is not None]
    buffers: list[Any] = [b for own in memory.buffers for b in own.values() if b is not None]
    given = [w.grad for w in weights] if gradients else []
    if len(weights) != len(memory.weights) or not all(map(is_, weights, memory.weights)):
        memory.weights, memory.free = weights, {}
    # The same weights' shapes are not asked for: 1 us each, and an optimizer refuses other ones.
    kinds = [(b.shape, b.dtype, b.device) for b in buffers]  # a module may put another one there
    key = gradients, tuple([g is None for g in given]), tuple(kinds)
    if len(memory.free) >= _KINDS and key not in memory.free:
        memory.free.clear()
    free = memory.free.setdefault(key, [])
    groups = [given, weights, buffers] if gradients else [weights, buffers]
    state = free.pop() if free else _State(groups, free)
    state.take(given + weights + buffers)
    return state


def step_quantities(
    model: nn.Module,
    batches: Sequence[Sequence[Tensor] | None],
    size: int,
    processes: Processes,
    numbers: dict[str, float],
    asked: bool,
) -> tuple[Quantities | None, bool]:
    """A step's quantities in causal order, floats in exact form: in process 0, None in others.

    `batches`: the samples' indices and the inputs, this process's part. `numbers`: first the loss,
    from which the gradients follow. Also whether any process was `asked` to end: the processes
    exchange both at once.
    """
    found = None
    if processes.size > 1:
        *found, ending = processes.total([*shards_fingerprints(batches, size, processes), asked])
        asked = bool(ending)
        if processes.rank:
            return None, asked
    state = state_quantities(model)
    return partial(_line, batches, size, processes, found, numbers, state), asked


def _line(
    batches: Sequence[Sequence[Tensor] | None],
    size: int,
    processes: Processes,
    found: list[int] | None,
    numbers: dict[str, float],
    state: Quantities,
) -> dict[str, str]:
    samples, inputs = found or shards_fingerprints(batches, size, processes)
    loss, *others = ((name, float(value).hex()) for name, value in numbers.items())
    first = {"samples": _hex(samples), "inputs": _hex(inputs), **dict([loss]), "gradients": ""}
    return {**first, **dict(others), **state()}


def _hex(number: int) -> str:
    return f"{number % 2**64:016x}"


def _without_stop(facts: Facts) -> JsonObject:
    """Return the header without MAX_STEPS: where training stops changes no step before it."""
    group, _, name = MAX_STEPS.partition(".")
    conditions = facts.situation.conditions
    settings = conditions.config.get(group)
    if not isinstance(settings, dict):
        return facts.as_json()
    kept = {key: value for key, value in settings.items() if key != name}
    config = {**conditions.config, group: kept}
    return {**facts.as_json(), "conditions": {**conditions.as_json(), "config": config}}


class Trace:
    """The trace of the run in `folder`, which goes on after `step` steps; for a `with` statement.

    Lines after that step are cut; the header is added if it is another one than the last.
    """

    def __init__(self, folder: Path, facts: Facts, model: nn.Module, step: int) -> None:
        path, header = folder / TRACE, _without_stop(facts)
        lines = [line for line in read_lines(path) if line_step(line) <= step]
        headers = [line for line in lines if "header" in line]
        if not headers or headers[-1]["header"] != header:
            lines.append({"step": step, "header": header})
        if not step:
            start = state_quantities(model, gradients=False)
            lines = [{"step": 0, "header": header}, {"step": 0, **start()}]
        write_file(path, "".join(json.dumps(line) + "\n" for line in lines).encode())
        self._file, self._flushed = path.open("a"), time.monotonic()
        self._pending: list[tuple[int, Quantities]] = []

    def log(self, step: int, quantities: Quantities) -> None:
        """Append the line of a step; it reaches the file within a moment of training."""
        self._pending.append((step, quantities))
        late = time.monotonic() - self._flushed > _SECONDS
        if late or len(self._pending) >= _WAITING:
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
