"""What all modes of a session share: its settings, its state, and the loop around the steps.

repro/runs/session.py has what the author calls. A mode overrides what it does otherwise: where it
begins, what it writes, and whether it goes on.
"""

import sys
from collections.abc import Generator, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from pathlib import Path
from types import FrameType
from typing import Any, ClassVar

from repro.core.errors import UserError
from repro.core.files import JsonObject
from repro.core.hashing import derive_seed
from repro.data.manifest import data_digest
from repro.runs.conditions import (
    Situation,
    code_digests,
    conditions_here,
    conditions_on_disk,
)
from repro.runs.fingerprints import Quantities
from repro.runs.numbers import pending_of
from repro.runs.plan import Plan
from repro.runs.recheck import Recheck
from repro.runs.registered import Registered
from repro.runs.session_settings import SessionSettings, refuse_missing_settings
from repro.runs.sharded_trace import sharded_quantities
from repro.runs.step import Step, Surroundings, new_step
from repro.runs.trace import StepInputs, step_quantities
from repro.training.beside import MeansBeside
from repro.training.best import Best
from repro.training.determinism import flags, set_determinism, set_threads
from repro.training.engine import Joined, joined_with_whole_weights
from repro.training.model_state import weights_digest
from repro.training.packing import LoadedState, State
from repro.training.parallel import choose_device
from repro.training.part import own_tensors
from repro.training.pending import Pending
from repro.training.precision import precision_of, refuse_precision
from repro.training.seeding import ExperimentSeeds, seed_generators
from repro.training.workers import refuse_long_folder


class SessionBase:
    """The part of a session that an author does not call; see `Session`.

    `reads_late`: whether a mode can wait for the numbers of steps, so that a GPU does not.
    """

    reads_late: ClassVar[bool] = False

    reads_cache = False  # whether digests of an earlier training may stand for unchanged data

    def __init__(self, root: Path, config: SessionSettings) -> None:
        refuse_missing_settings(config)
        refuse_long_folder(config.num_workers)
        self.precision = precision_of(config)  # of losses and evaluations
        set_determinism(config.determinism, self.precision)
        set_threads(config.threads)
        self.root = root
        self.config: Any = config
        self._settings = config
        self.step = 0
        self.is_fresh = True
        self.finished = ""
        self.device = choose_device(config.device)
        self._check_precision()
        self.processes, self.engine, self._of_engine = self._joined()
        # At once: whoever edits the code while the data are prepared edits the next training's.
        self.code = code_digests(root, self.processes)
        self._on_disk = conditions_on_disk(root, self.code, config.bits_settings())
        self.seeds = ExperimentSeeds(**config.seeds.model_dump())
        self.facts: JsonObject | None = None
        self.notes: JsonObject = {}
        self.best: Best | None = None
        self.holders: list[object] = []  # whose attributes are looked at as variables are
        self._flags = flags()
        self._workers = config.num_workers
        self._registered: Registered | None = None
        self._plan: Plan | None = None
        self._pending: Pending | None = None  # numbers of a GPU that are not read yet
        self._current: Step | None = None  # that the author's part has
        self._is_stopping = False
        self._is_over = False  # whether the loop has ended
        self.was_asked = False  # whether SIGTERM has ended it
        self._ignored: list[object] = [self]  # where nothing is looked for that has to be kept
        self._steps: Generator[Step, None, None] | None = None
        self.loop_frame: FrameType | None = None  # of the function that asked for the steps
        seed_generators(derive_seed(self.seeds.training, "session"))

    # What a mode does otherwise ------------------------------------------------------------------

    def tell(self, line: str) -> None:
        """Say something about the training that begins; modes that are no training do not."""

    def _check_precision(self) -> None:
        """Raise UserError if the device cannot compute in the precision that was asked for."""
        refuse_precision(self.precision, self.device)

    def _joined(self) -> Joined:
        """Let the processes meet. Modes that do not train hold whole weights."""
        return joined_with_whole_weights(self._settings.training, self.device)

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

    def _recheck(self) -> Recheck:
        """Return what says which steps compute their losses twice: by itself none."""
        return Recheck(None, self._known(), None)

    def _log_validation(self, numbers: dict[str, float]) -> None:
        """Take note of a validation."""

    def check_samples(self, folder: Path) -> None:
        """Read all samples of the tar files of the data, if a mode is for that."""

    def evaluated_samples(self, samples: int, chunk: int) -> int:
        """Return how many of the samples of a task's data set are evaluated."""
        return samples

    # What all modes share ------------------------------------------------------------------------

    @property
    def situation(self) -> Situation:
        """What a training here depends on; UserError before `data` was called."""
        config = self._settings
        if self.facts is None:
            raise UserError("session.data was not called: what a training depends on is not known")
        settings = config.bits_settings()
        device = self.device.type
        found = conditions_here(
            self.root, settings, self.facts, config.profile, device, self._on_disk
        )
        return found.with_environment(self._of_engine)

    def state_dict(self) -> LoadedState:
        """Return all that a checkpoint holds; of what is sharded, the rows of this process."""
        state = self.saved_state()
        return dict(own_tensors(state)) if self.engine.is_sharded else state

    def saved_state(self) -> LoadedState:
        """Return all that a checkpoint holds; of what is sharded, a `Part`."""
        return {
            "config": self._settings.bits_settings(),
            "step": self.step,
            "steps": self._plan.last if self._plan else None,
            "finished": self.finished,
            "data": data_digest(self.facts or {}),
            "on_disk": self._on_disk.as_json(),
            "best": self.best.as_json() if self.best else None,
            "notes": self.notes,
            **self.engine.parts(self._known().state_dict()),
        }

    def _registered_state(self) -> LoadedState:
        """Return the state of what is registered; of what is sharded, the rows of this process."""
        state = self._known().state_dict()
        return dict(own_tensors(self.engine.parts(state))) if self.engine.is_sharded else state

    def _load(self, state: State) -> None:
        """Put back what `state_dict` returned, placed as the engine has it, to go on."""
        self._known().load(state)
        self.step = state["step"]
        self.finished = state.get("finished", "")
        self.notes = state.get("notes", {})
        if self.best and state.get("best"):
            self.best = self.best.restored(state["best"])

    def _known(self) -> Registered:
        """Return what is registered; UserError if nothing is."""
        if self._registered is None:
            raise UserError(
                "nothing is registered: call session.register(model=..., optimizers=...) first"
            )
        return self._registered

    def _loop(self, plan: Plan, known: Registered) -> Generator[Step, None, None]:
        """Yield the steps; what comes before and after the author's part of each is done here."""
        seed = self.seeds.training
        around = self.surroundings(plan)
        with (
            self._opened(plan) as steps,
            self._reading(),
            # Closed first: data workers hold what they were forked with, such as a tracker's pipe.
            closing(plan.batches(steps, self._workers, self.device, self.processes)) as batches,
        ):
            for index in steps:
                self._making(index)
                step = new_step(index, plan, around, next(batches))
                known.train()
                known.clear_gradients()  # they are in no checkpoint: a step has its own alone
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
            self._is_over = True

    def finish(self) -> None:
        """Do what follows the last step, where the loop has not come back for a next one.

        A loop within a loop returns from its last step, and so do the loops of frameworks.
        """
        is_last = self._plan is not None and self.step == self._plan.last
        step = self._current
        if self._steps and step and step.is_done and (is_last or self._is_stopping):
            next(self._steps, None)

    def close(self) -> None:
        """Close what the loop writes to, also where an error of the author's has ended it."""
        if self._pending:
            self._pending.give_up_after(sys.exception())
        if self._steps:
            self._steps.close()

    def surroundings(self, plan: Plan) -> Surroundings:
        """Return what each step of a plan needs of this session."""
        if self.reads_late and not self._pending:
            quiet = self.processes.rank > 0
            self._pending = pending_of(self.device, self._known().optimizers, quiet)
        return Surroundings(
            self._known(),
            self.processes,
            self.device,
            self.seeds.training,
            plan.schedule,
            self._finish_step,
            MeansBeside(self.processes),
            self._recheck(),
            self.precision,
            self._pending,
            engine=self.engine,
        )

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """Read what is not read yet when the loop ends, also by an error, and tell it.

        What an earlier step tells may be what led to the error: it is raised then, and not that.
        """
        try:
            yield
        finally:
            if self._pending:
                self._pending.close(sys.exception())

    def read_numbers(self) -> None:
        """Read the numbers of all steps that are done, before what has to follow from them."""
        if self._pending:
            self._pending.drain()

    def quantities(
        self, step: Step, numbers: dict[str, float], asked: bool = False
    ) -> tuple[Quantities | None, bool]:
        """Return what the trace says of a step, in process 0; and if any was `asked` to end."""
        inputs = StepInputs(step.indices, step.loaded, step.size)
        model = self._known().model
        arriving = step.late.arriving if step.late else None
        taken = sharded_quantities if self.engine.is_sharded else step_quantities
        return taken(model, inputs, self.processes, numbers, asked, step.gradients_of, arriving)

    def _finish_step(self, step: Step, numbers: dict[str, float]) -> None:
        self.step = step.number
        self._done(step, numbers)

    @property
    def bits(self) -> str:
        """The SHA-256 of the registered model's weights; all processes ask alike."""
        return weights_digest(self._known().model.state_dict(), self.engine.whole)
