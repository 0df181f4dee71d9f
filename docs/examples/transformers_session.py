"""Train a Hugging Face Trainer in a session of the kit.

The Trainer keeps its loop, its callbacks, its optimizer and its schedule. Batches and seeds come
from the session, which begins where a stopped training ended: the Trainer sees one epoch of the
steps that are left. What it would do beside that stays off: its samplers, its checkpoints, its
reports and its evaluation.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from repro.runs import Session, Step
from torch import Tensor, nn
from torch.utils.data import Dataset
from transformers import Trainer, TrainerCallback, TrainingArguments


class SessionBatches:
    """The batches of a session's steps; the Trainer asks for nothing else of a loader."""

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


class SessionCallback(TrainerCallback):
    """Tell the session what each step gave, and validate when it is due."""

    def __init__(
        self, session: Session, batches: SessionBatches, validate: Callable[[], dict[str, float]]
    ) -> None:
        self.session = session
        self.batches = batches
        self.validate = validate
        self.loss = float("nan")

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        step = self.batches.step
        assert step
        step.done(loss=self.loss)
        if step.validate_now:
            self.session.validated(**self.validate())

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        next(self.batches.steps, None)  # what follows the last step: its checkpoint


class SessionTrainer(Trainer):
    """A Trainer whose batches are the session's."""

    def __init__(self, batches: SessionBatches, notes: SessionCallback, **arguments: Any) -> None:
        super().__init__(callbacks=[notes], **arguments)
        self.batches = batches
        self.notes = notes

    def get_train_dataloader(self) -> Any:
        return self.batches

    def training_step(self, *arguments: Any, **named: Any) -> Tensor:
        loss = super().training_step(*arguments, **named)
        self.notes.loss = loss.item()
        return loss


def fit(
    session: Session,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    dataset: Dataset[Any],
    batch_size: int,
    epochs: int,
    validate: Callable[[], dict[str, float]],
    best: tuple[str, str],
    folder: str,
) -> None:
    """Train a model of transformers, or one whose forward takes labels and returns a loss.

    `validate` returns the numbers of a validation; `session.predict` gives it its predictions.
    `folder`: for what the Trainer wants to write; nothing of it is needed later.
    """
    schedule = torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)
    session.register(model=model, optimizers=optimizer, state={"schedule": schedule}, best=best)
    steps = session.steps(dataset, batch_size, epochs=epochs)
    batches = SessionBatches(steps, session.steps_left)
    if not session.steps_left:
        return next(steps, None)
    notes = SessionCallback(session, batches, validate)
    arguments = TrainingArguments(
        folder,
        num_train_epochs=1,
        max_grad_norm=1.0,
        save_strategy="no",
        report_to="none",
        logging_strategy="no",
        disable_tqdm=True,
        use_cpu=session.device.type == "cpu",
    )
    trainer = SessionTrainer(
        batches,
        notes,
        model=model,
        args=arguments,
        train_dataset=dataset,
        optimizers=(optimizer, schedule),
    )
    session.ignore(trainer)  # its counters begin anew: the session's are kept
    trainer.train()
