"""Do one step of a run again by the author's own function, and record every operation of it.

The session begins at the newest checkpoint before the step, or from the start, repeats the steps
between and compares each with the run's trace. Then it ends the author's function.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import torch
from torch.optim import optimizer as optimizers

from repro.core import layout
from repro.core.errors import UserError
from repro.core.progress import Advance, progress
from repro.diagnosis.operations import Recorder
from repro.runs.fingerprints import state_quantities
from repro.runs.logs import TraceLine
from repro.runs.noticed import has_compiled
from repro.runs.plan import Plan
from repro.runs.registered import Registered
from repro.runs.saved_state import load_state
from repro.runs.session import Session
from repro.runs.session_settings import SessionSettings
from repro.runs.sharded_trace import start_of_parts
from repro.runs.step import Step
from repro.training import checkpoint
from repro.training.engine import Joined, joined_to_train
from repro.training.regions import regions_asked, watching_regions


class _Replayed(BaseException):  # an author's `except Exception` is not to take it
    """The step has been done again."""


class ReplaySession(Session):
    """A session that repeats `run` up to step `target` (0: what comes before the first step).

    `lines`: what the trace would say of each step that was done. `samples`: those of the target.
    """

    def __init__(
        self, root: Path, config: SessionSettings, run: Path, target: int, recorder: Recorder
    ) -> None:
        super().__init__(root, config)
        self.run = run
        self._workers = 0  # operations are recorded in this process
        self.target = target
        self.recorder = recorder
        self.lines: list[TraceLine] = []
        self.start = self._find_start()
        self.is_fresh = self.start is None
        self.samples: list[int] | None = None
        self.has_begun = False  # whether the target is being done
        self._recording = ExitStack()
        self._advance: Advance | None = None

    def replay(self, train: Callable[[Session], object]) -> list[TraceLine]:
        """Call the author's function until the target is done; return the lines of all steps.

        The target's line is the last one. It is empty for a loss that is not finite.
        """
        try:
            with self._recording, regions_asked():
                if not self.target:
                    self._recording.enter_context(self.recorder.recording())
                train(self)
        except _Replayed:
            return self.lines
        except UserError:  # a loss that is not finite: what led to it is told all the same
            if not self.has_begun:
                raise
            return [*self.lines, TraceLine(self.target, {})]
        finally:
            self.close()
        raise UserError(
            f"train(session) ended before step {self.target}: it does other steps than the run had"
        )

    def _joined(self) -> Joined:
        return joined_to_train(self._settings.training, self.device)

    def _find_start(self) -> Path | None:
        """Return the newest whole checkpoint of fewer steps than the target; None without any."""
        checkpoints = self.run / layout.CHECKPOINTS
        for folder in layout.steps_newest_first(checkpoints):
            before = folder < layout.step_folder(checkpoints, self.target)
            if before and checkpoint.find_fault(folder) is None:
                return folder
        return None

    def _restore(self, known: Registered) -> None:
        if self.start:
            self._load(self.engine.placed(known, load_state(self.start, self.engine.load)))
            self.finished = ""

    @contextmanager
    def _opened(self, plan: Plan) -> Iterator[range]:
        model = self._known().model
        if not self.target:
            self._recording.close()
            if self.engine.is_sharded:
                found = start_of_parts(model, self.processes)
            else:
                found = state_quantities(model, gradients=False)()
            self.lines.append(TraceLine(0, found))
            raise _Replayed
        last = max(self.step, self.target - 1)
        quiet = self.processes.rank > 0
        shown = progress("repeating steps", last, self.step, lines=False, quiet=quiet)
        with shown as self._advance:
            yield range(self.step, min(self.target, plan.total))

    def _making(self, index: int) -> None:
        if index + 1 != self.target:
            return
        self.has_begun = True
        torch.utils.deterministic.fill_uninitialized_memory = True  # type: ignore[attr-defined]
        recorder = self.recorder
        model = self._known().model
        recorder.name(model)

        def optimizing(*_: object) -> None:
            recorder.name(model, gradients=True)
            recorder.phase = "optimizer"

        hook = optimizers.register_optimizer_step_pre_hook(optimizing)  # of all the author's
        self._recording.callback(hook.remove)
        self._recording.enter_context(watching_regions(recorder.region))
        self._recording.enter_context(recorder.recording(follow=not has_compiled(model)))
        recorder.phase = "data"

    def _made(self, step: Step) -> None:
        if step.number == self.target:
            self.recorder.phase = "forward"
            self.samples = step.indices.tolist()

    def _done(self, step: Step, numbers: dict[str, float]) -> None:
        if step.number == self.target:
            self._recording.close()
        quantities = None
        if self._settings.output.trace:
            quantities, _ = self.quantities(step, numbers)
        self.lines.append(TraceLine(step.number, quantities() if quantities else {}))
        if step.number == self.target:
            raise _Replayed
        if self._advance:
            self._advance(1)
