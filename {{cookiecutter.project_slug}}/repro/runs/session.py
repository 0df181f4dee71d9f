"""A session: one training under the kit's care, around steps that the author's own loop does.

The author's function takes a `Session`, and says what the data are, what the training changes, and
what each step gave. The session seeds, makes batches, and does what its mode is for: `train` keeps
a run (repro/runs/training_session.py), `evaluate` loads a checkpoint, `diff --replay` repeats a
step, `audit` looks at the operations of one. All modes call the same function, so that what an own
loop reaches is what the template's loop reaches.
"""

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, TypeVar

from torch import nn
from torch.optim import Optimizer
from torch.utils.data import Dataset, default_collate

from repro.core.errors import UserError
from repro.core.secret_values import without_secrets
from repro.data.manifest import Manifest, tree_digests
from repro.runs.numbers import Number, number_of
from repro.runs.plan import Wanted, sized
from repro.runs.registered import Stateful, registered
from repro.runs.session_base import SessionBase
from repro.runs.step import Step
from repro.training.best import Best
from repro.training.loading import Collate
from repro.training.own_schedules import Batches, BatchOfStep
from repro.training.rows import Chunks
from repro.training.sampling import Order

Result = TypeVar("Result")


class Session(SessionBase):
    """One training, from its settings to its last step. `step` counts the steps that are done.

    `is_fresh`: whether the training begins, so that no checkpoint will be put into what is
    registered. `config`: the author's settings. `finished`: "" while there is more to do, else
    "steps", "max_steps" or "early". `notes`: what JSON can hold, for the loop to keep in
    checkpoints, such as how many validations in a row were not the best.
    """

    _told_of_no_best = False  # of a metric that is no number

    def data(self, facts: Mapping[str, Any]) -> None:
        """Say what identifies the data: their digest is a condition of the training.

        `facts`: a JSON object, such as the SHA-256 of each file (`digests`). Comes before
        `register`.
        """
        if self.facts is not None:
            raise UserError("session.data was called twice: expected all facts in one call")
        if not isinstance(facts, Manifest):  # else they are known to be JSON
            try:
                json.dumps(facts)
            except (TypeError, ValueError) as error:
                raise UserError(
                    f"session.data(facts): {error}; expected what JSON can hold: text, numbers, "
                    "lists and dicts of them"
                ) from error
        self.facts = without_secrets(dict(facts), "the facts of session.data(facts)")

    def digests(self, folder: Path) -> dict[str, str]:
        """Return the SHA-256 of every file below a folder, by its path, for `data(facts)`.

        All processes call it, and share the files: each is read once. Hidden files are left out,
        and so are tar files with an index (repro/data/tar_index.py): each of their samples is
        checked when it is read.
        """
        self.check_samples(folder)
        return tree_digests(folder, together=self.processes)

    def first(self, work: Callable[[], Result]) -> Result:
        """Let process 0 do `work`, such as to prepare data, before the others do it."""
        return self.processes.first(work)

    def seeded(self, purpose: str, *more: str | int) -> AbstractContextManager[None]:
        """Seed all generators for a purpose, as long as the block lasts.

        What is drawn follows from the purpose alone; "init" is for the weights of a model.
        """
        return self.seeds.seeded(purpose, *more)

    def register(
        self,
        *,
        model: nn.Module,
        optimizers: Optimizer | Mapping[str, Optimizer] | None = None,
        state: Mapping[str, Stateful] | None = None,
        best: tuple[str, str] | None = None,
    ) -> None:
        """Register all that the training changes; put back what a checkpoint holds of it.

        `model`: one module with every network. `optimizers`: one, or several by name. `state`:
        other objects with state_dict and load_state_dict, by name. `best`: the number of
        `validated` whose best checkpoint is kept, and "max" or "min". Raises UserError where the
        checkpoint is of other settings or data.
        """
        if self.facts is None:
            raise UserError(
                "session.register came before session.data: call session.data(facts) first, with "
                "what identifies the data, because a training goes on with the same data only"
            )
        if self._registered:
            raise UserError("session.register was called twice: expected one call for everything")
        self.best = Best.of(*best) if best else None
        self._registered = registered(model, optimizers, state)
        self.engine.take(model, self._registered.optimizers)
        self.engine.refuse_state(self._registered.others)
        self._restore(self._registered)

    def steps(
        self,
        dataset: Dataset[Any] | None = None,
        batch_size: int = 1,
        *,
        epochs: int | None = None,
        steps: int | None = None,
        drop_last: bool = False,
        order: Order | None = None,
        collate: Collate = default_collate,
        validate_every: int | None = None,
        batches: Batches | None = None,
        batch: BatchOfStep | None = None,
    ) -> Iterator[Step]:
        """Yield the steps that are to be done; the loop calls `step.done` in each.

        `epochs` or `steps`: the length of the whole training; training.max_steps may cut it. The
        samples are those of a random order, or of `order(seed, epoch)`, the indices of an epoch; of
        `batches(seed, epoch)`, the batches of an epoch; or of `batch(seed, step)`, the indices of a
        step. `collate`: makes a shard's batch of its samples. Without a data set the loop brings
        its own batches (`step.take`). A step's `validate_now` is true after `validate_every` steps
        (an epoch).
        """
        wanted = Wanted(
            dataset,
            batch_size,
            epochs,
            steps,
            drop_last,
            order,
            collate,
            validate_every,
            batches,
            batch,
        )
        if self._plan:
            raise UserError("session.steps was called twice: expected one loop for a training")
        self._plan = wanted.plan(self.seeds.training, self._settings.training.max_steps)
        self.loop_frame = sys._getframe(1)
        self._steps = self._loop(self._plan, self._known())
        return self._steps

    def validated(self, **metrics: Number) -> bool:
        """Tell the numbers of a validation of the weights as they are; return if it is the best.

        Only the first process logs them; all bring the same. Comes after `step.done`.
        """
        if self._is_over and self.was_asked:  # the loop goes on later
            return False
        if self._is_over:
            raise UserError(
                "session.validated came after the loop, whose last checkpoint is saved: validate "
                "in the step, where step.validate_now says so"
            )
        if self._current and not self._current.is_done:
            raise UserError("session.validated came before step.done: a validation follows a step")
        self.read_numbers()
        numbers = {
            name: number_of("session.validated", name, value) for name, value in metrics.items()
        }
        self._log_validation(numbers)
        if self.best is None:
            return False
        best = self.best.after(numbers, self.step)
        improved = best is not self.best
        if best.value is None and not self._told_of_no_best:
            self._told_of_no_best = True
            value = numbers[best.metric]
            self.tell(f"warning: {best.metric} is {value}: no best is kept until it is a number")
        self.best = best
        return improved

    def predict(
        self,
        dataset: Dataset[Any],
        batch_size: int,
        compute: Callable[[Any], Any],
        *,
        collate: Collate = default_collate,
    ) -> Any:
        """Return what `compute(batch)` gives for all samples, in their order, on the CPU.

        The model is in eval mode meanwhile, without gradients. `compute` returns a tensor with a
        row for each sample, or a dict or tuple of such. The processes share the fixed chunks of
        `batch_size` samples, each with seeds of its own; all get all rows.
        """
        chunks = Chunks(dataset, sized(dataset), batch_size, collate)
        with self.evaluating():
            return chunks.rows(
                compute, self.seeds.evaluation, self._workers, self.processes, self.engine
            )

    def evaluating(self) -> AbstractContextManager[None]:
        """Put the model into eval mode, without gradients, as long as the block lasts."""
        self.read_numbers()
        return self._known().evaluating()

    def stop(self) -> None:
        """End the training early, with this step as its last one; all processes call it alike."""
        self._is_stopping = True

    def ignore(self, value: object) -> None:
        """Say that an object of the loop's has no state that a resumed training would miss.

        Such as the trainer of a framework; call it before the loop begins.
        """
        self._ignored.append(value)

    @property
    def steps_per_epoch(self) -> int:
        """The number of steps of an epoch, once `steps` was called with a data set."""
        schedule = self._plan.schedule if self._plan else None
        if schedule is None or schedule.steps_per_epoch is None:
            raise UserError("session.steps was not called with a data set: there are no epochs")
        return schedule.steps_per_epoch

    @property
    def steps_in_all(self) -> int:
        """The number of steps of the whole training, once `steps` was called.

        training.max_steps does not change it, so a schedule of rates may follow from it.
        """
        if self._plan is None:
            raise UserError("session.steps was not called: the number of steps is not known")
        return self._plan.total

    @property
    def steps_left(self) -> int:
        """The number of steps that are still to be done, once `steps` was called."""
        is_over = self._plan is None or self.finished == "early"
        return 0 if is_over or not self._plan else max(0, self._plan.last - self.step)
