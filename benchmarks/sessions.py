"""Do steps of a project's own trainer in a session that keeps no run, for the benchmarks.

Imported once the profile is in force and the project's folder can be imported from.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from experiment.config import ROOT
from experiment.trainer import BEST, Trainer
from repro.runs.conditions import Conditions, DatasetFacts, Facts, Situation
from repro.runs.session import Session
from repro.runs.step import Step
from repro.runs.trace import StepInputs, Trace, step_quantities
from repro.training.loading import IndexedBatch

# What a run depends on is not written here: the times are all that is asked for.
NOTHING = Situation(Conditions({}, {}, "", {}, "", {}), "", DatasetFacts())
FACTS = Facts(NOTHING, flags={}, seed=0, seeds={})


class BenchSession(Session):
    """A session that may write a trace, and nothing else."""

    trace: Trace | None = None

    def _done(self, step: Step, numbers: dict[str, float]) -> None:
        if self.trace:
            inputs = StepInputs(step.indices, step.loaded, step.size)
            model = self._known().model
            quantities, _ = step_quantities(model, inputs, self.processes, numbers, False)
            assert quantities
            self.trace.log(step.number, quantities)


class Bench:
    """A trainer in a session; `steps` are those of as many epochs as one asks for."""

    def __init__(self, config: Any, epochs: int = 1) -> None:
        self.session = BenchSession(ROOT, config)
        self.trainer = Trainer(self.session)
        self.session.register(
            model=self.trainer.model, optimizers=self.trainer.optimizer, best=BEST
        )
        training = config.training
        self.steps: Iterator[Step] = self.session.steps(
            self.trainer.data.train,
            training.batch_size,
            epochs=epochs,
            drop_last=training.drop_last,
        )
        assert self.session._plan
        self.plan = self.session._plan
        self._around = self.session.surroundings(self.plan)
        self.trainer.model.train()

    def batches(self, steps: range) -> list[IndexedBatch]:
        """The batches of some steps, made before."""
        session = self.session
        made = self.plan.batches(steps, 0, session.device, session.processes)
        return [batch for batch in made if batch]

    def step(self, index: int, made: IndexedBatch, size: int) -> Step:
        """A step with a batch of `size` samples that was made before."""
        return Step(index, self._around, 0, False, made.shards, made.shards, made.indices, size)

    def train(self, step: Step) -> None:
        """Do a step as the project's loop does."""
        step.done(**self.trainer.train_step(step))

    def trace_into(self, folder: Path) -> Trace:
        """Return a trace that is written into a folder."""
        return Trace(folder, FACTS, self.trainer.model, 0)
