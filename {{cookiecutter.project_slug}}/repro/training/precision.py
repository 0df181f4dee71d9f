"""The precisions of a training, `training.precision`: how products round, and where they can so.

fp32: float32 as it is. tf32: GPUs round what goes into a float32 product to 10 bits of mantissa,
and add up in float32; only GPUs from NVIDIA's Ampere on can. bf16: autocast, which computes what
may be in bfloat16 and leaves the rest in float32. Each is deterministic, and has bits of its own:
the precision is a condition.
"""

from contextlib import AbstractContextManager, nullcontext

import torch

from repro.core.errors import UserError

PRECISIONS = ("fp32", "tf32", "bf16")
_AMPERE = (8, 0)  # the first compute capability with TF32: NVIDIA's CUDA programming guide

# How a float32 product rounds, by library and operation. cuBLAS has the products of matrices, cuDNN
# convolutions and recurrent layers, and oneDNN all three on the CPU.
_ROUNDED = {
    "matmul.fp32_precision": ("cuda", "matmul"),
    "cudnn.conv.fp32_precision": ("cuda", "conv"),
    "cudnn.rnn.fp32_precision": ("cuda", "rnn"),
    "mkldnn.matmul.fp32_precision": ("mkldnn", "matmul"),
    "mkldnn.conv.fp32_precision": ("mkldnn", "conv"),
    "mkldnn.rnn.fp32_precision": ("mkldnn", "rnn"),
}


def precision_of(config: object) -> str:
    """Return a config's training.precision; fp32 for one that has none, or one of its own kind."""
    chosen = getattr(getattr(config, "training", None), "precision", "fp32")
    return chosen if chosen in PRECISIONS else "fp32"


def fault_of_precision(precision: str, device: torch.device) -> str:
    """Say in a line why a device cannot compute in a precision; "" if it can.

    A GPU without TF32 would compute in float32 and say nothing.
    """
    if precision != "tf32":
        return ""
    wanted = "training.precision=tf32 needs an NVIDIA GPU from Ampere on (compute capability 8.0)"
    instead = "take training.precision=fp32 or bf16"
    if device.type != "cuda":
        return f"{wanted}, and the training is on the {device.type.upper()}: {instead}"
    if torch.version.hip:
        return f"{wanted}, and {torch.cuda.get_device_name(device)} is none of NVIDIA's: {instead}"
    capability = torch.cuda.get_device_capability(device)
    if capability >= _AMPERE:
        return ""
    name = torch.cuda.get_device_name(device)
    has = ".".join(map(str, capability))
    return f"{wanted}, and {name} has {has}: {instead}"


def refuse_precision(precision: str, device: torch.device) -> None:
    """Raise UserError where a device cannot compute in a precision."""
    if fault := fault_of_precision(precision, device):
        raise UserError(fault)


def set_rounding(precision: str) -> None:
    """Set how products of float32 round: as they are, or in TF32 on a GPU.

    torch has two APIs for this. Ours is the newer one, `fp32_precision`: it knows each operation,
    and reading it never raises an error. Whoever reads the older one (`allow_tf32`, and
    torch.compile by `get_float32_matmul_precision`) gets an error where it holds another value
    (measured), so that one is given the same value first.
    """
    torch.backends.cudnn.allow_tf32 = precision == "tf32"
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    write = torch._C._set_fp32_precision_setter
    for library, operation in _ROUNDED.values():
        write(library, operation, "tf32" if (library, precision) == ("cuda", "tf32") else "ieee")


def rounding() -> dict[str, str]:
    """Read back how products of float32 round: ieee (as they are, torch's none too), tf32, bf16."""
    read = torch._C._get_fp32_precision_getter
    return {name: read(*place).replace("none", "ieee") for name, place in _ROUNDED.items()}


def autocast(device: torch.device, precision: str) -> AbstractContextManager[None]:
    """Compute in bfloat16 inside, where `precision` is bf16 and an operation may be."""
    if precision != "bf16":
        return nullcontext()
    return torch.autocast(device.type, torch.bfloat16)
