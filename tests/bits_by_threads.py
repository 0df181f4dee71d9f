"""Print a digest of what each case makes, by numbers of threads: for the scripts of test_cpus.py.

A script imports it once the project can be imported from.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence

import torch
from repro.training.cpu_kernels import PORTABLE_KERNELS, kernels_in_force
from repro.training.determinism import set_determinism
from torch import Tensor

Cases = Iterable[tuple[str, list[Tensor]]]  # what each made, by its name


def print_digests(
    threads: Sequence[str], generator: torch.Generator, *makers: Callable[[], Cases]
) -> None:
    """Compute the cases anew for each number of threads, with the generator seeded alike."""
    set_determinism("strict")
    assert kernels_in_force() == PORTABLE_KERNELS
    found = {}
    for number in map(int, threads):
        torch.set_num_threads(number)
        generator.manual_seed(0)
        for cases in makers:
            for name, made in cases():
                found[f"{number} threads, {name}"] = _digest(made)
    print(json.dumps(found))


def _digest(tensors: list[Tensor]) -> str:
    whole = hashlib.sha256()
    for tensor in tensors:
        plain = tensor.detach().contiguous()
        whole.update(plain.flatten().view(torch.uint8).numpy().tobytes())
    return whole.hexdigest()[:16]
