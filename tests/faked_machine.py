"""Let a project's commands believe that they run on another machine.

The one function that asks the system (repro/core/machines.py) is replaced by a hook that Python
itself loads at the start of each process, data workers included: nothing of the project changes,
whose code is a condition. So what follows from the answer is tested, and nothing of the machine:
its arithmetic, its libraries and its kernel stay those of this one.
"""

import subprocess
from pathlib import Path

from conftest import Project
from repro.core.machines import ThisMachine

_HOOK = """
import importlib.machinery, sys

class _Loader(importlib.machinery.SourceFileLoader):
    def exec_module(self, module):
        super().exec_module(module)
        machine = module.ThisMachine({fields})
        module.this_machine = lambda: machine
        if machine.system == "darwin":  # Python's default there
            import multiprocessing
            multiprocessing.set_start_method("spawn", force=True)

class _Finder:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name != "repro.core.machines":
            return None
        sys.meta_path.remove(_Finder)
        spec = importlib.util.find_spec(name)
        spec.loader = _Loader(name, spec.origin)
        return spec

sys.meta_path.insert(0, _Finder)
"""
# As /proc/cpuinfo has it on such a machine, one core of it.
NEOVERSE_N1 = """processor\t: 0
BogoMIPS\t: 50.00
Features\t: fp asimd evtstrm aes crc32 atomics fphp asimdhp cpuid asimdrdm asimddp ssbs
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x3
CPU part\t: 0xd0c
CPU revision\t: 1
"""
ARM_SERVER = ThisMachine("linux", "aarch64", NEOVERSE_N1)
ARM_CLASS = "cpu aarch64 Neoverse-N1 (04880d67) native"
MAC = ThisMachine("darwin", "arm64", "Apple M2 Pro", version="15.1")
MAC_CLASS = "cpu Apple M2 Pro, macOS 15.1 native"


class FakedMachine:
    """A project on a machine that is not there; its commands are processes, never forks."""

    def __init__(self, project: Project, machine: ThisMachine, place: Path) -> None:
        self.project = project
        self.hook = place / f"on-{machine.system}-{machine.architecture}"
        self.hook.mkdir(parents=True)
        text = _HOOK.replace("{fields}", ", ".join(map(repr, machine)))
        (self.hook / "sitecustomize.py").write_text(f"import importlib.util\n{text}")

    def run(self, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run `python -m WORDS`."""
        found = {"PYTHONPATH": str(self.hook), **variables}
        return self.project.run("python", "-m", *words, **found)
