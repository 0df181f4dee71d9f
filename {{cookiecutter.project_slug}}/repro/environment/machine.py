"""Describe the machine and its software: hardware, versions, the variables that can change bits.

The unknown is None, never a guess.
"""

import importlib.metadata
import os
import platform
import re
import subprocess
from pathlib import Path
from typing import Any

_TIMEOUT = 20.0  # seconds for nvidia-smi: a hanging driver stops no run

# Exact names, never by prefix: SLURM_* or CUDA_* may hold anything.
_ENVIRONMENT = """PYTHONHASHSEED CUBLAS_WORKSPACE_CONFIG ATEN_CPU_CAPABILITY ONEDNN_MAX_CPU_ISA
MKL_CBWR MKL_ENABLE_INSTRUCTIONS NPY_DISABLE_CPU_FEATURES OPENBLAS_CORETYPE OMP_NUM_THREADS
MKL_NUM_THREADS OPENBLAS_NUM_THREADS NVIDIA_TF32_OVERRIDE TORCH_ALLOW_TF32_CUBLAS_OVERRIDE
CUDA_VISIBLE_DEVICES CUDA_LAUNCH_BLOCKING PYTORCH_CUDA_ALLOC_CONF NCCL_ALGO NCCL_PROTO WORLD_SIZE
RANK LOCAL_RANK LOCAL_WORLD_SIZE SLURM_JOB_ID SLURM_ARRAY_TASK_ID SLURM_NNODES SLURM_NTASKS"""


def import_torch() -> Any:
    """The module torch, imported late (a second); None where it is not installed."""
    try:
        import torch
    except ImportError:
        return None
    return torch


def get_hardware() -> dict[str, Any]:
    """CPU model, instruction sets, logical cores, memory in GiB; GPU names and driver version."""
    cpuinfo = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    model = re.search(r"(?m)^model name\s*: (.*)", cpuinfo)
    features = re.findall(r"\b(?:avx|amx|bmi|sse4|sve)\w*|\b(?:fma|f16c|asimd|bf16)\b", cpuinfo)
    torch, gpus, driver = import_torch(), [], None
    if torch and torch.cuda.is_available():
        query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        try:
            gpus = [torch.cuda.get_device_name(k) for k in range(torch.cuda.device_count())]
            answer = subprocess.run(query, capture_output=True, check=True, timeout=_TIMEOUT)
            driver = answer.stdout.decode().split("\n")[0].strip()
        except (OSError, RuntimeError, subprocess.SubprocessError) as error:
            driver = f"unknown: {type(error).__name__}"
    return {
        "cpu_model": model[1] if model else platform.processor() or platform.machine(),
        "cpu_features": sorted(set(features)),
        "logical_cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1),
        "gpus": gpus,
        "gpu_driver": driver,
    }


def get_software() -> dict[str, Any]:
    """Versions of Python, the C library, torch, CUDA, cuDNN, NumPy and every installed package."""
    torch = import_torch()
    packages: dict[str, str] = {}
    for metadata in (distribution.metadata for distribution in importlib.metadata.distributions()):
        if metadata and metadata["Name"]:  # a broken installation has none
            name = re.sub(r"[-_.]+", "-", metadata["Name"]).lower()  # PEP 503
            packages.setdefault(name, metadata["Version"])  # the first on sys.path is imported
    return {
        "python": platform.python_version(),
        "implementation": platform.python_implementation(),
        "platform": platform.platform(),
        "libc": " ".join(platform.libc_ver()).strip(),
        "torch": torch and torch.__version__,
        "cuda": torch and torch.version.cuda,
        "cudnn": torch and torch.backends.cudnn.version(),
        "numpy": packages.get("numpy"),
        "packages": packages,
    }


def get_environment_variables() -> dict[str, str]:
    """The variables that can change bits or say which process this is, where set; no others."""
    return {name: os.environ[name] for name in _ENVIRONMENT.split() if name in os.environ}
