"""Load tensors from a safetensors file that may be damaged."""

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from repro.core.bounded import RESTORE, DamagedFile
from repro.core.special_files import fault_of_kind
from repro.core.tensor_files import fault_of_tensors


def load_tensors(path: Path, *needed: str, remedy: str = RESTORE) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file, on the CPU.

    DamagedFile if it is not whole, or lacks one of the `needed` tensors.
    """
    fault = fault_of_kind(path) or fault_of_tensors(path)
    if fault:
        raise DamagedFile(path, fault, remedy)
    try:
        tensors = load_file(path)
    except (SafetensorError, KeyError, ValueError) as error:  # a type of another version
        raise DamagedFile(path, " ".join(str(error).split()), remedy) from error
    if missing := [name for name in needed if name not in tensors]:
        raise DamagedFile(path, f"it lacks the tensor {', '.join(missing)}", remedy)
    return tensors
