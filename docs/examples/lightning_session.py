"""Train a LightningModule in a session of the kit: batches, seeds, resume and trace are its own.

Lightning keeps its loop, its hooks, and what the module's training_step and validation_step do.
Batches come from the session, which begins where a stopped run ended; so Lightning sees one epoch
of the steps that are left. What Lightning would do beside that stays off: its sampler, its
checkpoints, its loggers, its own seeds.
"""

from collections.abc import Iterator
from typing import Any

import lightning
from lightning import LightningModule, Trainer
from torch import Tensor
from torch.utils.data import Dataset

from repro.core.errors import UserError
from repro.runs import Session, Step


class SessionBatches:
    """The batches of a session's steps, for Lightning, which asks for nothing else.

    It has a length, so that Lightning does not read a batch ahead: a step is done before the next.
    """

    def __init__(self, steps: Iterator[Step], length: int) -> None:
        self.steps = steps
        self.length = length
        self.step: Step | None = None

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[Any]:
        for self.step in self.steps:
            yield self.step.batch


class SessionCallback(lightning.Callback):
    """Tell the session of each step, and of each validation, whose metrics the module logs."""

    def __init__(self, session: Session, batches: SessionBatches) -> None:
        self.session = session
        self.batches = batches

    def on_train_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Any, index: int
    ) -> None:
        step = self.batches.step
        assert step
        loss: Tensor = outputs["loss"]
        step.done(loss=loss)
        trainer.fit_loop.epoch_loop.val_loop.trainer.should_stop = False
        if step.validate_now:
            module.eval()
            trainer.validating = True
