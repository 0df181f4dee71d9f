"""One step of a training, as the author's loop sees it: its batch, and what the loop tells of it.

The batch comes in shards (repro/training/parallel.py). `backward` and `update` do what a step does
with any number of shards and processes; an author may do a step by hand instead where there is one
shard. `done` ends the step.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from repro.core.errors import UserError
from repro.core.hashing import derive_seed
from repro.runs.fingerprints import as_int64, fingerprint
from repro.runs.noted_gradients import note_gradients
from repro.runs.numbers import GRADIENTS, LateStep, Number, number_of, unread_number_of
from repro.runs.plan import Plan
from repro.runs.recheck import Recheck
from repro.runs.registered import ONLY, Registered
from repro.training import sampling
from repro.training.batches import copied_for, cut, moved, size_of, tensors_of
from repro.training.beside import MeansBeside
from repro.training.engine import Engine
from repro.training.loading import IndexedBatch
from repro.training.parallel import Processes, slices_here
from repro.training.pending import Pending
from repro.training.precision import autocast
from repro.training.sampling import StepSchedule
from repro.training.seeding import seed_generators


@dataclass(frozen=True)
class Surroundings:
    """What a step needs of its session: the same in each step.

    `finish(step, numbers)` is called when the step is done. `precision`: bf16 for losses that are
    computed under autocast. `recheck`: which steps compute their losses twice. `pending`: what
    holds numbers back that are read later, on a GPU. `layouts`: where gradients are fingerprinted
    there. `engine`: how the processes share a step.
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
    pending: Pending | None = None
    layouts: dict[object, Any] = field(default_factory=dict)
    engine: Engine = field(default_factory=Engine)


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
    mean_loss: Number | None = None  # of the last of them
    also: dict[str, Number] = field(default_factory=dict)  # the means beside the losses
    late: LateStep | None = None  # on a GPU: the numbers, unread
    is_awaited: bool = False  # whether its numbers are read before the next step

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
        kept = copied_for(self.around.device, batch)  # the loop may fill the same memory again
        whole = moved(kept if self.around.device.type == "cuda" else batch, self.around.device)
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
            backward = around.recheck.backward(self.number, around.engine.backward)
            weights = self.late.check_weights if self.late else None
            mean = backward(model, shards, self.size, around.processes, seeded, weights)
        told = [given.get(shard) for shard in around.processes.own]
        self.also.update(around.beside.of_loss(self.losses, told, self.late is not None))
        self.losses += 1
        self.mean_loss = mean if self.late else mean.item()
        return mean

    def update(self, optimizer: str = ONLY, *, clip: float | None = None) -> Any:
        """Clip the gradients of an optimizer's parameters, update these, and return the norm.

        `clip`: the largest norm; None for no limit. The norm returned is that before clipping: a
        float; on a GPU a tensor of one value, for `float(norm)` waits. Nothing is updated where it
        is not finite: UserError, on a GPU once it was read.
        """
        if clip is not None and not clip > 0:
            raise UserError(f"step.update(clip={clip}): expected a number above 0, or None")
        registered = self.around.registered
        parameters = registered.parameters(optimizer)
        limit = math.inf if clip is None else clip
        norm = self.around.engine.whole(nn.utils.clip_grad_norm_(parameters, limit))
        told = norm if self.late else norm.item()
        loss = {} if self.mean_loss is None else {"loss": self.mean_loss}
        self._refuse_not_finite({**loss, "gradient_norm": told})
        if len(registered.optimizers) > 1:
            note_gradients(self, f"{GRADIENTS}.{optimizer}", parameters)
        registered.optimizers[optimizer].step()
        return told

    def gradients(self, optimizer: str | None = None) -> None:
        """Note the gradients as they are now, for the trace.

        For a loop that goes backward by itself, and clears the gradients before the step is done or
        has several optimizers.
        """
        registered = self.around.registered
        if optimizer is None:
            note_gradients(self, GRADIENTS, registered.all_parameters())
        else:
            name = f"{GRADIENTS}.{optimizer}"
            note_gradients(self, name, registered.parameters(optimizer))

    def done(self, *, loss: Number, **numbers: Number) -> None:
        """End the step: its numbers go into the trace and into metrics.jsonl, the loss first.

        A number is a float, or a tensor of one value: on a GPU that is read a few steps later, and
        a float that the loop itself reads there makes each step wait. UserError if one is not
        finite, and where several shards or processes were not joined.
        """
        if self.is_done:
            raise UserError(f"step {self.number}: step.done was called twice")
        told = self._told({"loss": loss, **numbers})
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
        if self.late:
            self.late.end(at_once=self.is_awaited or self.validate_now)

    def when_read(self, call: Callable[[], None]) -> None:
        """Do something once the numbers of the step are read: now, but for a GPU's."""
        if self.late:
            self.late.arriving.then(call)
        else:
            call()

    def _told(self, numbers: dict[str, Number]) -> dict[str, Any]:
        """Return the numbers that the loop tells, refused if not finite; unread on a GPU."""
        read = unread_number_of if self.late else number_of
        told = {name: read("step.done", name, value) for name, value in numbers.items()}
        self._refuse_not_finite(told)
        return told

    def _refuse_not_finite(self, numbers: dict[str, Number]) -> None:
        """Raise UserError for a number that is not finite: now, or once it was read."""
        if self.late:
            self.late.check(numbers)
        else:
            sampling.refuse_not_finite(numbers, self.around.schedule, self.index)


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
    late = LateStep(around.pending, plan.schedule, index) if around.pending else None
    if made is None or plan.schedule is None:
        return Step(index, around, epoch, validates, late=late)
    shards = moved(made.shards, around.device)
    size = plan.schedule.length(index)
    step = Step(index, around, epoch, validates, shards, made.shards, made.indices, size)
    step.late = late
    return step
