"""Name the CPU, what its kernels are chosen by, and the hardware class of the native profile.

Machines of one class are promised the same bits. Libraries choose their kernels by the CPU's model
and by its features, so both are in the class's name. An emulated or a virtual CPU is what it says
that it is.
"""

import re
from typing import NamedTuple

from repro.core import machines
from repro.core.hashing import sha256_json
from repro.core.machines import AARCH64, ThisMachine

# Features by which torch and the libraries below it choose their kernels. The kernel tells more of
# an ARM CPU with each version, so the list of all of them would make another class of one machine.
_FEATURES = re.compile(r"\b(?:avx|amx|bmi|sse4|sve)\w*|\b(?:fma|f16c|asimd|bf16)\b")
_FEATURES_OF_ARM = re.compile(r"\b(?:asimd|sve|sme)\w*|\b(?:fphp|bf16|i8mm)\b")

# The names of CPUs that people train on, by implementer and part as /proc/cpuinfo has them: those
# of util-linux (sys-utils/lscpu-arm.c). Any other one is named by these two numbers.
_ARM_MODELS = {
    "0x41 0xd08": "Cortex-A72",
    "0x41 0xd0b": "Cortex-A76",
    "0x41 0xd0c": "Neoverse-N1",
    "0x41 0xd40": "Neoverse-V1",
    "0x41 0xd49": "Neoverse-N2",
    "0x41 0xd4f": "Neoverse-V2",
    "0x41 0xd84": "Neoverse-V3",
    "0x41 0xd85": "Cortex-X925",
    "0x41 0xd87": "Cortex-A725",
    "0x41 0xd8e": "Neoverse-N3",
    "0x46 0x001": "A64FX",
    "0x48 0xd01": "TaiShan-v110",
    "0x6d 0xd49": "Azure-Cobalt-100",
    "0xc0 0xac3": "Ampere-1",
    "0xc0 0xac4": "Ampere-1a",
}


class Cpu(NamedTuple):
    """The CPU's model, and those of its features by which kernels are chosen, sorted."""

    model: str
    features: list[str]


def read_cpu() -> Cpu:
    """Read which CPU this machine has; the architecture where the system does not tell."""
    machine = machines.this_machine()
    if machine.is_macos:
        return Cpu(machine.cpu or machine.architecture, [])
    if machine.architecture == AARCH64:
        return _arm_cpu(machine)
    model = re.search(r"(?m)^model name\s*: (.*)", machine.cpu)
    features = set(_FEATURES.findall(machine.cpu))
    return Cpu(model[1] if model else machine.architecture, sorted(features))


def native_class() -> str:
    """Name the hardware class of a CPU under the native profile.

    Virtual machines hide the model, so a digest of the features stands beside it. Macs tell no
    features: there the model has them. Their matrices are multiplied by Accelerate, a part of macOS
    that no lock holds and that changes with its releases (15.1 brought another LAPACK, 15.2 mended
    it: https://github.com/scipy/scipy/issues/21862), so macOS's version is in the name.
    """
    cpu = read_cpu()
    machine = machines.this_machine()
    if machine.is_macos:
        return f"cpu {cpu.model}, macOS {machine.version or 'of unknown version'} native"
    architecture = f"{AARCH64} " if machine.architecture == AARCH64 else ""
    return f"cpu {architecture}{cpu.model} ({sha256_json(cpu.features)[:8]}) native"


def _arm_cpu(machine: ThisMachine) -> Cpu:
    """Read an ARM CPU under Linux; one with several kinds of cores has several models."""
    makers = re.findall(r"(?m)^CPU implementer\s*: (\S+)", machine.cpu)
    parts = re.findall(r"(?m)^CPU part\s*: (\S+)", machine.cpu)
    numbers = {f"{maker} {part}" for maker, part in zip(makers, parts, strict=False)}
    models = sorted(_ARM_MODELS.get(number, number) for number in numbers)
    lines = "\n".join(re.findall(r"(?m)^Features\s*: (.*)", machine.cpu))
    features = set(_FEATURES_OF_ARM.findall(lines))
    if machine.vector_bits:  # other kernels for another length
        features.add(f"sve{machine.vector_bits}")
    return Cpu(" + ".join(models) or "of unknown model", sorted(features))
