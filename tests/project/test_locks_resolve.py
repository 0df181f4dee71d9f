"""The locks hold what each supported platform and Python installs, with hashes and wheels alone.

uv resolves for other machines than this one (pip reads markers for this one) and tells the wheels
that would be taken there: each has to be in the lock, by its SHA-256. Nothing is installed. Six
sets of locks, nine machines: all of them in `make test-long`; in `make test` one set for each
platform, with another Python each.
"""

import os
import re
import tomllib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path

import pytest
from conftest import ROOT, UV, finish
from options import CHOICES, pins

LOCKS = ROOT / "templates" / "locks"
PLATFORMS = {
    "Linux x86-64": "x86_64-manylinux_2_28",
    "Linux aarch64": "aarch64-manylinux_2_28",
    "macOS arm64": "aarch64-apple-darwin",
}
MACHINES = [*product(PLATFORMS, ("3.11", "3.12", "3.13"))]
SETS = [
    *((task, "dev") for task in CHOICES["task"]),
    *(("images", tracker, "dev") for tracker in CHOICES["tracker"] if tracker != "none"),
]
CUDA = {"triton", "cuda-bindings", "nvidia-cudnn-cu13"}


def resolve(locks: list[Path], platform: str, python: str) -> tuple[set[str], list[str]]:
    """Return the packages that are installed there, and why that cannot be; uv asks the index."""
    target = ["--python-platform", PLATFORMS[platform], "--python-version", python]
    command = [UV, "pip", "compile", "--only-binary=:all:", "--format=pylock.toml", *target]
    # Nothing is built, so no other Python has to be fetched.
    given = {"MACOSX_DEPLOYMENT_TARGET": "14.0", "UV_PYTHON_DOWNLOADS": "never"}
    done = finish([*map(str, [*command, *locks])], ROOT, {**os.environ, **given})
    if done.returncode:
        return set(), [" ".join(done.stderr.split())]  # uv breaks lines where COLUMNS says
    text = "".join(lock.read_text() for lock in locks)
    locked = pins(text)
    known = {*re.findall(r"--hash=sha256:(\S+)", text)}
    faults = []
    names = set()
    for package in tomllib.loads(done.stdout)["packages"]:
        name, wheels = package["name"], package.get("wheels", [])
        names.add(name)
        if locked.get(name) != package["version"]:
            faults.append(f"{name} {package['version']} is not locked")
        if not wheels or not {wheel["hashes"]["sha256"] for wheel in wheels} <= known:
            faults.append(f"{name} has a wheel that is not in the lock, or none")
    return names, faults


def check(case: tuple[tuple[str, ...], tuple[str, str]]) -> None:
    names, machine = case
    installed, faults = resolve([LOCKS / f"{name}.lock" for name in names], *machine)
    assert not faults, f"{names} on {machine}: {faults}"
    assert {"torch", "numpy", "pytest", *({*names} & {*CHOICES["tracker"]})} <= installed
    assert installed & CUDA == (set() if machine[0] == "macOS arm64" else CUDA)


def check_all(cases: list[tuple[tuple[str, ...], tuple[str, str]]]) -> None:
    with ThreadPoolExecutor(4) as pool:  # they wait for the index
        [*pool.map(check, cases)]


def test_the_locks_are_complete_for_each_platform() -> None:
    check_all([*zip([SETS[0]] * 3, MACHINES[::4], strict=True)])


@pytest.mark.long
def test_each_lock_is_complete_for_each_machine() -> None:
    check_all([*product(SETS, MACHINES)])


def without_markers(lock: str) -> str:
    return lock.replace(' ; sys_platform == "linux"', "")


def with_faults(lock: str) -> str:
    """One marker too many, and one package's hashes lost."""
    lock = re.sub(r"(?m)^numpy==\S+", r'\g<0> ; sys_platform == "linux"', lock)
    return re.sub(r"(?m)^(pillow==\S+ \\\n)(    --hash\S+( \\)?\n)+", r"\1", lock)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (without_markers, ["no wheels with a matching platform tag"]),
        (with_faults, ["numpy has a wheel that is not in", "pillow has a wheel that is not in"]),
    ],
)
def test_a_lock_that_does_not_fit_a_mac_is_found(
    tmp_path: Path, change: Callable[[str], str], words: list[str]
) -> None:
    (tmp_path / "requirements.lock").write_text(change((LOCKS / "images.lock").read_text()))
    _, faults = resolve([tmp_path / "requirements.lock"], "macOS arm64", "3.12")
    for word in words:
        assert any(word in fault for fault in faults), faults
