"""The training loop in plain PyTorch, from top to bottom the story of a step.

What a step does is a function of (config, weights, optimizer state, step): `train_step` gives the
same bits whatever ran before it, so resuming and sharding need no code of their own here.
"""

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from experiment import data
from experiment.config import Config
from experiment.metrics import classification_metrics
from experiment.model import build_model, load_pretrained
from repro.core import layout
from repro.core.errors import UserError
from repro.core.hashing import derive_seed
from repro.core.progress import progress
from repro.data.manifest import data_digest
from repro.runs.fingerprints import Quantities
from repro.runs.folder import Run
from repro.runs.trace import StepInputs, Trace, step_quantities
from repro.training import checkpoint, model_state, sampling
from repro.training.determinism import (
    compiled,
    flags,
    refuse_changed_flags,
    set_determinism,
    set_threads,
)
from repro.training.interruption import Interruption
from repro.training.parallel import Processes, backward_in_shards, choose_device
from repro.training.seeding import ExperimentSeeds, get_seed_state, seed_generators

Batch = tuple[Tensor, list[Tensor] | None]  # indices of the samples; None: no sample of its own
Metrics = dict[str, float]
BEST, SIGN = "accuracy", 1  # the checkpoint with the best one is kept; -1: a low one is good
OPTIMIZERS: dict[str, Any] = {"adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}


class Trainer:
    """Model, optimizer and data of one training; `step` counts the steps done."""

    def __init__(self, config: Config) -> None:
        set_determinism(config.determinism)
        set_threads(config.threads)
        self.flags = flags()
        self.config, self.step = config, 0
        self.best: dict[str, float] = {"step": 0}
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
        # Fused: the default implementations take the root with MKL, whose last bit depends on the
        # CPU model even in the portable profile (measured); the fused kernels do not.
        settings = config.optimizer.model_dump(exclude={"name", "learning_rate"})
        optimizer = OPTIMIZERS[config.optimizer.name]
        self.optimizer: torch.optim.Optimizer = optimizer(
            self.model.parameters(), lr=config.optimizer.learning_rate, fused=True, **settings
        )

    def train_step(self, step: int, batch: list[Tensor] | None) -> Metrics:
        """Train on the batch of `step` (0 is the first): images and labels from the loader.

        With several processes, `batch` is this one's part of it. Returns loss, learning rate and
        gradient norm; raises UserError if one is not finite.
        """
        batch = batch and [tensor.to(self.device) for tensor in batch]
        if not self.model.training:
            self.model.train()
            for module in self.frozen:
                module.training = False
        seed_generators(derive_seed(self.seeds.training, "step", step))
        self.optimizer.zero_grad()
        self.model.zero_grad()  # also of weights that the optimizer does not have
        rate = self.learning_rate(step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate

        def shard_loss(shard: int, images: Tensor, labels: Tensor) -> Tensor:
            seed_generators(derive_seed(self.seeds.training, "step", step, shard))
            with self.autocast():
                logits = self.forward(images)
            return functional.cross_entropy(logits.float(), labels, reduction="sum")

        size = self.schedule.length(step)
        loss = backward_in_shards(self.model, batch, size, self.processes, shard_loss)
        limit = self.config.training.gradient_clip or math.inf
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), limit)
        metrics = {"loss": loss.item(), "learning_rate": rate, "gradient_norm": norm.item()}
        # The weights are still those before the step.
        sampling.refuse_not_finite(metrics, self.schedule, step)
        self.optimizer.step()
        return metrics

    def learning_rate(self, step: int) -> float:
        """Linear warm-up, then half a cosine to zero: a function of the step alone.

        Rounded to 12 digits: the last bit of a cosine differs between C libraries.
        """
        warmup = self.config.training.warmup_epochs * self.schedule.steps_per_epoch
        rising = min(1.0, (step + 1) / warmup) if warmup else 1.0
        progress = max(0.0, (step - warmup) / max(1.0, self.total_steps - warmup))
        falling = 0.5 * (1 + math.cos(math.pi * progress))
        return float(f"{self.config.optimizer.learning_rate * rising * falling:.12g}")

    def autocast(self) -> AbstractContextManager[None]:
        bf16 = self.config.training.precision == "bf16"
        return torch.autocast(self.device.type, torch.bfloat16) if bf16 else nullcontext()

    @torch.no_grad()
    def predict(self, split: str) -> tuple[Tensor, Tensor]:
        """Logits float32 (n, classes) and labels (n) of a split, on the CPU, in fixed chunks."""
        self.model.eval()
        samples, chunk = getattr(self.data, split), self.config.evaluation.batch_size
        rank, sizes = self.processes.rank, self.processes.chunk_sizes(len(samples), chunk)
        own = range(sum(sizes[:rank]), sum(sizes[: rank + 1]))
        logits = [torch.empty(0, len(self.data.classes), device=self.device)]
        labels = [torch.empty(0, dtype=torch.int64, device=self.device)]
        seed, workers = self.seeds.evaluation, self.config.num_workers
        chunks = sampling.batches_in_order(samples, own, chunk, seed, workers)
        for indices, (images, targets) in chunks:
            seed_generators(derive_seed(seed, "chunk", int(indices[0])))
            with self.autocast():
                logits.append(self.forward(images.to(self.device)).float())
            labels.append(targets.to(self.device))
        together = (self.processes.concatenate(torch.cat(x), sizes).cpu() for x in (logits, labels))
        return next(together), next(together)

    def validate(self) -> dict[str, Any]:
        """Loss and accuracy on the validation samples."""
        found = classification_metrics(*self.predict("validation"), self.data.classes)
        return {"split": "validation", "loss": found["loss"], "accuracy": found["accuracy"]}

    @property
    def last_step(self) -> int:
        """The step after which training ends."""
        return min(self.total_steps, self.config.training.max_steps or self.total_steps)

    def initialize(self) -> None:
        """What a training starts from that is not drawn at random."""
        load_pretrained(self.config, self.model)

    def steps(self, steps: range, workers: int = 0) -> Iterator[Batch]:
        """The batches of `steps`: this process's part of each, and the samples' indices."""
        return sampling.batches_of_steps(
            self.data.train,
            self.schedule,
            steps,
            num_workers=workers,
            pin_memory=self.device.type == "cuda",
            part=self.processes.part,
        )

    def quantities(
        self, indices: Tensor, batch: list[Tensor] | None, metrics: Metrics, asked: bool = False
    ) -> tuple[Quantities | None, bool]:
        """The trace's line of the step just done (repro/runs/trace.py), and whether any process was
        `asked` to end: the processes exchange both at once.
        """
        if not self.config.output.trace:
            return None, bool(self.processes.total([asked])[0])
        inputs = StepInputs(indices, batch, size=self.schedule.length(self.step - 1))
        return step_quantities(self.model, inputs, self.processes, metrics, asked)

    def fit(self, run: Run | None, trace: Trace | None = None) -> bool:
        """Train from `self.step` to the end (or max_steps), logging and saving into the run.

        `run` is None in all processes but the first. False: ended early, asked to by SIGTERM.
        """
        training, output = self.config.training, self.config.output
        stop = self.last_step
        every = output.checkpoint_every or self.schedule.steps_per_epoch
        interruption = Interruption()
        with progress("training", stop, self.step, lines=False, quiet=run is None) as advance:
            for indices, batch in self.steps(range(self.step, stop), self.config.num_workers):
                metrics = self.train_step(self.step, batch)
                self.step += 1
                advance(1)
                quantities, ending = self.quantities(indices, batch, metrics, interruption.asked)
                if trace and quantities:
                    trace.log(self.step, quantities)
                if run and self.step % output.log_every == 0:
                    run.log({"step": self.step, **metrics})
                improved = False
                if self.schedule.ends_epoch(self.step):
                    epoch = self.step // self.schedule.steps_per_epoch
                    validation = self.validate()
                    if run:
                        run.log({"step": self.step, "epoch": epoch, **validation})
                        where = f"epoch {epoch:3}/{training.epochs}  step {self.step}/{stop}"
                        told = [f"{k} {v:.4f}" for k, v in validation.items() if k != "split"]
                        words = f"validation {'  '.join(told)}  {advance.left} left"
                        print(f"{where}  {words}", flush=True)
                    before = self.best.get(BEST, -SIGN * math.inf)
                    if improved := SIGN * validation[BEST] > SIGN * before:
                        self.best = {BEST: validation[BEST], "step": self.step}
                # For code that draws outside of steps and samples: the same in every process.
                seed_generators(derive_seed(self.seeds.training, "after step", self.step))
                ending = ending and self.step < stop
                if run and (improved or ending or self.step % every == 0 or self.step == stop):
                    if trace:
                        trace.flush()
                    self.save(run)
                if ending:
                    return False
        if run:
            print(f"step {self.step}/{stop}  loss {metrics['loss']:.4f}")
        return True

    def save(self, run: Run) -> None:
        """Write the checkpoint of the current step; `last` and `best` point to theirs."""
        refuse_changed_flags(self.flags)
        checkpoint.save(layout.step_folder(run.checkpoints, self.step), self.state_dict())
        self.name_checkpoints(run)
        checkpoint.prune(run.checkpoints, self.config.output.keep_checkpoints)

    def name_checkpoints(self, run: Run) -> None:
        """Let `last` and `best` point to their checkpoints."""
        run.name_checkpoints({"last": self.step, "best": int(self.best["step"])})

    @property
    def bits(self) -> str:
        """SHA-256 of the weights."""
        return model_state.weights_digest(self.model.state_dict())

    def state_dict(self) -> dict[str, Any]:
        """All that the next step depends on, and the config: enough to go on or to evaluate."""
        return {
            "config": self.config.bits_settings(),
            "step": self.step,
            "data": data_digest(self.data.manifest),
            "best": self.best,
            "model": self.model.state_dict(),
            "buffers": model_state.hidden_buffers(self.model),
            "optimizer": self.optimizer.state_dict(),
            "generators": get_seed_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back what `state_dict` returned; UserError if it does not fit."""
        model_state.restore(state, self.model, self.optimizer)
        self.step, self.best = state["step"], state["best"]

    def load_weights(self, state: dict[str, Any]) -> None:
        """Enough to evaluate, on any device."""
        model_state.restore(state, self.model)
        self.step = state["step"]
