"""Fingerprint a step of which each process holds a part of the weights, for the trace.

A quantity is the sum of what the processes have, each times an odd number: all compute their part
and exchange a number for each quantity. One that another number of processes makes is another one,
as the bits are. On GPUs these add the numbers up by themselves, and no host waits for them.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from weakref import WeakKeyDictionary

from torch import Tensor, nn

from repro.runs.fingerprints import EFFECTS, Quantities, as_hex, as_int64, fingerprint
from repro.runs.late_fingerprints import queued_of
from repro.runs.trace import StepInputs, StepQuantities
from repro.training.engine import local
from repro.training.pending import Arriving
from repro.training.processes import Processes

Groups = Sequence[Sequence[Tensor | None]]
_layouts: "WeakKeyDictionary[nn.Module, dict[object, object]]" = WeakKeyDictionary()


def fingerprints_of_parts(groups: Groups, processes: Processes) -> list[int]:
    """Return the fingerprint of each group of tensors, of all processes; all ask alike."""
    return processes.total(_own(groups, processes))


def late_fingerprints_of_parts(
    model: nn.Module, groups: Groups, processes: Processes, arriving: Arriving
) -> Callable[[], list[int]]:
    """Return what gives the same of a model's tensors on GPUs, once they were read."""
    here = _local(groups)
    kind = tuple(
        tuple([tensor is None or (tensor.shape, tensor.dtype) for tensor in group])
        for group in here
    )
    queued = queued_of(here, kind, _layouts.setdefault(model, {}))
    own = queued.there([tensor for group in here for tensor in group])
    late = arriving.words(processes.total_there(own.mul_(2 * processes.rank + 1)))
    return lambda: late.values


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
    arriving: Arriving | None = None,
) -> tuple[Quantities | None, bool]:
    """Return a step's quantities in process 0, None in others; and if any was `asked` to end.

    `arriving`: on GPUs, with what those of the model arrive.
    """
    groups = _groups(model)
    now = [] if arriving else _own(groups, processes)
    own = [*inputs.fingerprints(processes), *now, asked]
    samples, of_inputs, *effects, ending = processes.total(own)
    totals: Callable[[], list[int]] = partial(list, effects)
    if arriving:
        totals = late_fingerprints_of_parts(model, groups, processes, arriving)
    if processes.rank:
        return None, bool(ending)

    def state() -> dict[str, str]:
        return dict(zip(EFFECTS, map(as_hex, totals()), strict=True))

    quantities = StepQuantities(lambda: [samples, of_inputs], numbers, noted or {}, state)
    return quantities, bool(ending)


def _groups(model: nn.Module) -> list[list[Tensor | None]]:
    """Return gradients, weights and buffers."""
    weights = [*model.parameters()]
    return [[weight.grad for weight in weights], [*weights], [*model.buffers()]]


def _own(groups: Groups, processes: Processes) -> list[int]:
    factor = 2 * processes.rank + 1
    return [as_int64(factor * fingerprint(tensors)) for tensors in _local(groups)]


def _local(groups: Groups) -> list[list[Tensor | None]]:
    """Return what this process has of each tensor."""
    return [[None if tensor is None else local(tensor) for tensor in group] for group in groups]
