"""Which machines `make setup` takes, and what it does where Linux's own calls are not there.

The machine is faked: nothing here was ever run under macOS.
"""

import fcntl
import os
import platform
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import pytest
from bootstrap_module import load_bootstrap
from conftest import TEMPLATE
from faked_machine import ARM_SERVER, MAC
from repro.core import machines, project
from repro.core.errors import UserError
from repro.data import known_digests
from repro.environment import profile
from repro.environment.machine import get_hardware
from repro.training import determinism


@pytest.fixture
def bootstrap() -> ModuleType:
    return load_bootstrap()


class Told(NamedTuple):
    """What a machine tells of itself, as bootstrap.py asks it."""

    system: str
    machine: str
    macos: str = ""
    libc: str = ""


def be(monkeypatch: pytest.MonkeyPatch, told: Told, cpuinfo: str) -> None:
    monkeypatch.setattr(platform, "system", lambda: told.system)
    monkeypatch.setattr(platform, "machine", lambda: told.machine)
    monkeypatch.setattr(platform, "mac_ver", lambda: (told.macos, ("", "", ""), told.machine))
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    monkeypatch.setattr(os, "confstr", lambda name: told.libc)
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: cpuinfo)


@pytest.mark.parametrize(
    "told",
    [
        Told("Linux", "x86_64", libc="glibc 2.28"),
        Told("Linux", "aarch64", libc="glibc 2.28"),
        Told("Linux", "aarch64", libc="glibc 2.41"),
        Told("Darwin", "arm64", macos="14.0"),
        Told("Darwin", "arm64", macos="26.1"),
    ],
)
def test_setup_takes_the_machines_that_the_lock_fits(
    bootstrap: ModuleType, monkeypatch: pytest.MonkeyPatch, told: Told
) -> None:
    be(
        monkeypatch,
        told,
        "flags : avx2 fma\n" if told.machine == "x86_64" else "Features : asimd\n",
    )
    bootstrap.check_platform()


NEWEST = "glibc 2.41"
REFUSED = [
    (Told("Linux", "riscv64", libc=NEWEST), "this is Linux on riscv64, the lock fits Linux on"),
    (Told("Linux", "armv7l", libc=NEWEST), "this is Linux on armv7l"),
    (Told("Linux", "aarch64", libc="glibc 2.17"), "found glibc 2.17, the lock (manylinux_2_28) ne"),
    (Told("Linux", "aarch64"), "found another C library"),
    (Told("Linux", "x86_64", libc="glibc 2.28"), "this CPU lacks avx2 and fma"),
    (Told("Darwin", "arm64", macos="13.7"), "this is macOS 13.7, the lock fits macOS 14 or newer"),
    (Told("Darwin", "x86_64", macos="15.1"), "x86_64 (or an Intel Python: take an arm64 one)"),
    (Told("Windows", "AMD64"), "this is Windows on AMD64"),
    (Told("FreeBSD", "amd64"), "macOS 14 or newer on arm64; use the container"),
]


@pytest.mark.parametrize(("told", "words"), REFUSED)
def test_setup_refuses_other_machines_in_one_line(
    bootstrap: ModuleType, monkeypatch: pytest.MonkeyPatch, told: Told, words: str
) -> None:
    be(monkeypatch, told, "flags : sse2\n")
    with pytest.raises(bootstrap.Refused) as refused:
        bootstrap.check_platform()
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_python_of_another_architecture_does_not_fit(
    bootstrap: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a Mac an Intel Python runs as well, and would get other packages."""
    monkeypatch.setattr(bootstrap, "check_platform", lambda: None)
    assert bootstrap.fitting_python()[0]
    monkeypatch.setattr(platform, "machine", lambda: "arm64")
    with pytest.raises(bootstrap.Refused, match="the lock needs 3"):
        bootstrap.fitting_python()


def test_what_setup_starts_keeps_its_lock_where_no_kernel_ends_it(
    bootstrap: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """After a kill -9 pip goes on there, and no other setup may begin before its end."""
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    bootstrap.be_alone(tmp_path)
    (lock,) = bootstrap.HELD
    told = bootstrap.run([sys.executable, "-c", f"import os; print(os.fstat({lock}).st_ino)"])
    assert told == [str(tmp_path.stat().st_ino)]
    started = subprocess.Popen(["sleep", "60"], pass_fds=bootstrap.HELD)
    os.close(lock)  # as at the end of setup
    handle = os.open(tmp_path, os.O_RDONLY)
    try:
        with pytest.raises(BlockingIOError):
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        started.kill()
        started.wait()
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        started.kill()
        os.close(handle)


def test_under_linux_the_kernel_ends_what_setup_starts(bootstrap: ModuleType) -> None:
    told = bootstrap.run([sys.executable, "-c", _ASK_FOR_THE_SIGNAL])
    assert told == ["9"]
    assert bootstrap.HELD == []


_ASK_FOR_THE_SIGNAL = """
import ctypes
number = ctypes.c_int()
ctypes.CDLL(None).prctl(2, ctypes.byref(number))  # PR_GET_PDEATHSIG
print(number.value)
"""


def test_the_kernels_of_nvpl_are_not_chosen_on_arm(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = {"NVPL_BLAS_DEBUG_CPU_TYPE": "1"}
    profile._changes("native", chosen)  # without NVPL nothing reads it
    monkeypatch.setattr(machines, "this_machine", lambda: ARM_SERVER)
    profile._changes("native", {})
    with pytest.raises(UserError, match=r"NVPL_BLAS_DEBUG_CPU_TYPE=1 is set, .* unset NVPL_BLAS"):
        profile._changes("native", chosen)


def test_threads_are_set_where_no_core_is_bound_to_a_process(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    monkeypatch.setattr(determinism.torch, "set_num_threads", lambda threads: None)
    determinism.set_threads(3)
    assert capsys.readouterr().out == ""
    determinism.set_threads(4)
    assert "threads=4 on 3 cores" in capsys.readouterr().out


def test_peak_memory_is_told_in_mib_of_either_system(monkeypatch: pytest.MonkeyPatch) -> None:
    """macOS counts bytes where Linux counts KiB."""
    found = []
    for machine in (machines.this_machine(), MAC):
        monkeypatch.setattr(machines, "this_machine", lambda machine=machine: machine)
        monkeypatch.setattr(project, "command_line", lambda *_, **__: ["python", "-c", "pass"])
        monkeypatch.setattr(
            project.os, "wait4", lambda pid, options, wait4=os.wait4: _fixed(wait4(pid, options))
        )
        found.append(project.run_author_command(Path(), "train", [], capture=True).peak_memory_mib)
    assert found == [2**20, 2**10]


class _Usage:
    ru_maxrss = 2**30


def _fixed(waited: tuple[int, int, object]) -> tuple[int, int, _Usage]:
    return (waited[0], waited[1], _Usage())


def test_a_file_is_written_out_without_fdatasync(tmp_path: Path) -> None:
    """Python has none under macOS."""
    program = "import os; del os.fdatasync; from repro.data import known_digests as k; import os; "
    program += "print(k._write_out is os.fsync)"
    environ = {**os.environ, "PYTHONPATH": str(TEMPLATE), "PYTHONDONTWRITEBYTECODE": "1"}
    told = subprocess.check_output([sys.executable, "-c", program], env=environ, cwd=tmp_path)
    assert told == b"True\n"
    assert known_digests._write_out is os.fdatasync


def test_hardware_without_a_size_of_memory_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str) -> int:
        raise ValueError("unrecognized configuration name")

    monkeypatch.setattr(os, "sysconf", refuse)
    monkeypatch.setattr(machines, "this_machine", lambda: MAC)
    found = get_hardware()
    assert (found.cpu_model, found.memory_gib) == ("Apple M2 Pro", None)


def test_files_are_compared_by_processes_that_start_anew(tmp_path: Path) -> None:
    """As the doctor's do under macOS, by Python's default there."""
    program = """import multiprocessing; multiprocessing.set_start_method("spawn")
from repro.environment.installed_files import InstalledFile, compare_files
listed = [InstalledFile(path, size="3") for path in ("right", "wrong", "missing")]
print(*compare_files(listed, quick=False), sep="; ")
"""
    (tmp_path / "right").write_text("abc")
    (tmp_path / "wrong").write_text("abcd")
    environ = {**os.environ, "PYTHONPATH": str(TEMPLATE), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-c", program]
    told = subprocess.check_output(command, env=environ, cwd=tmp_path, text=True)
    assert [line.split(":")[0] for line in told.split("; ")] == [
        "wrong has 4 bytes, RECORD has 3",
        "missing",
    ]
