"""Make every random number a function of (seed, purpose, position), not of what ran before.

`seed_generators(derive_seed(...))` puts all generators at a position; training does so for every
shard of every step, the data pipeline for every sample. So nothing has to be replayed on resume,
no worker's or process's number matters, and phases cannot disturb each other. The states are saved
in checkpoints all the same (`get_seed_state`), for code that draws outside these scopes.

`PYTHONHASHSEED` cannot be set here: it acts before the interpreter starts (see
repro/environment/profile.py).
"""

import random
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from typing import Any, TypedDict

import numpy as np
import torch

from repro.core.hashing import derive_seed
from repro.training.cpu_kernels import use_portable_kernels
from repro.training.determinism import set_determinism

PHASES = ("split", "init", "train", "eval")


def seed_generators(seed: int) -> None:
    """Seed Python's, NumPy's and torch's global generators (CPU, and CUDA where it is in use).

    The generator's own `manual_seed` takes 1 us; `torch.manual_seed`, which also visits back ends
    that are not in use, 115 us: too much for once per step.
    """
    random.seed(seed)
    np.random.seed(seed & 0xFFFFFFFF)  # NumPy takes 32 bits
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():
        for generator in torch.cuda.default_generators:
            generator.manual_seed(seed)


def set_seed(seed: int, deterministic: bool = True) -> None:
    """Seed all generators and choose the backend flags; 0 is a seed like any other.

    `deterministic=True` makes an operation without a deterministic implementation an error
    (`determinism: strict`); `False` restores the fastest settings (`off`).
    """
    set_determinism("strict" if deterministic else "off")
    torch.manual_seed(seed)  # also the CUDA generators, now or when CUDA starts
    seed_generators(seed)


@dataclass(frozen=True)
class ExperimentSeeds:
    """One seed per phase (PHASES): changing one leaves the others' random numbers alone."""

    data_split: int
    model_init: int
    training: int
    evaluation: int

    def apply_for_phase(self, phase: str) -> None:
        """Seed all generators for `phase`: "split", "init", "train" or "eval"."""
        seeds = dict(zip(PHASES, astuple(self), strict=True))
        if phase not in seeds:
            raise ValueError(f"phase {phase!r}: expected one of {', '.join(PHASES)}")
        seed_generators(derive_seed(seeds[phase], phase))

    @contextmanager
    def seeded(self, purpose: str, *more: str | int) -> Iterator[None]:
        """Seed all generators for a purpose: in the block, and for what is drawn after it.

        "split", "init" and "eval" have the seeds of their phases, other purposes that of training.
        """
        seeds = dict(zip(PHASES, astuple(self), strict=True))
        seed = seeds.get(purpose, self.training)
        seed_generators(derive_seed(seed, purpose, *more))
        yield
        seed_generators(derive_seed(seed, "after", purpose, *more))


def worker_init_fn(worker_id: int) -> None:
    """Start a data worker: one thread, and a seed of its own for all generators.

    torch gives each worker another seed (base seed + id) but seeds neither Python's nor NumPy's
    generator well. Samples do not depend on this seed: `loading.SeededDataset` seeds each of them.
    """
    torch.set_num_threads(1)
    use_portable_kernels()  # a worker that is forked has them
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the training process ends in good order
    seed_generators(torch.initial_seed())


class GeneratorStates(TypedDict):
    """The states of all generators, as they are saved in a checkpoint."""

    python: list[Any]  # version, the words of the state, a normal number kept for later
    numpy: list[Any]  # name, the words of the state, position, and normal numbers kept for later
    torch: torch.Tensor
    cuda: list[torch.Tensor]


def get_seed_state() -> GeneratorStates:
    """Return the states of all generators as tensors and numbers: nothing that needs pickle."""
    version, internal, gauss_next = random.getstate()
    numpy_state: Any = np.random.get_state()
    name, key, *rest = numpy_state
    return {
        "python": [version, torch.tensor(internal, dtype=torch.int64), gauss_next],
        "numpy": [name, torch.from_numpy(key.astype(np.int64)), *rest],
        "torch": torch.get_rng_state(),
        # All GPUs' generators are seeded alike: one state, for any number of GPUs.
        "cuda": [torch.cuda.get_rng_state()] if torch.cuda.is_initialized() else [],
    }


def set_seed_state(state: GeneratorStates) -> None:
    """Put back what `get_seed_state` returned.

    ValueError if that of a CUDA generator was saved and this machine has no GPU, and for what
    `get_seed_state` did not return.
    """
    try:
        _set_seed_state(state)
    except (TypeError, KeyError, IndexError, AttributeError, RuntimeError, OverflowError) as error:
        raise ValueError(f"no states of generators: {type(error).__name__}: {error}") from error


def _set_seed_state(state: GeneratorStates) -> None:
    version, internal, gauss_next = state["python"]
    random.setstate((version, tuple(internal.tolist()), gauss_next))
    name, key, *rest = state["numpy"]
    np.random.set_state((name, key.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(state["torch"])
    if state["cuda"]:
        if not torch.cuda.is_available():
            raise ValueError("the state of a GPU's generator was saved, and there is no GPU")
        for device in range(torch.cuda.device_count()):
            torch.cuda.set_rng_state(state["cuda"][0], device)
