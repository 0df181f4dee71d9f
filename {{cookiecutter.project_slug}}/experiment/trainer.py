"""Train in plain PyTorch: `fit` is the loop, `train_step` what happens in a step of it.

What a step does is a function of (config, weights, optimizer state, step): `train_step` gives the
same bits whatever ran before it, so resuming and sharding need no code of their own here.
"""

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from experiment import data
from experiment.config import Config
from experiment.metrics import classification_metrics
from experiment.model import build_model, load_pretrained
from experiment.optimizer import build_optimizer, learning_rate
from experiment.samples import ImageFiles, Images
from repro.core import layout
from repro.core.errors import UserError
from repro.core.hashing import derive_seed
from repro.core.progress import progress
from repro.data.manifest import data_digest
from repro.runs.fingerprints import Quantities
from repro.runs.folder import Run
from repro.runs.trace import StepInputs, Trace, step_quantities
from repro.training import checkpoint, loading, model_state, sampling
from repro.training.batches import moved
from repro.training.best import Best
from repro.training.determinism import (
    compiled,
    flags,
    refuse_changed_flags,
    set_determinism,
    set_threads,
)
from repro.training.interruption import Interruption
from repro.training.parallel import (
    Processes,
    backward_in_shards,
    choose_device,
    slices_here,
)
from repro.training.seeding import ExperimentSeeds, get_seed_state, seed_generators
from repro.training.unsaved import refuse_unsaved
from repro.training.weighted import Weighted

Metrics = dict[str, float]
BEST = Best("accuracy", sign=1)  # the checkpoint with the best one is kept; -1: a low one is good


class Trainer:
    """Model, optimizer and data of one training; `step` counts the steps done."""

    def __init__(self, config: Config) -> None:
        set_determinism(config.determinism)
        set_threads(config.threads)
        self.flags = flags()
        self.config = config
        self.step = 0
        self.best = BEST
        self.device = choose_device(config.device)
        self.processes = Processes(config.training.shards, self.device)
        self.seeds = ExperimentSeeds(**config.seeds.model_dump())
        self.data = self.processes.first(lambda: data.load(config))
        training = config.training
        self.schedule = sampling.Schedule(
            len(self.data.train), training.batch_size, self.seeds.training, training.drop_last
        )
        if not self.schedule.steps_per_epoch:
            size = self.schedule.size
            raise UserError(f"training.batch_size is larger than the {size} training samples")
        self.total_steps = training.epochs * self.schedule.steps_per_epoch
        self.seeds.apply_for_phase("init")
        self.model = build_model(config, self.data.shape, len(self.data.classes)).to(self.device)
        model_state.refuse_unusable(self.model)
        self.frozen = [module for module in self.model.modules() if not module.training]
        self.model.eval()  # the first step finds it as any other one does
        self.forward = compiled(self.model) if training.compile else self.model
        self.optimizer = build_optimizer(config, self.model.parameters())

    def train_step(self, step: int, shards: list[Any]) -> Metrics:
        """Train on the batch of `step` (0 is the first): images and labels, for each shard.

        With several processes, `shards` are this one's. Returns loss, learning rate and gradient
        norm; raises UserError if one is not finite.
        """
        shards = moved(shards, self.device)
        if not self.model.training:
            self.model.train()
            for module in self.frozen:
                module.training = False
        seed_generators(derive_seed(self.seeds.training, "step", step))
        self.optimizer.zero_grad()
        self.model.zero_grad()  # also of weights that the optimizer does not have
        rate = learning_rate(self.config, self.schedule.steps_per_epoch, step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate

        def shard_loss(shard: int, images: Tensor, labels: Tensor) -> Tensor:
            seed_generators(derive_seed(self.seeds.training, "step", step, shard))
            with self.autocast():
                logits = self.forward(images)
            return functional.cross_entropy(logits.float(), labels, reduction="sum")

        def weighted_loss(shard: int, batch: list[Tensor]) -> Weighted:
            images, labels = batch
            return Weighted(shard_loss(shard, images, labels), weight=len(labels))

        size = self.schedule.length(step)
        with sampling.naming_samples(self.schedule, step):
            loss = backward_in_shards(self.model, shards, size, self.processes, weighted_loss)
        limit = self.config.training.gradient_clip or math.inf
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), limit)
        metrics = {"loss": loss.item(), "learning_rate": rate, "gradient_norm": norm.item()}
        # The weights are still those before the step.
        sampling.refuse_not_finite(metrics, self.schedule, step)
        self.optimizer.step()
        return metrics

    def autocast(self) -> AbstractContextManager[None]:
        """Compute in bfloat16 inside where training.precision asks for it."""
        if self.config.training.precision == "bf16":
            return torch.autocast(self.device.type, torch.bfloat16)
        return nullcontext()

    @torch.no_grad()
    def predict(self, samples: Images | ImageFiles) -> tuple[Tensor, Tensor]:
        """Predict the labels of samples in fixed chunks, shared by the processes.

        Returns logits float32 (samples, classes) and labels int64 (samples), on the CPU.
        """
        self.model.eval()
        seed = self.seeds.evaluation
        chunk = self.config.evaluation.batch_size
        sizes = self.processes.chunk_sizes(len(samples), chunk)
        start = sum(sizes[: self.processes.rank])
        own = range(start, start + sizes[self.processes.rank])
        logits = [torch.empty(0, len(self.data.classes), device=self.device)]
        labels = [torch.empty(0, dtype=torch.int64, device=self.device)]
        chunks = loading.batches_in_order(samples, own, chunk, seed, self.config.num_workers)
        for indices, [(images, targets)] in chunks:
            seed_generators(derive_seed(seed, "chunk", int(indices[0])))
            with self.autocast():
                logits.append(self.forward(images.to(self.device)).float())
            labels.append(targets.to(self.device))
        return (
            self.processes.concatenate(torch.cat(logits), sizes).cpu(),
            self.processes.concatenate(torch.cat(labels), sizes).cpu(),
        )

    def validate(self) -> Metrics:
        """Return loss and accuracy on the validation samples."""
        logits, labels = self.predict(self.data.validation)
        metrics = classification_metrics(logits, labels, self.data.classes)
        return {"loss": metrics.loss, "accuracy": metrics.accuracy}

    @property
    def last_step(self) -> int:
        """The number of steps after which training ends."""
        return min(self.total_steps, self.config.training.max_steps or self.total_steps)

    def initialize(self) -> None:
        """Load what a training starts from that is not drawn at random."""
        load_pretrained(self.config, self.model)

    def steps(self, steps: range, workers: int = 0) -> Iterator[loading.IndexedBatch]:
        """Yield the batch of each step, cut into the shards that this process computes."""
        return loading.batches_of_steps(
            self.data.train,
            self.schedule,
            steps,
            num_workers=workers,
            pin_memory=self.device.type == "cuda",
            slices=lambda size: slices_here(size, self.processes),
        )

    def quantities(
        self, indices: Tensor, shards: list[Any], metrics: Metrics, asked: bool = False
    ) -> tuple[Quantities | None, bool]:
        """Return the trace's line of the step just done, and whether any process was asked to end.

        The processes exchange both at once; see repro/runs/trace.py.
        """
        if not self.config.output.trace:
            return None, bool(self.processes.total([asked])[0])
        inputs = StepInputs(indices, shards, size=self.schedule.length(self.step - 1))
        return step_quantities(self.model, inputs, self.processes, metrics, asked)

    def fit(self, run: Run | None, trace: Trace | None = None) -> bool:
        """Train from `self.step` to the end (or max_steps), logging and saving into the run.

        `run` is None in all processes but the first. False: ended early, asked to by SIGTERM.
        """
        first = self.step + 1
        stop = self.last_step
        interruption = Interruption()
        with progress("training", stop, self.step, lines=False, quiet=run is None) as advance:
            for indices, shards in self.steps(range(self.step, stop), self.config.num_workers):
                metrics = self.train_step(self.step, shards)
                self.step += 1
                if self.step == first:
                    refuse_unsaved(self, self.state_dict())
                advance(1)
                quantities, asked = self.quantities(indices, shards, metrics, interruption.asked)
                if trace and quantities:
                    trace.log(self.step, quantities)
                if run and self.step % self.config.output.log_every == 0:
                    run.log({"step": self.step, **metrics})
                improved = False
                if self.schedule.ends_epoch(self.step):
                    improved = self.end_epoch(run, advance.left)
                # For code that draws outside of steps and samples: the same in every process.
                seed_generators(derive_seed(self.seeds.training, "after step", self.step))
                ending = asked and self.step < stop
                if run and (improved or ending or self.checkpoint_is_due()):
                    self.save(run, trace)
                if ending:
                    return False
        if run:
            print(f"step {self.step}/{stop}  loss {metrics['loss']:.4f}")
        return True

    def end_epoch(self, run: Run | None, left: timedelta) -> bool:
        """Validate, log and print it; return whether it is the best validation so far."""
        epoch = self.step // self.schedule.steps_per_epoch
        validation = self.validate()
        if run:
            run.log({"step": self.step, "epoch": epoch, "split": "validation", **validation})
            epochs = self.config.training.epochs
            place = f"epoch {epoch:3}/{epochs}  step {self.step}/{self.last_step}"
            numbers = "  ".join(f"{name} {value:.4f}" for name, value in validation.items())
            print(f"{place}  validation {numbers}  {left} left", flush=True)
        value = validation[self.best.metric]
        improved = self.best.is_beaten_by(value)
        if improved:
            self.best = self.best.at(value, self.step)
        return improved

    def checkpoint_is_due(self) -> bool:
        """Tell whether a checkpoint follows the step just done, whatever the step brought."""
        every = self.config.output.checkpoint_every or self.schedule.steps_per_epoch
        return self.step % every == 0 or self.step == self.last_step

    def save(self, run: Run, trace: Trace | None) -> None:
        """Write the checkpoint of the current step, after the trace's lines that lead to it."""
        if trace:
            trace.flush()
        refuse_changed_flags(self.flags)
        state = self.state_dict()
        refuse_unsaved(self, state)
        checkpoint.save(layout.step_folder(run.checkpoints, self.step), state)
        self.name_checkpoints(run)
        checkpoint.prune(run.checkpoints, self.config.output.keep_checkpoints)

    def name_checkpoints(self, run: Run) -> None:
        """Let `last` and `best` point to their checkpoints."""
        run.name_checkpoints({layout.LAST: self.step, layout.BEST: self.best.step})

    @property
    def bits(self) -> str:
        """The SHA-256 of the weights."""
        return model_state.weights_digest(self.model.state_dict())

    def state_dict(self) -> dict[str, Any]:
        """Return all that the next step depends on, and the config: to go on, or to evaluate."""
        return {
            "config": self.config.bits_settings(),
            "step": self.step,
            "data": data_digest(self.data.manifest),
            "best": self.best.as_json(),
            "model": self.model.state_dict(),
            "buffers": model_state.hidden_buffers(self.model),
            "optimizer": self.optimizer.state_dict(),
            "generators": get_seed_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back what `state_dict` returned; UserError if it does not fit."""
        model_state.restore(state, self.model, self.optimizer)
        self.step = state["step"]
        self.best = BEST.restored(state["best"])

    def load_weights(self, state: dict[str, Any]) -> None:
        """Load the weights alone, onto any device: enough to evaluate."""
        model_state.restore(state, self.model)
        self.step = state["step"]
