"""The training loop in plain PyTorch, from top to bottom the story of a step.

What a step does is a function of (config, weights, optimizer state, step): `train_step` gives the
same bits whatever ran before it, so resuming and sharding need no code of their own here.
"""

import math
import os
import shutil
import sys
from datetime import timedelta
from typing import Any

import torch
from rich import progress as bars
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Subset

from experiment import data
from experiment.config import Config
from experiment.model import build_model
from repro import checkpoint
from repro.command import UserError
from repro.determinism import flags, refuse_changed_flags, set_determinism, set_threads
from repro.hashing import derive_seed
from repro.interruption import Interruption
from repro.parallel import Processes, backward_in_shards
from repro.run import Run
from repro.sampling import batch_length, batch_of_step, batches_of_steps, steps_per_epoch
from repro.seeding import ExperimentSeeds, get_seed_state, seed_generators, set_seed_state

OPTIMIZERS: dict[str, Any] = {"adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}


class Trainer:
    """Model, optimizer and data of one training; `step` counts the steps done."""

    def __init__(self, config: Config) -> None:
        set_determinism(config.determinism)
        set_threads(config.threads)
        self.flags = flags()
        self.config, self.step = config, 0
        self.best: dict[str, float] = {"accuracy": -1.0, "step": 0}
        self.device = choose_device(config.device)
        self.processes = Processes(config.training.shards, self.device)
        self.seeds = ExperimentSeeds(**config.seeds.model_dump())
        self.data = self.processes.first(lambda: data.load(config))
        training, size = config.training, len(self.data.train)
        self.batches = (size, training.batch_size, self.seeds.training, training.drop_last)
        self.epoch_steps = steps_per_epoch(size, training.batch_size, training.drop_last)
        if not self.epoch_steps:
            raise UserError(f"training.batch_size is larger than the {size} training samples")
        self.total_steps = training.epochs * self.epoch_steps
        self.seeds.apply_for_phase("init")
        self.model = build_model(config, self.data.shape, len(self.data.classes)).to(self.device)
        self.forward = compiled(self.model) if training.compile else self.model
        # Fused: the default implementations take the root with MKL, whose last bit depends on the
        # CPU model even in the portable profile (measured); the fused kernels do not.
        settings = config.optimizer.model_dump(exclude={"name", "learning_rate"})
        optimizer = OPTIMIZERS[config.optimizer.name]
        self.optimizer: torch.optim.Optimizer = optimizer(
            self.model.parameters(), lr=config.optimizer.learning_rate, fused=True, **settings
        )

    def train_step(self, step: int, batch: list[Tensor] | None) -> dict[str, float]:
        """Train on the batch of `step` (0 is the first): images and labels from the loader.

        With several processes, `batch` is this one's part of it. Returns loss, learning rate and
        gradient norm; raises UserError if one is not finite.
        """
        batch = batch and [tensor.to(self.device) for tensor in batch]
        if not self.model.training:
            self.model.train()
        self.optimizer.zero_grad()
        rate = self.learning_rate(step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate

        def shard_loss(shard: int, images: Tensor, labels: Tensor) -> Tensor:
            seed_generators(derive_seed(self.seeds.training, "step", step, shard))
            with self.autocast():
                logits = self.forward(images)
            return functional.cross_entropy(logits.float(), labels, reduction="sum")

        samples, batch_size, _, drop_last = self.batches
        size = batch_length(samples, batch_size, drop_last, step)
        loss = backward_in_shards(self.model, batch, size, self.processes, shard_loss)
        limit = self.config.training.gradient_clip or math.inf
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), limit)
        metrics = {"loss": loss.item(), "learning_rate": rate, "gradient_norm": norm.item()}
        if not math.isfinite(metrics["loss"] + metrics["gradient_norm"]):
            raise UserError(self.not_finite(step, metrics))
        self.optimizer.step()
        return metrics

    def not_finite(self, step: int, metrics: dict[str, float]) -> list[str]:
        """What to tell when the loss is not finite; the weights are still those before the step."""
        keys = batch_of_step(*self.batches, step)
        return [
            f"step {step + 1}: loss {metrics['loss']}, gradient norm {metrics['gradient_norm']}, "
            "expected finite numbers: try a lower optimizer.learning_rate or gradient_clip",
            f"its training samples, in epoch {keys[0][0] + 1}: {' '.join(str(i) for _, i in keys)}",
            f"to see it again: the same command with resume=auto training.max_steps={step + 1}",
        ]

    def learning_rate(self, step: int) -> float:
        """Linear warm-up, then half a cosine to zero: a function of the step alone.

        Rounded to 12 digits: the last bit of a cosine differs between C libraries.
        """
        warmup = self.config.training.warmup_epochs * self.epoch_steps
        rising = min(1.0, (step + 1) / warmup) if warmup else 1.0
        progress = max(0.0, (step - warmup) / max(1.0, self.total_steps - warmup))
        falling = 0.5 * (1 + math.cos(math.pi * progress))
        return float(f"{self.config.optimizer.learning_rate * rising * falling:.12g}")

    def autocast(self) -> torch.autocast:
        bf16 = self.config.training.precision == "bf16"
        return torch.autocast(self.device.type, torch.bfloat16, enabled=bf16)

    @torch.no_grad()
    def predict(self, split: str) -> tuple[Tensor, Tensor]:
        """Logits float32 (n, classes) and labels (n) of a split, on the CPU, in fixed chunks."""
        self.model.eval()
        self.seeds.apply_for_phase("eval")
        samples, chunk = getattr(self.data, split), self.config.evaluation.batch_size
        rank, sizes = self.processes.rank, self.processes.chunk_sizes(len(samples), chunk)
        own = range(sum(sizes[:rank]), sum(sizes[: rank + 1]))
        logits = [torch.empty(0, len(self.data.classes), device=self.device)]
        labels = [torch.empty(0, dtype=torch.int64, device=self.device)]
        for images, targets in DataLoader(Subset(samples, own), chunk):
            with self.autocast():
                logits.append(self.forward(images.to(self.device)).float())
            labels.append(targets.to(self.device))
        together = (self.processes.concatenate(torch.cat(x), sizes).cpu() for x in (logits, labels))
        return next(together), next(together)

    def validate(self) -> dict[str, Any]:
        """Loss and accuracy on the validation samples."""
        logits, labels = self.predict("validation")
        return {
            "split": "validation",
            "loss": functional.cross_entropy(logits.double(), labels).item(),
            "accuracy": (logits.argmax(1) == labels).double().mean().item(),
        }

    @property
    def last_step(self) -> int:
        """The step after which training ends."""
        return min(self.total_steps, self.config.training.max_steps or self.total_steps)

    def fit(self, run: Run | None) -> bool:
        """Train from `self.step` to the end (or max_steps), logging and saving into the run.

        `run` is None in all processes but the first. False: ended early, asked to by SIGTERM.
        """
        training, output = self.config.training, self.config.output
        stop = self.last_step
        every = output.checkpoint_every or self.epoch_steps
        steps, pin = range(self.step, stop), self.device.type == "cuda"
        workers = self.config.num_workers
        part = self.processes.part
        batches = batches_of_steps(self.data.train, *self.batches[1:], steps, workers, pin, part)
        columns = (bars.BarColumn(), bars.MofNCompleteColumn(), bars.TimeRemainingColumn())
        interruption = Interruption()
        with bars.Progress(*columns, disable=not (run and sys.stdout.isatty())) as progress:
            task = progress.add_task("training", total=stop, completed=self.step)
            for batch in batches:
                metrics = self.train_step(self.step, batch)
                self.step += 1
                progress.update(task, completed=self.step)
                if run and self.step % output.log_every == 0:
                    run.log({"step": self.step, **metrics})
                improved = False
                if self.step % self.epoch_steps == 0:
                    validation = self.validate()
                    epoch, accuracy = self.step // self.epoch_steps, validation["accuracy"]
                    left = timedelta(seconds=round(progress.tasks[task].time_remaining or 0))
                    if run:
                        run.log({"step": self.step, "epoch": epoch, **validation})
                        loss = f"validation loss {validation['loss']:.4f}  accuracy {accuracy:.4f}"
                        where = f"epoch {epoch:3}/{training.epochs}  step {self.step}/{stop}"
                        print(f"{where}  {loss}  {left} left", flush=True)
                    improved = accuracy > self.best["accuracy"]
                if improved:
                    self.best = {"accuracy": accuracy, "step": self.step}
                # For code that draws outside of steps and samples: the same in every process.
                seed_generators(derive_seed(self.seeds.training, "after step", self.step))
                ending = self.processes.any(interruption.asked) and self.step < stop
                if run and (improved or ending or self.step % every == 0 or self.step == stop):
                    self.save(run)
                if ending:
                    return False
        if run:
            print(f"step {self.step}/{self.total_steps}  loss {metrics['loss']:.4f}")
        return True

    def save(self, run: Run) -> None:
        """Write the checkpoint of the current step; `last` and `best` point to theirs."""
        refuse_changed_flags(self.flags)
        checkpoint.save(checkpoint.step_folder(run.checkpoints, self.step), self.state_dict())
        self.name_checkpoints(run)
        checkpoint.prune(run.checkpoints, self.config.output.keep_checkpoints)

    def name_checkpoints(self, run: Run) -> None:
        """Let `last` and `best` point to their checkpoints."""
        run.name_checkpoints({"last": self.step, "best": int(self.best["step"])})

    def state_dict(self) -> dict[str, Any]:
        """All that the next step depends on, and the config: enough to go on or to evaluate."""
        return {
            "config": self.config.bits_settings(),
            "step": self.step,
            "best": self.best,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "generators": get_seed_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back what `state_dict` returned; UserError if it does not fit."""
        self.load_weights(state)
        try:
            self.optimizer.load_state_dict(state["optimizer"])
            set_seed_state(state["generators"])
        except ValueError as error:
            raise UserError(f"the checkpoint cannot be continued here: {error}") from error
        self.best = state["best"]

    def load_weights(self, state: dict[str, Any]) -> None:
        """Enough to evaluate, on any device."""
        try:
            self.model.load_state_dict(state["model"])
        except RuntimeError as error:
            words = " ".join(str(error).split())
            raise UserError(f"the checkpoint is of another model: {words[:300]}") from error
        self.step = state["step"]


def choose_device(name: str) -> torch.device:
    """The device of that name; "auto" takes the GPU if there is one, each process its own."""
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("device=cuda: torch finds no GPU here; use device=cpu or device=auto")
    if name == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
    torch.cuda.set_device(device)
    return device


def compiled(model: nn.Module) -> nn.Module:
    """The model, compiled by torch when it is first called; shares its weights with `model`."""
    if not (shutil.which("g++") or shutil.which("clang++")):
        raise UserError("training.compile=true: no C++ compiler here (g++); torch needs one")
    return torch.compile(model)  # type: ignore[return-value]  # a module for a module
