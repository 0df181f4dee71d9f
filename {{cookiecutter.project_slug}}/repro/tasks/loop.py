"""The training loop of a task, and its evaluation, on a session.

`train_task` is a whole training, to be read from top to bottom. An author who needs another loop
writes it on the same session (repro/runs/session.py), in experiment/train.py.
"""

import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import numpy as np
from torch import Tensor
from torch.optim import Optimizer
from torch.utils.data import Dataset

from repro.core.errors import UserError
from repro.core.hashing import derive_seed
from repro.runs.evaluation_session import EvaluationSession
from repro.runs.plan import sized
from repro.runs.registered import ONLY
from repro.runs.session import Session
from repro.tasks.author import datasets_of, preparation, task_class
from repro.tasks.outputs import Collected, Outputs
from repro.tasks.portable import refuse_other_bits
from repro.tasks.rates import Rates
from repro.tasks.samples import collate_of, samplers_of
from repro.tasks.task import Task
from repro.training.determinism import autocast, compile_in_place
from repro.training.rows import Chunks
from repro.training.seeding import seed_generators

_WORSE = "validations without a better one"  # a session's note


def train_task(session: Session) -> None:
    """Train the task of a session's project to its last step."""
    trained = TaskInSession(session)
    settings = session.config.training
    optimizers = trained.optimizers()
    rates = Rates(optimizers)
    trained.register(optimizers)
    train = trained.datasets["train"]
    if trained.task.validate_on:
        trained.dataset(trained.task.validate_on)  # now, and not when the first epoch has ended
    for step in session.steps(
        train,
        settings.batch_size,
        epochs=settings.epochs,
        steps=settings.steps,
        drop_last=settings.drop_last,
        collate=collate_of(train),
        validate_every=session.config.evaluation.every,
        **samplers_of(train),
    ):
        chosen = rates.set(trained.task.rate(step.index, session.steps_in_all))
        step.done(**numbers_of(trained.task.train_step(step), chosen))
        if step.validate_now and trained.task.validate_on:
            is_better = session.validated(**trained.validation())
            if lost_patience(session, is_better, settings.patience):
                session.stop()


def evaluate_task(session: EvaluationSession) -> dict[str, Any]:
    """Return the metrics of the task's test samples, and draw them."""
    trained = TaskInSession(session)
    trained.register({})
    outputs, metrics = trained.measured(trained.task.test_on)
    with session.evaluating():  # they may run the model, too
        for folder in session.figures:
            folder.mkdir(exist_ok=True)
            trained.task.figures(outputs, folder)
        details = trained.task.details(outputs)
    session.draw_curves()
    return {**metrics, **details}


class TaskInSession:
    """An author's task with its data, made in a session."""

    def __init__(self, session: Session) -> None:
        config = session.config
        self.session = session
        self.config = config
        source = preparation(session.root, config)
        prepared = session.first(source.read)
        session.data(prepared.manifest)
        self.datasets: Mapping[str, Dataset[Any]] = datasets_of(
            session.root, config, source, prepared
        )
        session.precision = config.training.precision
        with session.seeded("init"):
            self.task = made_task(task_class(session.root), config, prepared.facts)
        if session.is_fresh:
            self.task.initialize(self.datasets)
        self.task.model.to(session.device)
        self.task.clip = config.training.gradient_clip
        if config.training.compile:
            for name in self.task.compiled:
                compile_in_place(getattr(self.task, name))

    def optimizers(self) -> dict[str, Optimizer]:
        """Return the task's optimizers by name; UserError for those that are not portable."""
        optimizers = optimizers_from(self.task.optimizers())
        if self.config.profile == "portable" and self.session.device.type == "cpu":
            refuse_other_bits(optimizers)
        return optimizers

    def register(self, optimizers: Mapping[str, Optimizer]) -> None:
        """Register all that the training changes; no optimizers: to evaluate."""
        self.session.holders.append(self.task)
        self.session.register(
            model=self.task.model,
            optimizers=optimizers,
            state=self.task.state(),
            best=self.task.best if optimizers else None,
        )

    def dataset(self, split: str) -> Dataset[Any]:
        """Return a data set by its name; UserError if there is none."""
        if split not in self.datasets:
            raise UserError(
                f"there is no data set {split}: datasets() returns {', '.join(self.datasets)}; "
                "the task's validate_on and test_on name those that it takes"
            )
        return self.datasets[split]

    def validation(self) -> dict[str, float]:
        """Return the metrics of the validation samples."""
        assert self.task.validate_on
        return self.measured(self.task.validate_on)[1]

    def measured(self, split: str) -> tuple[Outputs, dict[str, float]]:
        """Return the outputs of a data set, and its metrics, the same in all processes."""
        session = self.session
        dataset = self.dataset(split)
        chunks = Chunks(
            dataset, sized(dataset), self.config.evaluation.batch_size, collate_of(dataset)
        )
        collected = Collected()
        with session.evaluating():
            for batch in chunks.batches(
                session.seeds.evaluation, self.config.num_workers, session.processes
            ):
                with autocast(session.device, session.precision):
                    collected.add(self.task.evaluate(batch))
            outputs = collected.joined(chunks.sizes(session.processes), session.processes)
            seed_generators(derive_seed(session.seeds.evaluation, "metrics", split))
            metrics = numbers_from("metrics", self.task.metrics(outputs))
        # Those of process 0: another one may be on another machine.
        first = session.processes.texts(json.dumps(metrics))[0]
        return outputs, dict(json.loads(first))


def made_task(kind: type[Any], config: Any, facts: Mapping[str, Any]) -> Task:
    """Make an author's task; UserError if it has no model."""
    task: Task = kind(config, facts)
    if not hasattr(task, "model"):
        raise UserError(
            f"{kind.__name__}(config, facts) has no self.model: expected one nn.Module that holds "
            "every network"
        )
    return task


def optimizers_from(made: object) -> dict[str, Optimizer]:
    """Return a task's optimizers by name; UserError for anything else."""
    if isinstance(made, Optimizer):
        return {ONLY: made}
    named = dict(made) if isinstance(made, Mapping) else {}
    if named and all(isinstance(each, Optimizer) for each in named.values()):
        return named
    raise UserError(
        f"optimizers() returned {made!r:.80}: expected an optimizer of torch's kind, or several in "
        "a dict by name"
    )


def numbers_of(step: object, rates: Mapping[str, float]) -> dict[str, float]:
    """Return the numbers of a step, the loss first, with its rates behind it."""
    numbers = numbers_from("train_step", step)
    if "loss" not in numbers:
        raise UserError(
            f"train_step returned {', '.join(numbers)}: expected a number called loss among them"
        )
    return {"loss": numbers["loss"], **rates, **numbers}


def numbers_from(method: str, given: object) -> dict[str, float]:
    """Return the numbers that a task's method gave, as floats; UserError for anything else."""
    if not isinstance(given, Mapping) or not given:
        raise UserError(
            f'{method} returned {given!r:.80}: expected numbers by name, such as {{"loss": 0.5}}'
        )
    return {str(name): _float(method, name, value) for name, value in given.items()}


def _float(method: str, name: object, value: Any) -> float:
    if isinstance(value, Tensor | np.generic):
        with suppress(RuntimeError, TypeError, ValueError):  # of several values
            return float(value.item())
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    raise UserError(f"{method}: {name} is {type(value).__name__}: expected one number")


def lost_patience(session: Session, is_better: bool, patience: int | None) -> bool:
    """Count the validations since the best one; tell if there were `patience` of them."""
    worse = 0 if is_better else int(session.notes.get(_WORSE, 0)) + 1  # type: ignore[arg-type]
    if patience is None:
        return False
    session.notes[_WORSE] = worse
    return worse >= patience
