"""Do one step of a run again, as it was, and tell every operation of it.

The state comes from the run's newest checkpoint before that step, or from the beginning; the steps
between are repeated and compared with the run's trace. Fresh memory is filled with NaN meanwhile,
so an operation that reads what nobody wrote betrays itself. Nothing of the run is changed.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf

from repro import environment
from repro.core import layout
from repro.core.errors import UserError
from repro.core.files import JsonObject
from repro.core.progress import progress
from repro.diagnosis.author import Config, Trainer, loader_of, trainer_class_of
from repro.diagnosis.step_file import StepRecord
from repro.runs.conditions import conditions_on_disk, differences
from repro.runs.logs import RunTrace, TraceLine, header_at, read_trace

if TYPE_CHECKING:
    from torch import Tensor

    from repro.diagnosis.operations import Recorder


def config_of_run(root: Path, run: Path) -> Config:
    """Read the config of a run, validated by the author's own class."""
    used = run / layout.CONFIG_USED
    if not used.is_file():
        raise UserError(f"{run} is no run: it has no {layout.CONFIG_USED}")
    values: Any = OmegaConf.to_container(OmegaConf.load(used))
    return loader_of(root).revive(values | {"run_dir": None, "resume": None})


def trace_step(root: Path, run: Path, step: int, keep: int | None = None) -> StepRecord:
    """Do step `step` of `run` again (1 is the first; 0: what comes before it) and record it.

    `keep`: the number of an operation whose output tensors the record shall keep. Starts the
    interpreter anew to put the run's profile in force.
    """
    config = config_of_run(root, run)
    environment.enter(config.profile, config.threads)
    from repro.diagnosis.operations import Recorder

    trace = read_trace(run)
    if step not in trace.lines:
        steps = f"steps {min(trace.lines)} to {max(trace.lines)}"
        raise UserError(f"--step {step}: the trace of {run} has {steps}")
    new_trainer = partial(trainer_class_of(root), config)
    replay = _Replay(new_trainer, trace, Recorder(root, layout.USER_CODE, keep))
    header = header_at(trace.headers, step)
    changed = _changed_since(root, header)
    line = replay.training_step(run, step) if step else replay.start()
    return StepRecord(
        run=run.name,
        step=step,
        header=header,
        changed=changed,
        recorded=trace.lines[step],
        samples=replay.samples,
        parted=replay.parted,
        line=line,
        operations=replay.recorder.operations,
        kept=replay.recorder.kept,
    )


def _changed_since(root: Path, header: JsonObject) -> list[str]:
    """Say in words what of code, lock and packages is not as it was under a trace's header."""
    now = conditions_on_disk(root).as_json()
    recorded = header.get("conditions")
    conditions = recorded if isinstance(recorded, dict) else {}
    return differences({name: conditions.get(name) for name in now}, now)


class _Replay:
    """One replay: `samples` of the step, and `parted`, the first step that came out otherwise."""

    def __init__(
        self, new_trainer: Callable[[], Trainer], trace: RunTrace, recorder: "Recorder"
    ) -> None:
        self.recorder = recorder
        self.samples: list[int] | None = None
        self.parted: int | None = None
        self._new_trainer = new_trainer
        self._trace = trace

    def start(self) -> TraceLine:
        """Record what comes before the first step; return the trace's line of it."""
        from repro.runs.fingerprints import state_quantities

        with self.recorder.recording():
            trainer = self._new_trainer()
            trainer.initialize()
        quantities = state_quantities(trainer.model, gradients=False)
        return self._compared(TraceLine(0, quantities()))

    def training_step(self, run: Path, step: int) -> TraceLine:
        """Repeat what leads to a step, record the step, and return the trace's line of it."""
        trainer = self._new_trainer()
        self._restore(trainer, run, step)
        if trainer.step + 1 < step:
            self._repeat(trainer, step - 1)
        return self._compared(self._record(trainer, step))

    def _restore(self, trainer: Trainer, run: Path, step: int) -> None:
        """Load the newest whole checkpoint of fewer than `step` steps, or begin as the run did."""
        from repro.training import checkpoint

        checkpoints = run / layout.CHECKPOINTS
        for folder in layout.steps_newest_first(checkpoints):
            before = folder < layout.step_folder(checkpoints, step)
            if before and checkpoint.find_fault(folder) is None:
                trainer.load_state_dict(checkpoint.load(folder))
                return
        trainer.initialize()

    def _repeat(self, trainer: Trainer, last: int) -> None:
        """Do the steps up to `last` again, and compare each with the trace."""
        with progress("repeating steps", last, trainer.step, lines=False) as advance:
            for indices, batch in trainer.steps(range(trainer.step, last)):
                metrics = trainer.train_step(trainer.step, batch)
                trainer.step += 1
                self._compared(_line(trainer, indices, batch, metrics))
                advance(1)

    def _record(self, trainer: Trainer, step: int) -> TraceLine:
        """Do one step with every operation recorded."""
        import torch
        from torch.optim import optimizer as optimizers

        recorder = self.recorder
        torch.utils.deterministic.fill_uninitialized_memory = True  # type: ignore[attr-defined]
        recorder.name(trainer.model)

        def optimizing(*_: object) -> None:
            recorder.name(trainer.model, gradients=True)
            recorder.phase = "optimizer"

        hook = optimizers.register_optimizer_step_pre_hook(optimizing)  # of all the author's
        with recorder.recording():
            recorder.phase = "data"
            indices, batch = next(iter(trainer.steps(range(step - 1, step))))
            recorder.phase = "forward"
            self.samples = indices.tolist()
            try:
                metrics = trainer.train_step(step - 1, batch)
            except UserError:  # a loss that is not finite: what led to it is told all the same
                metrics = None
        hook.remove()
        trainer.step = step
        if metrics is None:
            return TraceLine(step, {})
        return _line(trainer, indices, batch, metrics)

    def _compared(self, line: TraceLine) -> TraceLine:
        """Return a line as it is, and note its step if it is the first that the trace has not."""
        recorded = self._trace.lines.get(line.step)
        if self.parted is None and recorded not in (None, line):
            self.parted = line.step
        return line


def _line(
    trainer: Trainer,
    indices: "Tensor",
    batch: "list[Any]",
    metrics: dict[str, float],
) -> TraceLine:
    """Return the trace's line of the step just done; empty with output.trace=false."""
    quantities, _ = trainer.quantities(indices, batch, metrics)
    return TraceLine(trainer.step, quantities() if quantities else {})
