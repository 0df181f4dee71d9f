"""Train a LightningModule in a session of the kit.

Lightning keeps its loop, its hooks, and what the module's `training_step` does. Batches and seeds
come from the session, which begins where a stopped training ended: Lightning sees one epoch of the
steps that are left. What it would do beside that stays off: its samplers, its checkpoints, its
loggers and its validation.
"""

from collections.abc import Callable, Iterator
from typing import Any

import lightning
from repro.runs import Session, Step
from torch.utils.data import Dataset


class SessionBatches:
    """The batches of a session's steps.

    It has a length, so that Lightning reads no batch ahead: a step is done before the next begins.
    """

    def __init__(self, steps: Iterator[Step], length: int) -> None:
        self.steps = steps
        self.length = length
        self.step: Step | None = None

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[Any]:
        for step in self.steps:
            self.step = step
            yield step.batch


class SessionCallback(lightning.Callback):
    """Tell the session what each step gave, and validate when it is due."""

    def __init__(
        self, session: Session, batches: SessionBatches, validate: Callable[[], dict[str, float]]
    ) -> None:
        self.session = session
        self.batches = batches
        self.validate = validate

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        step = self.batches.step
        assert step
        step.done(loss=outputs["loss"])
        if step.validate_now:
            self.session.validated(**self.validate())

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        next(self.batches.steps, None)  # what follows the last step: its checkpoint


def fit(
    session: Session,
    module: lightning.LightningModule,
    dataset: Dataset[Any],
    batch_size: int,
    epochs: int,
    validate: Callable[[], dict[str, float]],
    best: tuple[str, str],
) -> None:
    """Train the module, whose `configure_optimizers` returns one optimizer.

    `validate` returns the numbers of a validation; `session.predict` gives it its predictions.
    """
    optimizer: Any = module.configure_optimizers()
    session.register(model=module, optimizers=optimizer, best=best)
    module.configure_optimizers = lambda: optimizer  # the one that the session has put back
    steps = session.steps(dataset, batch_size, epochs=epochs)
    batches = SessionBatches(steps, session.steps_left)
    if not session.steps_left:
        return next(steps, None)
    trainer = lightning.Trainer(
        max_epochs=1,
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
        use_distributed_sampler=False,
        callbacks=[SessionCallback(session, batches, validate)],
    )
    session.ignore(trainer)  # its counters begin anew: the session's are kept
    trainer.fit(module, batches)
