"""Whether the CUDA libraries in this process are those of the lock.

The lock brings CUDA and cuDNN as packages, but the system's loader takes what it finds first: a
base image, a cluster's modules or LD_LIBRARY_PATH may put another one before them, whose results
have other bits. Promises to name each that is loaded from elsewhere, and versions that are not the
lock's. What cuDNN loads later, for the first operation that needs it, is not seen; nor is the
driver, which always comes from the machine.
"""

import re
from pathlib import Path
from typing import Any

from repro.environment.locks import read_lock

_MAPPED = re.compile(
    r"(?m)^[^/\n]*(/.*/lib(?:cudart|cudnn|cublas|cufft|curand|cusolver|cusparse|nccl|nvrtc|nvJitLink)"
    r"[^/\n]*\.so[^/\n]*)$"
)


def find_foreign(lock: Path, torch: Any) -> list[str]:
    """A line for each library that is not the lock's; `torch` is the module."""
    packages = Path(torch.__file__).resolve().parents[1]
    maps = Path("/proc/self/maps")
    paths = set(_MAPPED.findall(maps.read_text(errors="replace") if maps.is_file() else ""))
    lines = [
        f"{path} is loaded, from outside {packages}: is it in LD_LIBRARY_PATH or LD_PRELOAD?"
        for path in sorted(paths)
        if packages not in Path(path).parents
    ]
    cuda, cudnn = torch.version.cuda, torch.backends.cudnn.version()
    for name, pin in read_lock(lock)[0].items():
        numbers = re.findall(r"\d+", pin.version)
        kind = re.sub(r"-cu\d+$", "", name)
        if kind == "nvidia-cuda-runtime" and cuda and cuda.split(".") != numbers[:2]:
            lines.append(f"{pin.place}: {name} {pin.version} is locked, torch has CUDA {cuda}")
        if kind == "nvidia-cudnn" and cudnn:
            major, rest = divmod(cudnn, 10_000 if cudnn >= 90_000 else 1000)  # 92400 is 9.24.0
            loaded = [str(major), str(rest // 100), str(rest % 100)]
            if loaded != numbers[:3]:
                found = f"cuDNN {'.'.join(loaded)} is loaded"
                lines.append(f"{pin.place}: {name} {pin.version} is locked, {found}")
    return lines
