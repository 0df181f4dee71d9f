"""ARM servers, emulated: for each CPU model an environment whose Python is the emulator's.

An environment is a folder as `make setup` makes one: `bin/python` is Debian's Python for aarch64,
started by qemu-user, and the packages are those of the locks, each checked by its hash. So a
project uses it by `VENV=FOLDER`, and what a project starts with sys.executable (another profile, a
data worker) is emulated, too. Everything lies below .build/arm and stays, as other environments do;
it is made anew when a lock or this file changes. Debian's files come by apt, which takes its
architecture from an option here: nothing is installed on this machine.

An emulated CPU has a real one's instructions and model number; it has neither its speed nor its
mistakes.
"""

import fcntl
import hashlib
import os
import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from conftest import ROOT, clean_environ, finish

HOME = ROOT / ".build" / "arm"
DEBIAN = HOME / "debian"
PACKAGES = HOME / "packages"
LOCKS = sorted(
    ROOT / "templates" / "locks" / f"{task}.lock" for task in ("images", "table", "text")
)
# libstdc++6 is what torch needs of the system; python3-venv is what setup looks for.
FROM_DEBIAN = ("python3", "python3-venv", "libstdc++6")


class Model(NamedTuple):
    """A CPU model as qemu names it, and the number by which libraries know it (MIDR_EL1)."""

    qemu: str
    number: int


# The numbers are those that qemu itself gives the models (target/arm/cpu64.c). The last ones are no
# CPUs that are sold: all that qemu knows (SVE2 and bf16), with vectors as long as those of Neoverse
# V1 (256 bits) and of Neoverse N2 and V2 (128 bits). torch has kernels of their own for these two
# lengths; `max` has vectors of 512 bits, as A64FX has.
MODELS = {
    "cortex-a72": Model("cortex-a72", 0x410FD083),
    "neoverse-n1": Model("neoverse-n1", 0x414FD0C1),
    "a64fx": Model("a64fx", 0x461F0010),
    "max": Model("max", 0x000F0510),
    "max-sve256": Model("max,sve-default-vector-length=32", 0x000F0510),
    "max-sve128": Model("max,sve-default-vector-length=16", 0x000F0510),
}

# The names of what a CPU can, by the kernel's bits (arch/arm64/include/uapi/asm/hwcap.h).
_FIRST = """fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm jscvt
fcma lrcpc dcpop sha3 sm3 sm4 asimddp sha512 sve asimdfhm dit uscat ilrcpc flagm ssbs sb paca
pacg"""
_SECOND = """dcpodp sve2 sveaes svepmull svebitperm svesha3 svesm4 flagm2 frint svei8mm svef32mm
svef64mm svebf16 i8mm bf16 dgh rng bti mte"""


class NoEmulator(Exception):
    """Why there is none."""


def emulated(model: str) -> Path:
    """The environment of a CPU model, made where it is not there; NoEmulator says why not."""
    qemu = shutil.which("qemu-aarch64") or shutil.which("qemu-aarch64-static")
    if not qemu or not shutil.which("apt-get"):
        raise NoEmulator("needs qemu-aarch64 (Debian's and Ubuntu's qemu-user) and apt")
    with _one_at_a_time():
        if not _is_made():
            shutil.rmtree(HOME / "models", ignore_errors=True)
            _get_debian()
            _get_packages()
            (HOME / "made").write_text(_made_from())
        _make_environment(HOME / "models" / model, MODELS[model], qemu)
    return HOME / "models" / model / "venv"


@contextmanager
def _one_at_a_time() -> Iterator[None]:
    HOME.mkdir(parents=True, exist_ok=True)
    with (HOME / "lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _made_from() -> str:
    whole = hashlib.sha256()
    for path in (Path(__file__), *LOCKS):
        whole.update(path.read_bytes())
    return whole.hexdigest()


def _is_made() -> bool:
    path = HOME / "made"
    return path.is_file() and path.read_text() == _made_from()


def _run(*command: object) -> str:
    done = finish([str(word) for word in command], HOME, clean_environ())
    if done.returncode:
        raise NoEmulator(f"{shlex.join(map(str, command))}: {done.stdout}{done.stderr}"[-2000:])
    return done.stdout


def _get_debian() -> None:
    """Unpack Python for aarch64 and all that it needs, of this machine's own release."""
    shutil.rmtree(DEBIAN, ignore_errors=True)
    apt = HOME / "apt"
    for folder in ("lists/partial", "archives/partial"):
        (apt / folder).mkdir(parents=True, exist_ok=True)
    options = {
        "APT::Architecture": "arm64",
        "APT::Architectures": "arm64",
        "APT::Sandbox::User": "",  # the one that apt would be cannot write here
        "Debug::NoLocking": "true",
        "Dir::State::Lists": apt / "lists",
        "Dir::State::status": "/dev/null",  # nothing is installed there
        "Dir::Cache": apt,
    }
    command = ["apt-get", *(f"--option={name}={value}" for name, value in options.items())]
    _run(*command, "update")
    _run(*command, "install", "--yes", "--download-only", "--no-install-recommends", *FROM_DEBIAN)
    for package in sorted((apt / "archives").glob("*.deb")):
        _run("dpkg-deb", "--extract", package, DEBIAN)
    shutil.rmtree(apt)


def _get_packages() -> None:
    """Install what the locks of all tasks have for Linux on aarch64.

    CUDA's packages, 3.2 of 5.4 GB, too: torch is not imported without them, and asks cuDNN for its
    version.
    """
    shutil.rmtree(PACKAGES, ignore_errors=True)
    version = _python().name.removeprefix("python")
    target = ("--python-platform", "aarch64-unknown-linux-gnu", "--python-version", version)
    checked = ("--require-hashes", "--no-deps", "--only-binary", ":all:", "--no-cache")
    locks = [word for lock in LOCKS for word in ("--requirement", lock)]
    _run(
        sys.executable,
        "-m",
        "uv",
        "pip",
        "install",
        "--target",
        PACKAGES,
        *target,
        *checked,
        *locks,
    )


def _python() -> Path:
    """Debian's Python for aarch64; it runs in the emulator alone."""
    found = [p for p in (DEBIAN / "usr" / "bin").iterdir() if re.fullmatch(r"python3\.\d+", p.name)]
    (python,) = found
    return python


def _make_environment(folder: Path, model: Model, qemu: str) -> None:
    """Make a model's folder: what the emulator shows of the machine, and an environment.

    qemu looks for each file that a program opens below its -L first. That is `root` here: the
    libraries, and the CPU as libraries and the kit read it from Linux.
    """
    if (folder / "ready").exists():
        return
    shutil.rmtree(folder, ignore_errors=True)
    root = folder / "root"
    library = Path("lib") / _python().name
    (root / "usr" / "bin").mkdir(parents=True)
    (root / "lib").symlink_to(DEBIAN / "lib")
    (root / "usr" / "lib").symlink_to(DEBIAN / "usr" / "lib")
    base = root / "usr" / "bin" / _python().name
    _write_start(base, qemu, model, root)
    venv = folder / "venv"
    (venv / library).mkdir(parents=True)
    (venv / library / "site-packages").symlink_to(PACKAGES)
    (venv / "bin").mkdir()
    _write_start(venv / "bin" / base.name, qemu, model, root)
    (venv / "bin" / "python").symlink_to(base.name)
    (venv / "pyvenv.cfg").write_text(
        f"home = {base.parent}\ninclude-system-site-packages = false\n"
    )
    _write_cpu(root, model, base)
    (folder / "ready").touch()


def _write_start(path: Path, qemu: str, model: Model, root: Path) -> None:
    """Write the program that is Python to all others; it takes its place from its argument 0."""
    command = shlex.join([qemu, "-cpu", model.qemu, "-L", str(root)])
    path.write_text(f'#!/bin/sh\nexec {command} -0 "$0" {shlex.quote(str(_python()))} "$@"\n')
    path.chmod(0o755)


def _write_cpu(root: Path, model: Model, python: Path) -> None:
    """Write what Linux says of the CPU: torch's cpuinfo ends the process where it is missing."""
    ask = "import ctypes; get = ctypes.CDLL(None).getauxval; print(get(16), get(26))"
    bits = [int(word) for word in _run(python, "-c", ask).split()]
    names = zip((_FIRST, _SECOND), bits, strict=True)
    features = " ".join(
        name for table, has in names for k, name in enumerate(table.split()) if has >> k & 1
    )
    number = model.number
    fields = {
        "BogoMIPS": "50.00",
        "Features": features,
        "CPU implementer": f"{number >> 24:#04x}",
        "CPU architecture": "8",
        "CPU variant": f"{number >> 20 & 15:#x}",
        "CPU part": f"{number >> 4 & 0xFFF:#05x}",
        "CPU revision": f"{number & 15}",
    }
    blocks = []
    for core in range(os.cpu_count() or 1):
        lines = {"processor": str(core), **fields}
        blocks.append("".join(f"{name}\t: {value}\n" for name, value in lines.items()))
        place = root / "sys/devices/system/cpu" / f"cpu{core}" / "regs/identification"
        place.mkdir(parents=True)
        (place / "midr_el1").write_text(f"{number:#018x}\n")
    (root / "proc").mkdir()
    (root / "proc" / "cpuinfo").write_text("\n".join(blocks))
