"""Write the trace of a run: a fingerprint of everything a step depends on and of what it does.

`trace.jsonl` opens with a header (the conditions), then has one line per step, in causal order: the
samples, the inputs, the loss and the other numbers of the step, the gradients, the weights and the
buffers after it. Two runs of the same bits have the same lines, whatever the number of workers and
processes, stopped and resumed or not; where two runs part, the first line that differs tells the
step and its first differing quantity what happened there (repro/diagnosis/diff.py).
"""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TextIO

from torch import Tensor, nn

from repro.core.files import Json, JsonObject, replacing
from repro.core.layout import TRACE
from repro.core.project import MAX_STEPS
from repro.runs.conditions import Facts
from repro.runs.config_values import without_setting
from repro.runs.fingerprints import Quantities, as_hex, as_int64, fingerprint, state_quantities
from repro.runs.late_fingerprints import late_fingerprint, late_state_quantities
from repro.runs.logs import TraceLine, each_line, line_step
from repro.training.batches import tensors_of
from repro.training.parallel import Processes, slices_here
from repro.training.pending import Arriving, is_late

_WAITING = 8  # steps that are fingerprinted together, at most
_SECONDS = 0.25  # between two writes, at most


@dataclass(frozen=True)
class StepInputs:
    """What a step takes: this process's part of a batch of `size` samples, and their indices.

    `shards`: a batch for each of this process's shards, None for one without samples.
    """

    indices: Tensor
    shards: Sequence[Any]
    size: int

    def fingerprints(self, processes: Processes) -> list[int]:
        """Fingerprint this process's part of the indices and of the batch.

        The sums over all processes are the fingerprints of the whole: those of the shards, so they
        depend on training.shards, as the bits do.
        """
        lengths = [part.stop - part.start for part in slices_here(self.size, processes)]
        samples = 0
        inputs = 0
        shards = zip(processes.own, self.indices.split(lengths), self.shards, strict=True)
        for number, indices, batch in shards:
            if batch is not None:
                samples += (2 * number + 1) * fingerprint([indices])
                inputs += (2 * number + 1) * fingerprint([*tensors_of(batch)])
        return [as_int64(samples), as_int64(inputs)]

    def late(self, processes: Processes, arriving: Arriving) -> Callable[[], list[int]]:
        """Return what gives the fingerprints of the only process, once its numbers were read.

        A batch that a data set makes on the GPU is fingerprinted there.
        """
        lengths = [part.stop - part.start for part in slices_here(self.size, processes)]
        shards = zip(processes.own, self.indices.split(lengths), self.shards, strict=True)
        parts = [
            (
                2 * number + 1,
                late_fingerprint([indices], arriving),
                late_fingerprint([*tensors_of(batch)], arriving),
            )
            for number, indices, batch in shards
            if batch is not None
        ]
        return lambda: [
            as_int64(sum(factor * samples() for factor, samples, _ in parts)),
            as_int64(sum(factor * inputs() for factor, _, inputs in parts)),
        ]

    def is_late(self) -> bool:
        """Tell whether to fingerprint the batch is to wait for a GPU."""
        tensors = (tensor for batch in self.shards for tensor in tensors_of(batch))
        return any(tensor is not None and is_late(tensor) for tensor in tensors)


@dataclass(frozen=True)
class StepQuantities:
    """A step that was done; calling it gives its quantities, in causal order.

    `inputs`: gives the fingerprints of the samples and of the batch, of all processes. `noted`:
    fingerprints of gradients that were taken before the step was done, by quantity. `state` gives
    those of gradients, weights and buffers as they are then.
    """

    inputs: Callable[[], list[int]]
    numbers: dict[str, float]
    noted: Mapping[str, str]
    state: Quantities

    def __call__(self) -> dict[str, str]:
        samples, inputs = self.inputs()
        loss, *others = ((name, float(value).hex()) for name, value in self.numbers.items())
        first = {"samples": as_hex(samples), "inputs": as_hex(inputs), **dict([loss])}
        # The gradients follow from the loss, before what was made of them: "" keeps their place.
        places = dict.fromkeys([*self.noted, "gradients"], "")
        return {**first, **places, **dict(others), **self.state(), **self.noted}


def step_quantities(
    model: nn.Module,
    inputs: StepInputs,
    processes: Processes,
    numbers: dict[str, float],
    asked: bool,
    noted: Mapping[str, str] | None = None,
    arriving: Arriving | None = None,
) -> tuple[Quantities | None, bool]:
    """Return a step's quantities, floats in exact form: in process 0, None in others.

    `numbers`: first the loss, from which the gradients follow. `noted`: fingerprints of gradients
    that are gone now, or were other ones. Also returns whether any process was
    `asked` to end: the processes exchange both at once. `arriving`: on a GPU, with what the
    quantities arrive; they are good once that was read.
    """
    fingerprints: Callable[[], list[int]] = partial(inputs.fingerprints, processes)
    if processes.size > 1:
        *exchanged, ending = processes.total([*inputs.fingerprints(processes), asked])
        fingerprints = partial(list, exchanged)
        asked = bool(ending)
        if processes.rank:
            return None, asked
    elif arriving and inputs.is_late():
        fingerprints = inputs.late(processes, arriving)
    state = late_state_quantities(model, arriving) if arriving else state_quantities(model)
    return StepQuantities(fingerprints, numbers, noted or {}, state), asked


def _header(facts: Facts) -> JsonObject:
    """Return the facts without MAX_STEPS: where training stops changes no step before it."""
    conditions = facts.situation.conditions
    config = without_setting(conditions.config, MAX_STEPS)
    return {**facts.as_json(), "conditions": {**conditions.as_json(), "config": config}}


def _cut(path: Path, file: TextIO, step: int, header: JsonObject) -> None:
    """Write the lines of a trace up to `step` to `file`, and the header if it is another one now.

    One line at a time: the trace of a long training does not fit into memory.
    """
    before: Json = None
    for line in each_line(path):
        if line_step(line) <= step:
            before = line.get("header", before)
            _write_lines(file, line)
    if before != header:
        _write_lines(file, {"step": step, "header": header})


def _write_lines(file: TextIO, *lines: JsonObject) -> None:
    for line in lines:
        file.write(json.dumps(line) + "\n")


class Trace:
    """The trace of the run in `folder`, which goes on after `step` steps; for a `with` statement.

    Lines after that step are cut; a header is added if it is another one than the last. `start`
    gives the quantities before the first step, where they are not those of the model as it is here.
    """

    def __init__(
        self,
        folder: Path,
        facts: Facts,
        model: nn.Module,
        step: int,
        start: Quantities | None = None,
    ) -> None:
        path = folder / TRACE
        header = _header(facts)
        with replacing(path) as temporary, temporary.open("w") as file:
            if step:
                _cut(path, file, step, header)
            else:
                first = start or state_quantities(model, gradients=False)
                _write_lines(file, {"step": 0, "header": header}, TraceLine(0, first()).as_json())
        self._file = path.open("a")
        self._flushed = time.monotonic()
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
            line = TraceLine(step, quantities())
            self._file.write(json.dumps(line.as_json()) + "\n")
        self._file.flush()
        self._pending.clear()
        self._flushed = time.monotonic()

    def __enter__(self) -> "Trace":
        return self

    def __exit__(self, error: object, *_: object) -> None:
        with suppress(OSError) if error else nullcontext():  # a full disk was told already
            self.flush()
            self._file.close()
