"""Say what machine this is: the one place that asks the system for it.

The profile, the hardware class, which packages of a lock are needed and what differs between Linux
and macOS follow from the answer, so that a test can stand for another machine here and nowhere
else. No variable of the environment has a say in it. bootstrap.py asks by itself: it runs before
there is a kit to import.
"""

from __future__ import annotations  # `make image-digest` runs with older Pythons, too

import ctypes
import platform
import sys
from pathlib import Path
from typing import NamedTuple

LINUX = "linux"
MACOS = "darwin"
WINDOWS = "win32"
X86_64 = ("x86_64", "AMD64")
AARCH64 = "aarch64"

# Torch says the first half itself, where a tensor is to become one of float64.
NO_MPS = (
    "Apple's GPUs have no float64, in which losses are added here, and no promise of the kit was "
    "ever tested on one: take cpu"
)

_CPUINFO = Path("/proc/cpuinfo")
_PR_SVE_GET_VL = 51  # of prctl(2): the length of SVE's vectors, in the low 16 bits, in bytes


class ThisMachine(NamedTuple):
    """What the system says of itself, as far as bits may depend on it.

    `system` is as in sys.platform, `architecture` as the kernel names it. `cpu` is the text about
    the CPU: /proc/cpuinfo under Linux, its name under macOS, "" where there is none. `vector_bits`
    is the length of SVE's vectors, 0 without them. `version` is macOS's, which brings the library
    that multiplies matrices there; "" elsewhere.
    """

    system: str
    architecture: str
    cpu: str
    vector_bits: int = 0
    version: str = ""

    @property
    def kernel(self) -> str:
        """The name of its kernel, as platform.system() has it; of others than these, `system`."""
        return {LINUX: "Linux", MACOS: "Darwin", WINDOWS: "Windows"}.get(self.system, self.system)

    @property
    def is_macos(self) -> bool:
        """Whether this is a Mac."""
        return self.system == MACOS

    def __str__(self) -> str:
        names = {LINUX: "Linux", MACOS: "macOS", WINDOWS: "Windows"}
        return f"{names.get(self.system, self.system)} on {self.architecture}"


def this_machine() -> ThisMachine:
    """Ask the system what machine this is."""
    architecture = platform.machine()
    if sys.platform == MACOS:
        cpu = _said_by_macos("machdep.cpu.brand_string")
        version = _said_by_macos("kern.osproductversion")
        return ThisMachine(MACOS, architecture, cpu, version=version)
    try:
        cpu = _CPUINFO.read_text(errors="replace")
    except OSError:
        cpu = ""
    bits = _vector_bits() if architecture == AARCH64 else 0
    return ThisMachine(sys.platform, architecture, cpu, bits)


def _said_by_macos(name: str) -> str:
    """Return what macOS says of itself by that name (sysctl's); "" if it does not tell."""
    text = ctypes.create_string_buffer(256)
    size = ctypes.c_size_t(len(text))
    failed = ctypes.CDLL(None).sysctlbyname(
        name.encode(), text, ctypes.byref(size), None, ctypes.c_size_t(0)
    )
    return "" if failed else text.value.decode(errors="replace").strip()


def _vector_bits() -> int:
    """Return the length of SVE's vectors in this process; 0 on a CPU without them."""
    answer = ctypes.CDLL(None).prctl(_PR_SVE_GET_VL, 0, 0, 0, 0)
    return 8 * (answer & 0xFFFF) if answer > 0 else 0
