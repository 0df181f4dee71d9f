"""Train in a run's folder: resume, trace, metrics, checkpoints, and an end in good order.

Promises that the files of a run are the same bytes whether the training was stopped or not, and
that process 0 alone writes them. A training that SIGTERM ends has saved its last step.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from pathlib import Path

from repro.core import layout
from repro.core.checked_code import imported_otherwise
from repro.core.errors import refuse
from repro.core.files import write_json
from repro.core.progress import Advance, progress
from repro.core.project import RESUME_CHANGED_CODE, RESUME_OTHER_PROCESSES
from repro.runs.conditions import Facts
from repro.runs.continued import (
    code_in_contexts,
    differences_of_code,
    differences_of_processes,
    refuse_other_run,
    refuse_other_training,
    trained_with,
)
from repro.runs.fingerprints import Quantities
from repro.runs.folder import Run, agreed_start, open_run
from repro.runs.numbers import Number
from repro.runs.plan import Plan
from repro.runs.recheck import Recheck, StepKeeper
from repro.runs.registered import Registered
from repro.runs.restarts import Restarts
from repro.runs.saved_state import load_state
from repro.runs.session import Session
from repro.runs.session_settings import SessionSettings
from repro.runs.sharded_trace import start_of_parts
from repro.runs.step import Step
from repro.runs.trace import Trace
from repro.runs.unregistered import Unregistered
from repro.training import checkpoint
from repro.training.determinism import flags, refuse_changed_flags
from repro.training.engine import Joined, joined_to_train
from repro.training.interruption import Interruption, mark
from repro.training.packing import LoadedState
from repro.training.part import own_tensors
from repro.training.unsaved import refuse_not_restored

# Shows a run, whose folder it gets, for as long as the block lasts.
Listener = Callable[[Path], AbstractContextManager[None]]
# Parts of a state that another start may change: where the training ends, and what code it has.
_OF_THIS_START = ("finished", "steps", "on_disk")


class TrainingSession(Session):
    """A session that trains, in a new run or in one that it takes up again.

    `run`: None until the loop begins, and in all processes but the first. `was_asked`: whether
    SIGTERM ended the loop.
    """

    reads_cache = True
    reads_late = True
    rehearses = True

    def __init__(self, root: Path, config: SessionSettings, listener: Listener) -> None:
        super().__init__(root, config)
        self.run: Run | None = None
        self.start = agreed_start(root, config, self.processes)
        self.restarts = Restarts(root, config, self.start, self.processes)
        self.is_fresh = self.start is None
        self._listener = listener
        self._interruption: Interruption | None = None
        self._trace: Trace | None = None
        self._reach: Callable[[int], None] | None = None  # notes a step as done
        self._advance: Advance | None = None
        self._unregistered: Unregistered | None = None
        self._improved = False
        self._asked = False
        self._first = 0
        self._last_loss = 0.0
        self.step_keeper: StepKeeper | None = None  # of steps that came out otherwise
        self._changed: list[str] = []  # since the checkpoint, and the user asked for it

    def _joined(self) -> Joined:
        return joined_to_train(self._settings.training, self.device)

    def tell(self, line: str) -> None:
        if self.processes.rank == 0:
            print(line, flush=True)

    def validated(self, **metrics: Number) -> bool:
        improved = super().validated(**metrics)
        self._improved = self._improved or improved
        return improved

    def _restore(self, known: Registered) -> None:
        config = self._settings
        if self.start is None:
            if config.resume == "auto" and config.run_dir:
                refuse_other_run(self.root / config.run_dir, config.bits_settings())
            return
        state = self._loaded(self.start)
        old = trained_with({"on_disk": code_in_contexts(self.start), **state})
        new = trained_with(self.state_dict())
        # A loop of one's own has these settings if its config has them.
        changed_code = getattr(config, RESUME_CHANGED_CODE, False) is True
        other_processes = getattr(config, RESUME_OTHER_PROCESSES, False) is True
        refuse_other_training(old, new, self.start, changed_code, other_processes)
        self._changed = [
            f"with other code than before, so this is a run of other code: {line}"
            for line in differences_of_code(old, new)
        ]
        if others := differences_of_processes(old, new):
            self._changed.append(f"it had {others}, so this is a run of other bits")
        placed = self.engine.placed(known, state)
        self._load(placed)
        loaded = {name: part for name, part in placed.items() if name not in _OF_THIS_START}
        loaded = own_tensors(self.engine.parts(loaded))
        refuse_not_restored(loaded, self.state_dict(), self.start)

    def _loaded(self, start: Path) -> LoadedState:
        """Return the state of a checkpoint; a fault that one process finds is one of all."""
        return self.processes.together(partial(load_state, start, self.engine.load))

    @contextmanager
    def _opened(self, plan: Plan) -> Iterator[range]:
        last = plan.last
        if self.finished == "early" or self.step >= last:
            self.finished = self.finished or "max_steps"
            if self.start:  # what a full disk, or a kill, left undone
                self.engine.finish(self._last_and_best(self.start.parent))
            yield range(0)
            return
        edited = imported_otherwise(self.root, self._on_disk.code)
        refuse([f"{name} was edited while this command started: start it again" for name in edited])
        self.engine.refuse_sizes(plan.smallest)
        self.finished = ""
        self._first = self.step + 1
        self._unregistered = Unregistered(
            self._ignored, self.loop_frame, self._registered_state(), self.holders
        )
        self.loop_frame = None  # it holds the author's variables
        self._interruption = Interruption()
        self.processes.wait()  # until all have read what the first one is going to change
        shown = progress("training", last, self.step, lines=False, quiet=self.processes.rank > 0)
        with self._writing() as self._trace, shown as self._advance:
            yield range(self.step, last)
            self._unregistered = None  # it holds the author's variables
            self._end()

    @contextmanager
    def _writing(self) -> Iterator[Trace | None]:
        """Open the run's folder and its trace; in all processes but the first, nothing."""
        first = self._first_quantities()
        run = self.run = self.processes.alone(self._open_run)
        if run is None:
            with self.restarts.attempt(self.step) as self._reach:
                yield None
            return
        config = self._settings
        if self.start:
            self._name_checkpoints(run)
            print(f"resuming after step {self.step}")
            for line in self._changed:
                print(line)
        facts = Facts(self.situation, flags(), config.seed, config.seeds.model_dump())
        run.describe(self.root, config.model_dump(mode="json"), facts, self.step)
        write_json(run.folder / layout.DATA_FACTS, self.facts)
        tracing: AbstractContextManager[Trace | None] = nullcontext()
        if config.output.trace:
            tracing = Trace(run.folder, facts, self._known().model, self.step, first)
        attempt = self.restarts.attempt(self.step, run.folder)
        with attempt as self._reach, self._listener(run.folder), tracing as trace:
            yield trace

    def _open_run(self) -> Run:
        """Open the run's folder, last of all: what was refused before leaves nothing behind."""
        run = open_run(self.root, self._settings, self.start)
        run.begin(self.step)
        self.restarts.begin(run.folder)
        return run

    def _first_quantities(self) -> Quantities | None:
        """Return what the trace says of the start, where no process has all of the weights."""
        if not self.engine.is_sharded or not self._settings.output.trace:
            return None
        found = start_of_parts(self._known().model, self.processes)
        return lambda: found

    def _end(self) -> None:
        """Leave the marker of a training that SIGTERM has ended."""
        if self.run and self.was_asked:
            mark(self.run.folder, self.step)

    def _recheck(self) -> Recheck:
        # A loop of one's own has the setting if its config has it.
        every = getattr(self._settings.training, "recheck_every", None)
        return Recheck(every, self._known(), self.step_keeper)

    def _done(self, step: Step, numbers: dict[str, float]) -> None:
        assert self._interruption
        assert self._advance
        step.around.recheck.refuse_unseen(step.number, step.losses)
        if step.number == self._first:
            step.is_awaited = True
            step.when_read(self._refuse_unregistered)
        self._advance(1)
        if self._reach:
            self._reach(step.number)
        asked = self._interruption.asked
        quantities = None
        if self._settings.output.trace:
            quantities, asked = self.quantities(step, numbers, asked)
        else:
            asked = bool(self.processes.total([asked])[0])
        self._asked = asked
        self._improved = False
        step.when_read(lambda: self._log(step.number, numbers, quantities))

    def _log(self, number: int, numbers: dict[str, float], quantities: Quantities | None) -> None:
        """Log a step whose numbers were read."""
        if self._trace and quantities:
            self._trace.log(number, quantities)
        if self.run and number % self._settings.output.log_every == 0:
            self.run.log({"step": number, **numbers})
        self._last_loss = numbers["loss"]

    def _refuse_unregistered(self) -> None:
        if self._unregistered:
            self._unregistered.refuse_changed(self._registered_state())

    def _goes_on(self, step: Step) -> bool:
        plan = self._plan
        assert plan
        last = plan.last
        if step.number == plan.total:
            self.finished = "steps"
        elif self._is_stopping:  # also where training.max_steps ends it: nothing is left to do
            self.finished = "early"
        elif step.number == last:
            self.finished = "max_steps"
        self.was_asked = self._asked and not self.finished
        is_saved = self._improved or self.was_asked or self._checkpoint_is_due(plan)
        if is_saved:
            self.read_numbers()  # in all processes: a number that is not finite ends all
        if is_saved and (self.run or self.engine.is_sharded):
            self._save(self.run)
        if self.run and self.finished:
            print(f"step {self.step}/{last}  loss {self._last_loss:.4f}")
        return not self.was_asked and not self.finished

    def _checkpoint_is_due(self, plan: Plan) -> bool:
        """Tell whether a checkpoint follows the step just done, whatever the step brought."""
        every = self._settings.output.checkpoint_every or plan.validate_every
        return self.step % every == 0 or bool(self.finished)

    def _save(self, run: Run | None) -> None:
        """Write the checkpoint of the current step, after the trace's lines that lead to it.

        `run`: None in all processes but the first; they write their parts, where there are some.
        """
        if self._trace:
            self._trace.flush()
        refuse_changed_flags(self._flags)
        self._refuse_unregistered()
        self.engine.save(run.checkpoints if run else None, self.step, self.saved_state())
        if run:
            self._name_checkpoints(run)
            best = self.best.step if self.best else 0
            keep = self._settings.output.keep_checkpoints
            checkpoint.prune(run.checkpoints, keep, self.step, best)
        if self.finished:
            self.engine.finish(self._last_and_best(run.checkpoints) if run else [])

    def _last_and_best(self, checkpoints: Path) -> list[Path]:
        """Return the checkpoints that a training keeps at its end, as far as they are there."""
        steps = [self.step, self.best.step if self.best else 0]
        folders = [layout.step_folder(checkpoints, step) for step in dict.fromkeys(steps)]
        return [folder for folder in folders if folder.is_dir()]

    def _name_checkpoints(self, run: Run) -> None:
        """Let `last` and `best` point to their checkpoints."""
        best = self.best.step if self.best else 0
        run.name_checkpoints({layout.LAST: self.step, layout.BEST: best})

    def _log_validation(self, numbers: dict[str, float]) -> None:
        """Log a validation and print it, with the time that is left."""
        plan = self._plan
        if self.run is None or plan is None:
            return
        epoch = plan.epoch(self.step)
        of_epoch: dict[str, int] = {} if epoch is None else {"epoch": epoch}
        self.run.log({"step": self.step, **of_epoch, "split": "validation", **numbers})
        place = f"step {self.step}/{plan.last}"
        if epoch is not None:
            place = f"epoch {epoch:3}/{plan.epochs}  {place}"
        told = "  ".join(f"{name} {value:.4f}" for name, value in numbers.items())
        left = f"  {self._advance.left} left" if self._advance and self.step < plan.last else ""
        print(f"{place}  validation {told}{left}", flush=True)
