"""Do steps of a project's own task in a session that keeps no run, for the benchmarks.

Imported once the profile is in force and the project's folder can be imported from.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from experiment.config import ROOT
from repro.runs.conditions import Conditions, DatasetFacts, Facts, Situation
from repro.runs.numbers import LateStep, Number
from repro.runs.session import Session
from repro.runs.step import Step
from repro.runs.trace import Trace
from repro.tasks.rates import Rates
from repro.tasks.reading import numbers_of
from repro.tasks.samples import collate_of, samplers_of
from repro.tasks.task_in_session import TaskInSession
from repro.training.loading import IndexedBatch

# What a run depends on is not written here: the times are all that is asked for.
NOTHING = Situation(Conditions({}, {}, "", "", {}), "", DatasetFacts())
FACTS = Facts(NOTHING, flags={}, seed=0, seeds={})


MANY = 10_000_000  # steps


class BenchSession(Session):
    """A session that may write a trace, and nothing else."""

    reads_late = True
    trace: Trace | None = None

    def _done(self, step: Step, numbers: dict[str, float]) -> None:
        trace = self.trace
        if trace:
            quantities, _ = self.quantities(step, numbers)
            assert quantities
            step.when_read(partial(trace.log, step.number, quantities))


class Bench:
    """A task in a session; there are more `steps` than anybody takes."""

    def __init__(self, config: Any) -> None:
        self.session = BenchSession(ROOT, config)
        trained = TaskInSession(self.session)
        self.task = trained.task
        self.data = trained.datasets["train"]
        optimizers = trained.optimizers()
        (self.optimizer,) = optimizers.values()
        self._rates = Rates(optimizers)
        trained.register(optimizers)
        training = config.training
        self.steps: Iterator[Step] = self.session.steps(
            self.data,
            training.batch_size,
            steps=MANY,
            drop_last=training.drop_last,
            collate=collate_of(self.data),
            **samplers_of(self.data),
        )
        assert self.session._plan
        self.plan = self.session._plan
        self._around = self.session.surroundings(self.plan)
        self.task.model.train()

    def batches(self, steps: range) -> list[IndexedBatch]:
        """The batches of some steps, made before."""
        session = self.session
        made = self.plan.batches(steps, 0, session.device, session.processes)
        return [batch for batch in made if batch]

    def step(self, index: int, made: IndexedBatch, size: int) -> Step:
        """A step with a batch of `size` samples that was made before."""
        around = self._around
        step = Step(index, around, 0, False, made.shards, made.shards, made.indices, size)
        if around.pending:
            step.late = LateStep(around.pending, self.plan.schedule, index)
        return step

    def train(self, step: Step) -> None:
        """Do a step as the kit's loop does."""
        step.done(**self.numbers(step))

    def numbers(self, step: Step) -> dict[str, Number]:
        """Do a step up to its numbers, the rates among them."""
        rates = self._rates.set(self.task.rate(step.index, self.session.steps_in_all))
        return numbers_of(self.task.train_step(step), rates)

    def trace_into(self, folder: Path) -> Trace:
        """Return a trace that is written into a folder."""
        return Trace(folder, FACTS, self.task.model, 0)
