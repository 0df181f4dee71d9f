"""Compute a step's loss and gradients twice, and stop the training if they come out otherwise.

`training.recheck_every=N` asks for it in each N-th step. A processor or memory that fails in
silence, and an operation without a fixed result, make other bits of the same state: that is seen
before the optimizer steps, so neither the weights nor a checkpoint have it. What is computed is not
changed, so the setting is no condition of the bits.
"""

import json
import socket
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

from torch import Tensor, nn

from repro.core.errors import UserError
from repro.runs.noticed import Noticed, NotingProcesses, parting_of_notes
from repro.runs.registered import Registered
from repro.runs.step_state import StepState
from repro.training.parallel import LateWeights, Loss, Processes, backward_in_shards

Backward = Callable[[nn.Module, Sequence[Any], int, Processes, Loss, LateWeights | None], Tensor]
NOT_SEEN = (
    "training.recheck_every={every}: step {step} went backward by itself, so it cannot be computed "
    "twice: expected step.backward(loss) in the loop, or training.recheck_every=null"
)


class StepKeeper(Protocol):
    """Keeps what a step computes: repro/diagnosis/recheck_file.py."""

    def operations(self, model: nn.Module, compute: Callable[[], object]) -> str:
        """Compute, and return the operations as text."""
        ...

    def write(self, step: int, computed: Sequence[str]) -> str:
        """Write two computations of a step into files, in process 0; return how to compare them."""
        ...


class _Found(NamedTuple):
    """What a process has found: the first tensor that differs, "" for none."""

    words: str
    own: bool
    host: str


class Recheck:
    """Computes what steps compute a second time, in every `every`-th step; None: in no step."""

    def __init__(self, every: int | None, known: Registered, keeper: StepKeeper | None) -> None:
        self._every = every
        self._known = known
        self._keeper = keeper

    def backward(self, step: int, once: Backward) -> Backward:
        """Return what computes the loss and the gradients of step number `step`.

        `once`: what does so in all other steps.
        """
        if not self._every or step % self._every:
            return once

        def twice(
            model: nn.Module,
            batches: Sequence[Any],
            size: int,
            processes: Processes,
            loss: Loss,
            late: LateWeights | None = None,  # such a step waits for its numbers in any case
        ) -> Tensor:
            return _Twice(step, self._known, self._keeper).compute(
                model, batches, size, processes, loss
            )

        return twice

    def refuse_unseen(self, step: int, losses: int) -> None:
        """Raise UserError for a step that has not gone backward by the kit's function."""
        if self._every and not losses:
            raise UserError(NOT_SEEN.format(every=self._every, step=step))


class _Twice:
    """A computation that is done twice, in step number `step`."""

    def __init__(self, step: int, known: Registered, keeper: StepKeeper | None) -> None:
        self._step = step
        self._known = known
        self._keeper = keeper

    def compute(
        self, model: nn.Module, batches: Sequence[Any], size: int, processes: Processes, loss: Loss
    ) -> Tensor:
        """Go backward twice from the same state; UserError in all processes for a difference."""
        state = StepState(self._known, batches)
        seen: list[Noticed] = []
        for _ in range(2):
            state.restore()
            noticed = Noticed(model)
            noting = NotingProcesses(processes, noticed)
            with noticed.noting():
                mean = _backward(self._step, model, batches, size, noting, noticed.loss_of(loss))
            noticed.end(mean)
            seen.append(noticed)
        difference = parting_of_notes(seen[0].notes, seen[1].notes)
        found = _Found("", False, "")
        if difference:
            found = _Found(difference.words, difference.own, socket.gethostname())
        everyone = [_Found(*json.loads(text)) for text in processes.texts(json.dumps(found))]
        if guilty := _guilty(everyone):

            def again() -> None:
                alone = NotingProcesses(processes, None, alone=True)
                backward_in_shards(model, batches, size, alone, loss)

            kept = self._kept(model, processes, guilty[0], state, again)
            state.restore()
            raise UserError(_line(self._step, everyone, guilty) + kept)
        return mean

    def _kept(
        self,
        model: nn.Module,
        processes: Processes,
        rank: int,
        state: StepState,
        again: Callable[[], None],
    ) -> str:
        """Record the step of process `rank` twice more, and let process 0 write both; how."""
        if self._keeper is None:
            return ""
        told = ["", ""]
        if processes.rank == rank:
            try:
                told = []
                for _ in range(2):
                    state.restore()
                    told.append(self._keeper.operations(model, again))
            except Exception as error:  # the others wait for an answer, whatever it is
                told = [f"{type(error).__name__}: {error}", ""]
        computed = json.loads(processes.texts(json.dumps(told))[rank])
        if not computed[1]:
            return f"; the step could not be recorded ({' '.join(computed[0].split())[:160]})"
        kept = ""
        if processes.rank == 0:
            try:
                kept = self._keeper.write(self._step, computed)
            except OSError as error:
                kept = f"; the step could not be kept ({error.strerror or error})"
        return str(json.loads(processes.texts(json.dumps(kept))[0]))


def _backward(
    step: int, model: nn.Module, batches: Sequence[Any], size: int, processes: Processes, loss: Loss
) -> Tensor:
    """Go backward; UserError for a loss that holds on to a graph that is gone the second time."""
    try:
        return backward_in_shards(model, batches, size, processes, loss)
    except RuntimeError as error:
        if "backward through the graph a second time" not in str(error):
            raise
        raise UserError(
            f"training.recheck_every: the loss of step {step} uses what was computed outside of "
            "it, so it cannot be computed twice: expected that inside of the function that "
            "step.backward gets, or training.recheck_every=null"
        ) from error


def _guilty(everyone: Sequence[_Found]) -> list[int]:
    """Return the processes whose own tensors differ; where none has such, those that differ."""
    own = [rank for rank, found in enumerate(everyone) if found.words and found.own]
    return own or [rank for rank, found in enumerate(everyone) if found.words]


def _line(step: int, everyone: Sequence[_Found], guilty: Sequence[int]) -> str:
    """Return what is said of a step that came out otherwise."""
    rank, *others = guilty
    found = everyone[rank]
    more = f" (so did process {', '.join(map(str, others))})" if others else ""
    return (
        f"step {step}: process {rank} on {found.host} computed the loss and the gradients twice "
        f"from the same state, with other results{more}: the first tensor that differs is "
        f"{found.words}. The hardware is faulty, or an operation is not deterministic (python -m "
        "repro audit lists those). The optimizer has not stepped, and resume=auto goes on from the "
        "last checkpoint, better on another machine"
    )
