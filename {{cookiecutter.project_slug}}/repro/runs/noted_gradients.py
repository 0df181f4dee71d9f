"""Note the gradients of a step as they are now, for the trace, wherever they lie.

On a GPU they are fingerprinted there and read later; of sharded ones each process has a part.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import nn

from repro.runs.fingerprints import as_hex, fingerprint
from repro.runs.late_fingerprints import queued_of
from repro.runs.sharded_trace import fingerprints_of_parts, late_fingerprints_of_parts

if TYPE_CHECKING:
    from repro.runs.step import Step


def note_gradients(step: "Step", quantity: str, parameters: Sequence[nn.Parameter]) -> None:
    """Put the fingerprint of the parameters' gradients into the step's notes, by its name."""
    gradients = [parameter.grad for parameter in parameters]
    around = step.around
    noted = step.gradients_of
    if not step.late:
        if around.engine.is_sharded:
            [total] = fingerprints_of_parts([gradients], around.processes)
        else:
            total = fingerprint(gradients)
        noted[quantity] = as_hex(total)
        return
    if around.engine.is_sharded:
        totals = late_fingerprints_of_parts(
            around.registered.model, [gradients], around.processes, step.late.arriving
        )
    else:
        shapes = [gradient is None or gradient.shape for gradient in gradients]
        kind = quantity, tuple(map(id, parameters)), tuple(shapes)
        queued = queued_of([gradients], kind, around.layouts)
        totals = queued.take(gradients, step.late.arriving)
    noted[quantity] = ""  # it keeps its place
    step.late.arriving.then(lambda: noted.update({quantity: as_hex(totals()[0])}))
