"""Choose the device that a process computes on: each process has a GPU to itself.

Promises that a device which cannot be had, or could not keep the kit's promises, is refused in one
line, and never replaced by another one: bits depend on it.
"""

import torch

from repro.core.errors import UserError
from repro.core.launch import Launch, launched
from repro.core.machines import NO_MPS


def choose_device(name: str) -> torch.device:
    """Return the device "cpu" or "cuda"; "auto" takes a GPU if there is one, each process its own.

    On a GPU it becomes the current one of the process. UserError for "mps", for "cuda" without a
    GPU, and for more processes than there are GPUs.
    """
    if name == "mps":
        raise UserError(f"device=mps: {NO_MPS}")
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("device=cuda: torch finds no GPU here; use device=cpu or device=auto")
    if name == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    device = torch.device("cuda", _own_gpu(launched(), torch.cuda.device_count()))
    torch.cuda.set_device(device)
    return device


def _own_gpu(launch: Launch, gpus: int) -> int:
    """Return the number of the GPU that this process has to itself; UserError if there is none."""
    if launch.local_rank is None and launch.size > 1:
        raise UserError(
            f"LOCAL_RANK is not set, and it says which of the {gpus} GPUs is this process's: start "
            "the processes with torchrun"
        )
    own = launch.local_rank or 0
    if own >= gpus:
        raise UserError(
            f"LOCAL_RANK={own}, but there are {gpus} GPUs here: start at most {gpus} processes on "
            "this machine"
        )
    return own
