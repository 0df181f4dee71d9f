"""Fingerprint a step of which each process holds a part of the weights, for the trace.

A quantity is the sum of what the processes have, each times an odd number: all compute their part
and exchange a number for each quantity. One that another number of processes makes is another one,
as the bits are.
"""

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from repro.runs.fingerprints import EFFECTS, Quantities, as_hex, as_int64, fingerprint
from repro.runs.trace import StepInputs, StepQuantities
from repro.training.engine import local
from repro.training.pending import Arriving
from repro.training.processes import Processes


def fingerprints_of_parts(
    groups: Sequence[Sequence[Tensor | None]], processes: Processes
) -> list[int]:
    """Return the fingerprint of each group of tensors, of all processes; all ask alike."""
    return processes.total(_own(groups, processes))


def start_of_parts(model: nn.Module, processes: Processes) -> dict[str, str]:
    """Return the fingerprints of the weights and buffers that a training begins with."""
    found = fingerprints_of_parts(_groups(model)[1:], processes)
    return dict(zip(EFFECTS[1:], map(as_hex, found), strict=True))


def sharded_quantities(
    model: nn.Module,
    inputs: StepInputs,
    processes: Processes,
    numbers: dict[str, float],
    asked: bool,
    noted: Mapping[str, str] | None = None,
    arriving: Arriving | None = None,  # what is exchanged is known at once
) -> tuple[Quantities | None, bool]:
    """Return a step's quantities in process 0, None in others; and if any was `asked` to end."""
    own = [*inputs.fingerprints(processes), *_own(_groups(model), processes), asked]
    samples, of_inputs, *effects, ending = processes.total(own)
    if processes.rank:
        return None, bool(ending)
    state = dict(zip(EFFECTS, map(as_hex, effects), strict=True))
    quantities = StepQuantities(lambda: [samples, of_inputs], numbers, noted or {}, lambda: state)
    return quantities, bool(ending)


def _groups(model: nn.Module) -> list[list[Tensor | None]]:
    """Return gradients, weights and buffers."""
    weights = [*model.parameters()]
    return [[weight.grad for weight in weights], [*weights], [*model.buffers()]]


def _own(groups: Sequence[Sequence[Tensor | None]], processes: Processes) -> list[int]:
    factor = 2 * processes.rank + 1
    found = []
    for group in groups:
        tensors = [None if tensor is None else local(tensor) for tensor in group]
        found.append(as_int64(factor * fingerprint(tensors)))
    return found
