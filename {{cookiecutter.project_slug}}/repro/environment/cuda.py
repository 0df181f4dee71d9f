"""Check that the CUDA libraries in this process are those of the lock.

The lock brings CUDA and cuDNN as packages, but the system's loader takes what it finds first: a
base image, a cluster's modules or LD_LIBRARY_PATH may put another one before them, whose results
have other bits. Promises to name each that is loaded from elsewhere, and versions that are not the
lock's. What cuDNN loads later, for the first operation that needs it, is not seen; nor is the
driver, which always comes from the machine.
"""

import re
from pathlib import Path
from types import ModuleType

from repro.environment.locks import read_lock

_MAPPED = re.compile(
    r"(?m)^[^/\n]*(/.*/lib(?:cudart|cudnn|cublas|cufft|curand|cusolver|cusparse|nccl|nvrtc|nvJitLink)"
    r"[^/\n]*\.so[^/\n]*)$"
)


def find_foreign(lock: Path, torch: ModuleType) -> list[str]:
    """Return a line for each library that is not the lock's; `torch` is the module."""
    return [*_loaded_from_elsewhere(torch), *_other_versions(lock, torch)]


def _loaded_from_elsewhere(torch: ModuleType) -> list[str]:
    """Name each CUDA library in this process that does not come with torch's environment."""
    packages = Path(str(torch.__file__)).resolve().parents[1]
    maps = Path("/proc/self/maps")
    paths = set(_MAPPED.findall(maps.read_text(errors="replace") if maps.is_file() else ""))
    return [
        f"{path} is loaded, from outside {packages}: is it in LD_LIBRARY_PATH or LD_PRELOAD?"
        for path in sorted(paths)
        if packages not in Path(path).parents
    ]


def _other_versions(lock: Path, torch: ModuleType) -> list[str]:
    """Name CUDA and cuDNN if torch has another version of them than the lock."""
    lines = []
    cuda = torch.version.cuda
    cudnn = torch.backends.cudnn.version()
    for name, pin in read_lock(lock).needed.items():
        numbers = re.findall(r"\d+", pin.version)
        library = re.sub(r"-cu\d+$", "", name)
        locked = f"{pin.place}: {name} {pin.version} is locked"
        if library == "nvidia-cuda-runtime" and cuda and cuda.split(".") != numbers[:2]:
            lines.append(f"{locked}, torch has CUDA {cuda}")
        if library == "nvidia-cudnn" and cudnn:
            loaded = _cudnn_version(cudnn)
            if loaded != numbers[:3]:
                lines.append(f"{locked}, cuDNN {'.'.join(loaded)} is loaded")
    return lines


def _cudnn_version(number: int) -> list[str]:
    """Return the parts of a version that cuDNN gives as one number: 92400 is 9.24.0."""
    major, rest = divmod(number, 10_000 if number >= 90_000 else 1000)
    return [str(major), str(rest // 100), str(rest % 100)]
