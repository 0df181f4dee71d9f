"""A session: one training under the kit's care, around steps that the author's own loop does.

The author's function takes a `Session`, and says what the data are, what the training changes, and
what each step gave. The session seeds, makes batches, and does what its mode is for: `train` keeps
a run (repro/runs/training_session.py), `evaluate` loads a checkpoint, `diff --replay` repeats a
step, `audit` looks at the operations of one. All modes call the same function, so that what an own
loop reaches is what the template's loop reaches.
"""

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

from torch import nn
from torch.optim import Optimizer
from torch.utils.data import Dataset, default_collate

from repro.core.errors import UserError
from repro.core.files import JsonObject
from repro.core.hashing import derive_seed
from repro.data.manifest import data_digest
from repro.runs.conditions import Situation, conditions_here
from repro.runs.plan import Plan, Wanted, sized
from repro.runs.registered import Registered, Stateful, registered
from repro.runs.session_settings import SessionSettings, refuse_missing_settings
from repro.runs.step import Number, Step, Surroundings, new_step, number_of
from repro.training.best import Best
from repro.training.determinism import flags, set_determinism, set_threads
from repro.training.loading import Collate
from repro.training.model_state import weights_digest
from repro.training.parallel import Processes, choose_device
from repro.training.rows import Chunks
from repro.training.sampling import Order
from repro.training.seeding import ExperimentSeeds, seed_generators

Result = TypeVar("Result")


class Session:
    """One training, from its settings to its last step. `step` counts the steps that are done.

    `is_fresh`: whether the training begins, so that no checkpoint will be put into what is
    registered. `config`: the author's settings. `finished`: "" while there is more to do, else
    "steps", "max_steps" or "early". `notes`: what JSON can hold, for the loop to keep in
    checkpoints, such as how many validations in a row were not the best.
    """

    def __init__(self, root: Path, config: SessionSettings) -> None:
        refuse_missing_settings(config)
        set_determinism(config.determinism)
        set_threads(config.threads)
        self.root = root
        self.config: Any = config
        self.step = 0
        self.is_fresh = True
        self.finished = ""
        self.device = choose_device(config.device)
        self.processes = Processes(config.training.shards, self.device)
        self.seeds = ExperimentSeeds(**config.seeds.model_dump())
        self.facts: JsonObject | None = None
        self.notes: JsonObject = {}
        self.best: Best | None = None
        self._flags = flags()
        self._settings = config
        self._workers = config.num_workers
        self._registered: Registered | None = None
        self._plan: Plan | None = None
        self._current: Step | None = None  # that the author's part has
        self._is_stopping = False
        self.loop_frame: FrameType | None = None  # of the function that asked for the steps
        seed_generators(derive_seed(self.seeds.training, "session"))

    # What the author calls -----------------------------------------------------------------------

    def data(self, facts: Mapping[str, Any]) -> None:
        """Say what identifies the data: their digest is a condition of the training.

        `facts`: a JSON object, such as the SHA-256 of each file (repro.data.manifest.tree_digests).
        Comes before `register`.
        """
        self.facts = dict(facts)

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
    ) -> Iterator[Step]:
        """Yield the steps that are to be done; the loop calls `step.done` in each.

        `epochs` or `steps`: the length of the whole training; training.max_steps may cut it.
        `order(seed, epoch)`: the indices of an epoch (repro/training/sampling.py). `collate`: makes
        a shard's batch of its samples. Without a data set the loop brings its own batches
        (`step.take`). A step's `validate_now` is true after `validate_every` steps (an epoch).
        """
        wanted = Wanted(
            dataset, batch_size, epochs, steps, drop_last, order, collate, validate_every
        )
        self._plan = wanted.plan(self.seeds.training, self._settings.training.max_steps)
        self.loop_frame = sys._getframe(1)
        return self._loop(self._plan, self._known())

    def validated(self, **metrics: Number) -> bool:
        """Tell the numbers of a validation of the weights as they are; return if it is the best.

        Only the first process logs them; all bring the same. Comes after `step.done`.
        """
        if self._current and not self._current.is_done:
            raise UserError("session.validated came before step.done: a validation follows a step")
        numbers = {
            name: number_of("session.validated", name, value) for name, value in metrics.items()
        }
        self._log_validation(numbers)
        if self.best is None:
            return False
        best = self.best.after(numbers, self.step)
        improved = best is not self.best
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
        with self._known().evaluating():
            return chunks.rows(compute, self.seeds.evaluation, self._workers, self.processes)

    def stop(self) -> None:
        """End the training early, with this step as its last one; all processes call it alike."""
        self._is_stopping = True

    # What a mode does otherwise ------------------------------------------------------------------

    def _restore(self, known: Registered) -> None:
        """Put a checkpoint's state into what is registered, if there is one to go on from."""

    def _opened(self, plan: Plan) -> AbstractContextManager[range]:
        """Open what the loop writes to; give the steps that are to be done, counted from 0."""
        return nullcontext(range(self.step, plan.last))

    def _making(self, index: int) -> None:
        """Come before the batch of a step is made."""

    def _made(self, step: Step) -> None:
        """Come before the author's part of a step."""

    def _done(self, step: Step, numbers: dict[str, float]) -> None:
        """Take note of a step that the author has just done."""

    def _goes_on(self, step: Step) -> bool:
        """Tell, after the author's part of a step, whether the next one follows."""
        return not self._is_stopping

    def _log_validation(self, numbers: dict[str, float]) -> None:
        """Take note of a validation."""

    # What all modes share ------------------------------------------------------------------------

    @property
    def situation(self) -> Situation:
        """What a training here depends on; UserError before `data` was called."""
        config = self._settings
        if self.facts is None:
            raise UserError("session.data was not called: what a training depends on is not known")
        settings = config.bits_settings()
        device = self.device.type
        return conditions_here(self.root, settings, self.facts, config.profile, device)

    def state_dict(self) -> JsonObject | dict[str, Any]:
        """Return all that a checkpoint holds."""
        return {
            "config": self._settings.bits_settings(),
            "step": self.step,
            "steps": self._plan.last if self._plan else None,
            "finished": self.finished,
            "data": data_digest(self.facts or {}),
            "best": self.best.as_json() if self.best else None,
            "notes": self.notes,
            **self._known().state_dict(),
        }

    def _load(self, state: Mapping[str, Any]) -> None:
        """Put back what `state_dict` returned, to go on."""
        self._known().load(state)
        self.step = state["step"]
        self.finished = state.get("finished", "")
        self.notes = state.get("notes", {})
        if self.best and state["best"]:
            self.best = self.best.restored(state["best"])

    def _known(self) -> Registered:
        """Return what is registered; UserError if nothing is."""
        if self._registered is None:
            raise UserError(
                "nothing is registered: call session.register(model=..., optimizers=...) first"
            )
        return self._registered

    def _loop(self, plan: Plan, known: Registered) -> Iterator[Step]:
        """Yield the steps; what comes before and after the author's part of each is done here."""
        seed = self.seeds.training
        around = self.surroundings(plan)
        with self._opened(plan) as steps:
            batches = plan.batches(steps, self._workers, self.device, self.processes)
            for index in steps:
                self._making(index)
                step = new_step(index, plan, around, next(batches))
                known.train()
                known.model.zero_grad()  # gradients are in no checkpoint: a step has its own alone
                self._made(step)
                self._current = step
                seed_generators(derive_seed(seed, "step", index))
                yield step
                if not step.is_done:
                    raise UserError(
                        f"step {step.number} ended without step.done(loss=...): call it in each "
                        "step; to end a training early, call session.stop()"
                    )
                # For code that draws outside of steps and samples: the same in every process.
                seed_generators(derive_seed(seed, "after step", self.step))
                if not self._goes_on(step):
                    break

    def surroundings(self, plan: Plan) -> Surroundings:
        """Return what each step of a plan needs of this session."""
        here = (self._known(), self.processes, self.device, self.seeds.training)
        return Surroundings(*here, plan.schedule, self._finish_step)

    def _finish_step(self, step: Step, numbers: dict[str, float]) -> None:
        self.step = step.number
        self._done(step, numbers)

    @property
    def steps_per_epoch(self) -> int:
        """The number of steps of an epoch, once `steps` was called with a data set."""
        if self._plan is None or self._plan.schedule is None:
            raise UserError("session.steps was not called with a data set: there are no epochs")
        return self._plan.schedule.steps_per_epoch

    @property
    def bits(self) -> str:
        """The SHA-256 of the registered model's weights."""
        return weights_digest(self._known().model.state_dict())
