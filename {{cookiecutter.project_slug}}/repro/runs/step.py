"""One step of a training, as the author's loop sees it: its batch, and what the loop tells of it.

The batch comes in shards (repro/training/parallel.py). `backward` and `update` do what a step does
with any number of shards and processes; an author may do a step by hand instead where there is one
shard. `done` ends the step.
"""

import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from repro.core.errors import UserError
from repro.core.hashing import derive_seed
from repro.runs.fingerprints import EFFECTS, as_hex, as_int64, fingerprint
from repro.runs.plan import Plan
from repro.runs.recheck import Recheck
from repro.runs.registered import ONLY, Registered
from repro.training import sampling
from repro.training.batches import cut, mapped, moved, size_of, tensors_of
from repro.training.beside import MeansBeside
from repro.training.loading import IndexedBatch
from repro.training.parallel import Processes, slices_here
from repro.training.precision import autocast
from repro.training.sampling import StepSchedule
from repro.training.seeding import seed_generators

Number: TypeAlias = float | Tensor
_GRADIENTS = "gradients"
# What lines of metrics.jsonl and of the trace hold beside the numbers of a loop.
_TAKEN = ("step", "epoch", "split", "header", "samples", "inputs", *EFFECTS)


@dataclass(frozen=True)
class Surroundings:
    """What a step needs of its session: the same in each step.

    `finish(step, numbers)` is called when the step is done. `precision`: bf16 for losses that are
    computed under autocast. `recheck`: which steps compute their losses twice.
    """

    registered: Registered
    processes: Processes
    device: torch.device
    seed: int
    schedule: StepSchedule | None
    finish: Callable[["Step", dict[str, float]], None]
    beside: MeansBeside
    recheck: Recheck
    precision: str = "fp32"


@dataclass
class Step:
    """A step that is being done. `index` counts from 0, `number` from 1.

    `made`: the batches of this process's shards, on the device, None for an empty one; `loaded`:
    the same as they were read, for the trace. `indices`: the samples' indices (int64), of this
    process. `epoch`: from 0; None where the loop brings its own batches. `validate_now`: whether a
    validation is due when the step is done.
    """

    index: int
    around: Surroundings
    epoch: int | None
    validate_now: bool
    made: list[Any] = field(default_factory=list)
    loaded: list[Any] = field(default_factory=list)
    indices: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.int64))
    size: int = 0
    gradients_of: dict[str, str] = field(default_factory=dict)  # fingerprints, by quantity
    is_done: bool = False
    is_used: bool = False  # whether the loop has asked for the batch
    losses: int = 0  # that `backward` was called with
    mean_loss: float | None = None  # of the last of them
    also: dict[str, float] = field(default_factory=dict)  # the means beside the losses

    @property
    def number(self) -> int:
        return self.index + 1

    @property
    def shards(self) -> list[Any]:
        """The batches of this process's shards, on the device; None for an empty one."""
        if not self.made:
            raise UserError(
                f"step {self.number} has no batch: session.steps got no data set, so give the step "
                "your own by step.take(batch)"
            )
        self.is_used = True
        return self.made

    @property
    def batch(self) -> Any:
        """The whole batch, on the device; UserError where it is cut into shards."""
        processes = self.around.processes
        if processes.shards > 1:
            raise UserError(
                f"training.shards={processes.shards}: a step has a batch for each shard, and only "
                "step.backward(loss) adds up their gradients: expected that in the loop, or "
                "training.shards=1"
            )
        return self.shards[0]

    def take(self, batch: Any) -> Any:
        """Take a batch that the loop brings itself; return it on the device.

        Every process brings the whole batch, and gets the whole one back. It is fingerprinted, and
        cut into shards along the first dimension. UserError where its parts have unequal first
        dimensions and there are several shards.
        """
        if self.made:
            raise UserError(f"step {self.number} has a batch already: expected one for each step")
        processes = self.around.processes
        self.size = size_of(batch) if processes.shards > 1 else _size_if_equal(batch)
        slices = slices_here(self.size, processes)
        self.indices = torch.arange(slices[0].start, slices[-1].stop)
        self._refuse_other_batches(batch)
        whole = moved(batch, self.around.device)
        kept = mapped(batch, torch.clone)  # the loop may fill the same memory with the next one
        if processes.shards == 1:
            self.made, self.loaded = [whole], [kept]
        else:
            self.made, self.loaded = cut(whole, slices), cut(kept, slices)
        self.is_used = True
        return whole

    def _refuse_other_batches(self, batch: Any) -> None:
        """Raise UserError, in all processes, if they have not brought the same batch."""
        processes = self.around.processes
        if processes.size > 1:
            own = fingerprint([*tensors_of(batch)])
            if processes.total([own])[0] != as_int64(processes.size * own):
                raise UserError(
                    f"step {self.number}: the processes have brought other batches: each brings "
                    "the whole batch, which has to follow from step.index"
                )

    def backward(
        self, loss: Callable[[Any], object], *, optimizer: str | None = None, add: bool = False
    ) -> Tensor:
        """Go backward through the mean loss of the batch and return it, in any number of shards.

        `loss(batch)` returns Weighted(sum, weight) of a shard's batch. It is called with generators
        that are seeded for the step, the shard, and the how-manieth call of the step this is. The
        gradients of the optimizer's parameters (of all) are cleared first unless `add`. The means
        of what the loss tells beside itself are in `step.also`. Raises UserError, with the samples,
        for a loss that no mean can be made of.
        """
        around = self.around
        shards = self.shards
        model = around.registered.model
        if not add and optimizer is None:
            around.registered.clear_gradients()
        elif not add and optimizer is not None:
            for parameter in around.registered.parameters(optimizer):
                parameter.grad = None
        again = (self.losses,) if self.losses else ()
        given: dict[int, Any] = {}

        def seeded(shard: int, batch: Any) -> object:
            seed_generators(derive_seed(around.seed, "step", self.index, shard, *again))
            with autocast(around.device, around.precision):
                given[shard] = loss(batch)
            return given[shard]

        with sampling.naming_samples(around.schedule, self.index):
            backward = around.recheck.backward(self.number)
            mean = backward(model, shards, self.size, around.processes, seeded)
        told = [given.get(shard) for shard in around.processes.own]
        self.also.update(around.beside.of_loss(self.losses, told))
        self.losses += 1
        self.mean_loss = mean.item()
        return mean

    def update(self, optimizer: str = ONLY, *, clip: float | None = None) -> float:
        """Clip the gradients of an optimizer's parameters, update these, and return the norm.

        `clip`: the largest norm; None for no limit. The norm returned is that before clipping.
        Raises UserError, before anything is updated, where it is not finite.
        """
        if clip is not None and not clip > 0:
            raise UserError(f"step.update(clip={clip}): expected a number above 0, or None")
        registered = self.around.registered
        parameters = registered.parameters(optimizer)
        limit = math.inf if clip is None else clip
        norm = nn.utils.clip_grad_norm_(parameters, limit).item()
        loss = {} if self.mean_loss is None else {"loss": self.mean_loss}
        numbers = {**loss, "gradient_norm": norm}
        sampling.refuse_not_finite(numbers, self.around.schedule, self.index)
        if len(registered.optimizers) > 1:
            self._note_gradients(f"{_GRADIENTS}.{optimizer}", parameters)
        registered.optimizers[optimizer].step()
        return norm

    def gradients(self, optimizer: str | None = None) -> None:
        """Note the gradients as they are now, for the trace.

        For a loop that goes backward by itself, and clears the gradients before the step is done or
        has several optimizers.
        """
        registered = self.around.registered
        if optimizer is None:
            self._note_gradients(_GRADIENTS, registered.all_parameters())
        else:
            name = f"{_GRADIENTS}.{optimizer}"
            self._note_gradients(name, registered.parameters(optimizer))

    def done(self, *, loss: Number, **numbers: Number) -> None:
        """End the step: its numbers go into the trace and into metrics.jsonl, the loss first.

        UserError if one is not finite, and where several shards or processes were not joined.
        """
        if self.is_done:
            raise UserError(f"step {self.number}: step.done was called twice")
        told = {
            name: number_of("step.done", name, value)
            for name, value in {"loss": loss, **numbers}.items()
        }
        sampling.refuse_not_finite(told, self.around.schedule, self.index)
        processes = self.around.processes
        if not self.losses and processes.shards > 1:
            raise UserError(
                f"training.shards={processes.shards}: only step.backward(loss) adds up the shards' "
                "gradients: expected that in the loop, or training.shards=1"
            )
        is_used = self.is_used
        if self.shards and not is_used:
            raise UserError(
                f"step {self.number} is done, and nobody asked for its batch: use step.batch or "
                "step.backward; for batches of your own, call session.steps(steps=N) without a "
                "data set, and step.take(batch)"
            )
        self.is_done = True
        self.around.finish(self, told)

    def _note_gradients(self, quantity: str, parameters: Sequence[nn.Parameter]) -> None:
        gradients = [parameter.grad for parameter in parameters]
        self.gradients_of[quantity] = as_hex(fingerprint(gradients))


def number_of(call: str, name: str, value: object) -> float:
    """Return a number that a loop tells; UserError for none, and for a name of the kit's own."""
    if name in _TAKEN or name.startswith(f"{_GRADIENTS}."):
        raise UserError(f"{call}({name}=...): the kit writes {name} itself: choose another name")
    number = one_number(value)
    if number is None:
        raise UserError(f"{call}({name}=...) is a {type(value).__name__}: expected one number")
    return number


def one_number(value: object) -> float | None:
    """Return a number as a float, also one that a tensor or NumPy holds; None for anything else."""
    if isinstance(value, Tensor | np.generic):
        with suppress(RuntimeError, TypeError, ValueError):  # of several values, complex, on meta
            return float(value.item())
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    return None


def _size_if_equal(batch: Any) -> int:
    """Return how many samples a batch holds; 1 where its parts disagree, so that it stays whole."""
    try:
        return size_of(batch)
    except UserError:
        return 1


def new_step(index: int, plan: Plan, around: Surroundings, made: IndexedBatch | None) -> Step:
    """Return a step that is about to be done; `made`: its batch, unless the loop brings it."""
    epoch = plan.epoch(index)
    validates = plan.validates_after(index + 1)
    if made is None or plan.schedule is None:
        return Step(index, around, epoch, validates)
    shards = moved(made.shards, around.device)
    size = plan.schedule.length(index)
    return Step(index, around, epoch, validates, shards, made.shards, made.indices, size)
