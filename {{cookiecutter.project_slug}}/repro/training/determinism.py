"""Set the backend flags, which say which operations may run and how they round.

`set_determinism("strict")` promises that an operation either gives the same bits each time on the
same hardware class or raises an error; `warn` prints a warning instead; `off` restores the fastest
settings and promises nothing. `flags()` reads back what is really in force, for the record of a
run. Rounding is part of it: how products of float32 round follows from the precision alone
(precision.py), whatever the mode. The kernels of the portable profile are put in force here as
well, whatever the mode (cpu_kernels.py).
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch

from repro.core.errors import UserError
from repro.core.files import JsonObject
from repro.training.cpu_kernels import kernels_in_force, use_portable_kernels
from repro.training.precision import PRECISIONS, rounding, set_rounding
from repro.training.regions import compile_model, compiled_model

MODES = ("strict", "warn", "off")
FILL = "REPRO_FILL_MEMORY"  # set in the environment: new tensors are filled with NaN


_chosen: tuple[str, str] | None = None  # mode and precision


def set_determinism(mode: str, precision: str = "fp32") -> None:
    """Set all backend flags for `mode`, one of MODES, and `precision`, one of PRECISIONS.

    They hold for the whole process, and so do the portable profile's kernels, which are put in
    force here. Raises ValueError for another word.
    """
    if mode not in MODES:
        raise ValueError(f"determinism {mode!r}: expected one of {', '.join(MODES)}")
    if precision not in PRECISIONS:
        raise ValueError(f"precision {precision!r}: expected one of {', '.join(PRECISIONS)}")
    global _chosen
    _chosen = (mode, precision)
    use_portable_kernels()
    exact = mode != "off"
    torch.use_deterministic_algorithms(exact, warn_only=mode == "warn")
    # Filling new tensors with NaN finds buffers that are read before they are written, but costs
    # time: for tests (tests/conftest.py) and replays only.
    fill = exact and FILL in os.environ
    torch.utils.deterministic.fill_uninitialized_memory = fill  # type: ignore[attr-defined]
    for flag in _backend_flags(exact):
        setattr(flag.place, flag.name, flag.value)
    set_rounding(precision)


def chosen_determinism() -> tuple[str, str] | None:
    """Return the mode and the precision that this process was set to; None before that."""
    return _chosen


class _Flag(NamedTuple):
    """A flag of a back end of torch, and the value that it should have."""

    place_name: str
    place: Any
    name: str
    value: bool


def _backend_flags(exact: bool) -> list[_Flag]:
    """Return the back ends' flags with the values for exact or for fast results."""
    cudnn = torch.backends.cudnn
    matmul = torch.backends.cuda.matmul
    return [
        # benchmark times several algorithms and takes the fastest: another one on another day.
        _Flag("cudnn", cudnn, "benchmark", not exact),
        _Flag("cudnn", cudnn, "deterministic", exact),
        # Partial sums in 16 bits: how many there are depends on how the GPU cuts the matrix.
        _Flag("matmul", matmul, "allow_bf16_reduced_precision_reduction", not exact),
        _Flag("matmul", matmul, "allow_fp16_reduced_precision_reduction", not exact),
        _Flag("matmul", matmul, "allow_fp16_accumulation", False),
    ]


def refuse_changed_flags(expected: JsonObject) -> None:
    """Raise UserError if a flag or the number of threads is no longer what `flags()` told before.

    Called before each checkpoint: a library that switches cudnn.benchmark on would otherwise spoil
    the bits in silence.
    """
    in_force = flags()
    lines = [
        f"{name} is {in_force[name]}, it was {value} when training began: the author's code or a "
        "library changed it, and the bits since the last checkpoint are not those promised"
        for name, value in expected.items()
        if in_force[name] != value
    ]
    if lines:
        raise UserError(lines)


def set_threads(threads: int) -> None:
    """Set torch's number of CPU threads; sums are cut differently for another number.

    OMP_NUM_THREADS alone does not do: more than there are cores is silently cut (measured), and
    torchrun sets it to 1. Warns of more threads than cores: slow, but the bits of that number.
    """
    torch.set_num_threads(threads)
    cores = _cores()
    if threads > cores:
        print(
            f"warning: threads={threads} on {cores} cores: the bits of {threads} threads, but slow",
            flush=True,
        )


def _cores() -> int:
    """Return the number of cores that this process may use; macOS binds none to a process."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def flags() -> JsonObject:
    """Read back from torch which flags and which number of threads are in force."""
    in_force = {
        f"{flag.place_name}.{flag.name}": getattr(flag.place, flag.name)
        for flag in _backend_flags(exact=True)
    }
    return {
        **in_force,
        **rounding(),
        "deterministic_algorithms": torch.get_deterministic_debug_mode(),  # 0 off, 1 warn, 2 strict
        "threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "cpu_kernels": kernels_in_force(),
    }


@contextmanager
def single_thread() -> Iterator[None]:
    """Use one CPU thread inside: samples get the same bits in a worker and in this process.

    Nothing is set where there is one already: `torch.set_num_threads` also clears oneDNN's cache
    (`clear_computation_cache` in ATen/ParallelOpenMP.cpp), and the convolutions after it make
    theirs anew, which took 3 % of a small step (measured).
    """
    threads = torch.get_num_threads()
    if threads == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def compiled(model: torch.nn.Module) -> torch.nn.Module:
    """Return the model to be compiled by torch at its first call; it shares `model`'s weights.

    Each shape has kernels of its own: by default torch goes over to kernels for any shape when it
    meets a second one (an epoch's short last batch), so bits would depend on the steps before; a
    process that resumes has not met it (measured). The limit after which torch compiles no more
    would do the same, and is put out of reach.
    """
    _prepare_to_compile()
    return compiled_model(model)


def compile_in_place(model: torch.nn.Module) -> None:
    """Let torch compile the model at its first call, as `compiled` says; it stays that module."""
    _prepare_to_compile()
    compile_model(model)


def _prepare_to_compile() -> None:
    if not (shutil.which("g++") or shutil.which("clang++")):
        raise UserError("training.compile=true: no C++ compiler here (g++); torch needs one")
    torch._dynamo.config.recompile_limit = 1000
