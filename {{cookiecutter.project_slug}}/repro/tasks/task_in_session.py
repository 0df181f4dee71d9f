"""An author's task with its data in a session: made, registered, measured.

Promises that a task has the same weights, rates and metrics in every process, and that whatever it
draws while it is measured follows from seeds.evaluation.
"""

import inspect
import json
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch.optim import Optimizer
from torch.utils.data import Dataset

from repro.core.errors import UserError
from repro.core.files import JsonObject
from repro.core.hashing import derive_seed
from repro.runs.evaluation_session import given_as_json
from repro.runs.plan import sized
from repro.runs.registered import ONLY
from repro.runs.session import Session
from repro.runs.settings import ExperimentConfig
from repro.tasks.author import datasets_of, preparation, task_class
from repro.tasks.outputs import Collected, Outputs
from repro.tasks.portable import refuse_other_bits
from repro.tasks.reading import numbers_from
from repro.tasks.samples import collate_of
from repro.tasks.task import Task
from repro.training.attention import fused_attention_here
from repro.training.determinism import compile_in_place
from repro.training.precision import autocast
from repro.training.rows import Chunks
from repro.training.seeding import seed_generators


class TaskInSession:
    """An author's task with its data, made in a session."""

    def __init__(self, session: Session) -> None:
        config = session.config
        if not isinstance(config, ExperimentConfig) or not hasattr(config, "dataset"):
            raise UserError(
                f"{type(config).__name__} lacks settings of a task: expected a class that extends "
                "repro.runs.settings.ExperimentConfig, with a field dataset"
            )
        self.session = session
        self.config = config
        source = preparation(session.root, config, session.code)
        prepared = source.read(session.processes, session.reads_cache)
        session.check_samples(prepared.folder)
        session.data(prepared.manifest)
        self.datasets: Mapping[str, Dataset[Any]] = datasets_of(
            session.root, config, source, prepared
        )
        with session.seeded("init"):
            self.task = made_task(task_class(session.root), config, prepared.facts)
        if session.is_fresh:
            self.task.initialize(self.datasets)
        if not session.engine.is_sharded:  # FSDP2 brings each block there, cut
            self.task.model.to(session.device)
        if told := fused_attention_here(config, self.task.model, session.device):
            session.tell(told)
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

    def refuse_no_validation(self, patience: int | None) -> None:
        """Raise UserError, before the first step, where no validation could be done or counted."""
        task = self.task
        if task.validate_on:
            self._dataset(task.validate_on)
        if patience is not None and not (task.best and task.validate_on):
            raise UserError(
                f"training.patience={patience} counts validations without a better one: expected "
                f"{type(task).__name__} to have validate_on, and best, such as "
                '("loss", "min")'
            )

    def validation(self) -> dict[str, float]:
        """Return the metrics of the validation samples."""
        assert self.task.validate_on
        return self.measured(self.task.validate_on)[1]

    def measured(
        self, split: str, of_first_chunk: bool = False
    ) -> tuple[Outputs, dict[str, float]]:
        """Return the outputs of a data set, and its metrics, the same in all processes."""
        session = self.session
        dataset = self._dataset(split)
        size = self.config.evaluation.batch_size
        samples = session.evaluated_samples(sized(dataset), size)
        samples = min(samples, size) if of_first_chunk else samples
        chunks = Chunks(dataset, samples, size, collate_of(dataset))
        with session.evaluating():
            collected = self._collected(chunks)
        outputs = collected.joined(chunks.sizes(session.processes), session.processes)
        with self._asking("metrics", split):
            told = session.engine.compute(lambda: self.task.metrics(outputs))
            metrics = numbers_from("metrics", told)
        # Those of process 0: another one may be on another machine.
        first = session.processes.texts(json.dumps(metrics))[0]
        return outputs, dict(json.loads(first))

    def _collected(self, chunks: Chunks) -> Collected:
        """Return what the task tells of this process's chunks."""
        session = self.session
        seed, workers = session.seeds.evaluation, self.config.num_workers
        collected = Collected()

        def evaluate(batch: Any) -> object:
            with autocast(session.device, session.precision):
                return self.task.evaluate(batch)

        def work() -> Collected:
            for outputs in chunks.computed(
                evaluate, seed, workers, session.processes, session.engine
            ):
                collected.add(outputs)
            return collected

        return session.engine.together(session.processes, work)

    def draw(self, outputs: Outputs, folder: Path) -> None:
        """Let the task draw its pictures of an evaluation."""
        with self._asking("figures"):
            self.task.figures(outputs, folder)

    def details(self, outputs: Outputs, metrics: Collection[str] = ()) -> JsonObject:
        """Return what else the task tells of an evaluation.

        UserError for what is no JSON, and for a name of `metrics`, which it would take the place
        of.
        """
        with self._asking("details"):
            given: object = self.task.details(outputs)
        if not isinstance(given, Mapping):
            raise UserError(
                f"details(outputs) returned {given!r:.80}: expected values by name, such as "
                '{"counts": [5, 0, 4]}'
            )
        details = given_as_json("details(outputs)", given)
        if taken := [name for name in details if name in metrics]:
            raise UserError(
                f"details(outputs) returned {', '.join(taken)}, which metrics(outputs) returned, "
                "too: choose another name"
            )
        return details

    def _dataset(self, split: str) -> Dataset[Any]:
        if split not in self.datasets:
            raise UserError(
                f"there is no data set {split}: datasets() returns {', '.join(self.datasets)}; "
                "the task's validate_on and test_on name those that it takes"
            )
        return self.datasets[split]

    @contextmanager
    def _asking(self, *purpose: str) -> Iterator[None]:
        """Put the model into eval mode, without gradients, and seed the generators: it may draw."""
        with self.session.evaluating():
            seed_generators(derive_seed(self.session.seeds.evaluation, *purpose))
            yield


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


def made_task(kind: type[Any], config: Any, facts: JsonObject) -> Task:
    """Make an author's task; UserError if it has no model."""
    try:
        inspect.signature(kind).bind(config, facts)
    except TypeError as error:
        raise UserError(
            f"{kind.__name__}(config, facts): {error}; expected __init__(self, config, facts)"
        ) from error
    task: Task = kind(config, facts)
    if not hasattr(task, "model"):
        raise UserError(
            f"{kind.__name__}(config, facts) has no self.model: expected one nn.Module that holds "
            "every network"
        )
    return task
