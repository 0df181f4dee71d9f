"""The loops that benchmarks/peers.py compares; imported once the profile is in force.

All train the project's own task: its model, data set, loss and optimizer, with the same clipping.
`before(index)` of the gate stands before each step, `end()` behind the last one and its files.
"""

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from itertools import count, islice
from pathlib import Path
from typing import Any

import torch
from experiment.config import ROOT
from repro.runs.training_session import TrainingSession
from repro.tasks.author import task_class
from repro.tasks.loop import train_task
from repro.tasks.samples import collate_of
from repro.training.batches import moved
from sessions import Bench
from torch import nn
from torch.utils.data import DataLoader

LOG_EVERY = 10  # steps, as the project's own config has it


class Batches:
    """The batches that a data set chooses, for torch's own loader."""

    def __init__(self, dataset: Any, length: int | None = None) -> None:
        self.dataset = dataset
        self.length = length

    def __len__(self) -> int:
        if self.length is None:
            raise TypeError("batches without end")
        return self.length

    def __iter__(self) -> Iterator[list[int]]:
        steps = count() if self.length is None else range(self.length)
        for step in steps:
            yield self.dataset.batch(0, step)


def loader_of(data: Any, config: Any, length: int | None = None) -> DataLoader[Any]:
    """Return torch's loader, as an author would make it without this template."""
    options: dict[str, Any] = {"collate_fn": collate_of(data)}
    if hasattr(data, "batch"):
        options["batch_sampler"] = Batches(data, length)
    else:
        options["batch_size"] = config.training.batch_size
        options["shuffle"] = True
        options["drop_last"] = config.training.drop_last
    return DataLoader(data, num_workers=config.num_workers, **options)


def endless(loader: Any) -> Iterator[Any]:
    while True:
        yield from loader


def plain_step(bench: Bench, batch: Any, limit: float) -> None:
    """Do a step as an author would without this template: no seeds, no shards, no checks."""
    here = moved(batch, bench.session.device)
    for group in bench.optimizer.param_groups:
        group["lr"] = bench.session.config.optimizer.learning_rate
    bench.optimizer.zero_grad()
    loss = bench.task.loss(here).mean()
    loss.backward()
    nn.utils.clip_grad_norm_(bench.task.model.parameters(), limit)
    bench.optimizer.step()
    loss.item()


def limit_of(config: Any) -> float:
    return config.training.gradient_clip or float("inf")


def plain(config: Any, folder: Path, in_all: int, steps: int, gate: Any) -> None:
    bench = Bench(config)
    torch.use_deterministic_algorithms(False)
    limit = limit_of(config)
    batches = endless(loader_of(bench.data, config))
    for index, batch in enumerate(islice(batches, in_all)):
        gate.before(index)
        plain_step(bench, batch, limit)
    gate.end()


def ours(config: Any, folder: Path, in_all: int, steps: int, gate: Any) -> None:
    _in_a_session(config, None, in_all, gate)


def traced(config: Any, folder: Path, in_all: int, steps: int, gate: Any) -> None:
    _in_a_session(config, folder, in_all, gate)


def _in_a_session(config: Any, folder: Path | None, in_all: int, gate: Any) -> None:
    """Train as the kit's loop does; with a folder it writes the trace there, and nothing else."""
    bench = Bench(config)
    with bench.trace_into(folder) if folder else nullcontext() as trace:
        bench.session.trace = trace
        for index, step in enumerate(islice(bench.steps, in_all)):
            gate.before(index)
            bench.train(step)
        gate.end()


class GatedSession(TrainingSession):
    """A whole training, held between its stretches."""

    gate: Any

    def steps(self, *arguments: Any, **named: Any) -> Iterator[Any]:
        for step in super().steps(*arguments, **named):
            self.gate.before(step.index)
            yield step
        self.gate.end()


def duties(config: Any, folder: Path, in_all: int, steps: int, gate: Any) -> None:
    """Train as `python -m experiment.train` does, all files included, but without validations."""
    kind: Any = task_class(ROOT)
    kind.validate_on = kind.best = None
    session = GatedSession(ROOT, config, lambda run: nullcontext())
    session.gate = gate
    train_task(session)
    session.finish()
    session.close()


def accelerate(config: Any, folder: Path, in_all: int, steps: int, gate: Any) -> None:
    from accelerate import Accelerator

    bench = Bench(config)
    torch.use_deterministic_algorithms(False)
    accelerator = Accelerator(cpu=True)
    model, optimizer, loader = accelerator.prepare(
        Losses(bench.task), bench.optimizer, loader_of(bench.data, config, in_all)
    )
    limit = limit_of(config)
    for index, batch in enumerate(islice(endless(loader), in_all)):
        gate.before(index)
        optimizer.zero_grad()
        loss = model(batch)["loss"]
        accelerator.backward(loss)
        accelerator.clip_grad_norm_(model.parameters(), limit)
        optimizer.step()
        loss.item()
    gate.end()


class Losses(nn.Module):
    """A task's model that returns its loss, as Hugging Face's libraries ask for it."""

    def __init__(self, task: Any) -> None:
        super().__init__()
        self.model = task.model
        self.task = task

    def forward(self, batch: Any) -> dict[str, Any]:
        return {"loss": self.task.loss(batch).mean()}


def lightning(config: Any, folder: Path, in_all: int, steps: int, gate: Any) -> None:
    """Train deterministically, with a CSV log and a checkpoint as often as ours."""
    import lightning as pl
    from lightning.pytorch.callbacks import ModelCheckpoint
    from lightning.pytorch.loggers import CSVLogger

    bench = Bench(config)

    class Module(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model = bench.task.model

        def training_step(self, batch: Any, index: int) -> Any:
            loss = bench.task.loss(batch).mean()
            self.log("loss", loss)
            return loss

        def configure_optimizers(self) -> Any:
            return bench.optimizer

    class Held(pl.Callback):
        def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, index: int) -> None:
            gate.before(trainer.global_step)

        def on_train_end(self, trainer: Any, module: Any) -> None:
            gate.end()

    pl.seed_everything(42)
    saved = ModelCheckpoint(folder / "checkpoints", every_n_train_steps=steps, save_top_k=-1)
    trainer = pl.Trainer(
        accelerator="cpu",
        devices=1,
        max_steps=in_all,
        max_epochs=-1,
        deterministic=True,
        gradient_clip_val=config.training.gradient_clip,
        logger=CSVLogger(folder),
        log_every_n_steps=LOG_EVERY,
        callbacks=[Held(), saved],
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(Module(), loader_of(bench.data, config, in_all))
    assert len(list((folder / "checkpoints").iterdir())) == in_all // steps


def hugging_face(config: Any, folder: Path, in_all: int, steps: int, gate: Any) -> None:
    """Train with its log and a checkpoint as often as ours, with deterministic algorithms."""
    from transformers import Trainer, TrainerCallback, TrainingArguments

    bench = Bench(config)
    loader = loader_of(bench.data, config, in_all)
    collate = collate_of(bench.data)
    loader.collate_fn = lambda samples: {"batch": collate(samples)}  # what the Trainer asks for

    class Held(TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            gate.before(state.global_step)

        def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            gate.end()

    class OwnBatches(Trainer):
        def get_train_dataloader(self) -> Any:
            return self.accelerator.prepare(loader)

    arguments = TrainingArguments(
        str(folder / "checkpoints"),
        max_steps=in_all,
        max_grad_norm=config.training.gradient_clip or 0.0,
        save_strategy="steps",
        save_steps=steps,
        logging_steps=LOG_EVERY,
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
    )
    trainer = OwnBatches(
        model=Losses(bench.task),
        args=arguments,
        train_dataset=bench.data,
        callbacks=[Held()],
        optimizers=(
            bench.optimizer,
            torch.optim.lr_scheduler.ConstantLR(bench.optimizer, factor=1.0),
        ),
    )
    trainer.train()
    assert len(list((folder / "checkpoints").glob("checkpoint-*"))) == in_all // steps


LOOPS: dict[str, Callable[..., None]] = {
    "plain": plain,
    "ours": ours,
    "traced": traced,
    "duties": duties,
    "accelerate": accelerate,
    "lightning": lightning,
    "hugging_face": hugging_face,
}
