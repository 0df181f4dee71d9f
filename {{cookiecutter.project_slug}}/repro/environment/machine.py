"""Describe the machine and its software: hardware, versions, the variables that can change bits.

Whatever cannot be found out is None; nothing is guessed. Only variables whose names stand here are
read, because others may hold a secret.
"""

import os
import platform
import subprocess
from dataclasses import dataclass, field
from types import ModuleType

from repro.environment.cpu import read_cpu
from repro.environment.locks import installed_versions

_TIMEOUT = 120.0  # seconds for nvidia-smi: a driver that hangs must not stop a run

# Exact names, never by prefix: SLURM_* or CUDA_* may hold anything.
_ENVIRONMENT = """PYTHONHASHSEED CUBLAS_WORKSPACE_CONFIG ATEN_CPU_CAPABILITY ONEDNN_MAX_CPU_ISA
MKL_CBWR MKL_ENABLE_INSTRUCTIONS NPY_DISABLE_CPU_FEATURES OPENBLAS_CORETYPE OPENBLAS_L2_SIZE
NVPL_BLAS_DEBUG_CPU_TYPE OMP_NUM_THREADS MKL_NUM_THREADS OPENBLAS_NUM_THREADS
NVIDIA_TF32_OVERRIDE TORCH_ALLOW_TF32_CUBLAS_OVERRIDE CUDA_VISIBLE_DEVICES CUDA_LAUNCH_BLOCKING
PYTORCH_CUDA_ALLOC_CONF NCCL_ALGO NCCL_PROTO WORLD_SIZE RANK LOCAL_RANK LOCAL_WORLD_SIZE
SLURM_JOB_ID SLURM_ARRAY_TASK_ID SLURM_NNODES SLURM_NTASKS"""


@dataclass(frozen=True)
class Hardware:
    """Processor, memory and GPUs of this machine."""

    cpu_model: str
    cpu_features: list[str]  # those instruction sets that libraries choose their kernels by
    logical_cores: int | None
    memory_gib: float | None
    gpus: list[str]
    gpu_driver: str | None  # None: no GPU is used


@dataclass(frozen=True)
class Software:
    """Versions of Python, the system and the packages; torch's are None where it is missing."""

    python: str
    implementation: str
    platform: str
    libc: str
    torch: str | None
    cuda: str | None
    cudnn: int | None
    numpy: str | None
    packages: dict[str, str]
    # Lines about CUDA libraries that the lock did not bring (environment/cuda.py).
    not_as_locked: list[str] = field(default_factory=list)


def import_torch() -> ModuleType | None:
    """Import torch and return the module; None where it is not installed. Takes a second."""
    try:
        import torch
    except ImportError:
        return None
    return torch


def get_hardware() -> Hardware:
    """Read the CPU's model and instruction sets, cores, memory, and the GPUs that torch sees."""
    cpu = read_cpu()
    gpus, driver = _gpus_and_driver()
    return Hardware(
        cpu_model=cpu.model,
        cpu_features=cpu.features,
        logical_cores=os.cpu_count(),
        memory_gib=_memory_gib(),
        gpus=gpus,
        gpu_driver=driver,
    )


def _memory_gib() -> float | None:
    """Return the size of the memory; None where the system has no such number."""
    try:
        return round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1)
    except (ValueError, OSError):
        return None


def _gpus_and_driver() -> tuple[list[str], str | None]:
    """Return the names of the GPUs and the version of their driver, if torch can use one."""
    torch = import_torch()
    if not torch or not torch.cuda.is_available():
        return [], None
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    gpus: list[str] = []
    try:
        gpus = [torch.cuda.get_device_name(k) for k in range(torch.cuda.device_count())]
        answer = subprocess.run(query, capture_output=True, check=True, timeout=_TIMEOUT)
    except (OSError, RuntimeError, subprocess.SubprocessError) as error:
        return gpus, f"unknown: {type(error).__name__}"
    return gpus, answer.stdout.decode().split("\n")[0].strip()


def get_software() -> Software:
    """Read the versions of Python, the C library, torch, CUDA, cuDNN and all installed packages."""
    torch = import_torch()
    packages = installed_versions()
    return Software(
        python=platform.python_version(),
        implementation=platform.python_implementation(),
        platform=platform.platform(),
        libc=" ".join(platform.libc_ver()).strip(),
        torch=torch.__version__ if torch else None,
        cuda=torch.version.cuda if torch else None,
        cudnn=torch.backends.cudnn.version() if torch else None,
        numpy=packages.get("numpy"),
        packages=packages,
    )


def get_environment_variables() -> dict[str, str]:
    """Return those variables that can change bits or say which process this is, where set."""
    return {name: os.environ[name] for name in _ENVIRONMENT.split() if name in os.environ}
