"""The profile belongs to the hardware class: who gets which, and what is compared with what."""

import ctypes
import platform
import re
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from faked_machine import MAC, MAC_CLASS, NEOVERSE_N1
from repro.core import machines
from repro.core.errors import UserError
from repro.core.machines import ThisMachine
from repro.environment.profile import (
    FORBIDDEN,
    MARKER,
    PROFILES,
    enter,
    lacks_for_portable,
    resolve_profile,
)
from repro.results.claims import Claim
from repro.results.comparable import conditions_that_differ
from repro.results.recording import RecordedClaim, parse_recording
from repro.runs.conditions import (
    PORTABLE_CLASS,
    Conditions,
    DatasetFacts,
    Situation,
    conditions_here,
    hardware_class,
)

PORTABLE = {"profile": "portable", "MKL_CBWR": "COMPATIBLE"}
NATIVE = {"profile": "native"}
N1 = NEOVERSE_N1
V1 = N1.replace("0xd0c", "0xd40").replace("asimddp", "asimddp sve i8mm bf16 svebf16")
BIG_LITTLE = N1.replace("0xd0c", "0xd85") + N1.replace("0xd0c", "0xd87")
OTHERS = {
    "linux aarch64": ThisMachine("linux", "aarch64", N1),
    "linux riscv64": ThisMachine("linux", "riscv64", "hart : 0\nisa : rv64imafdcv\n"),
    "linux i686": ThisMachine("linux", "i686", "model name : Pentium\nflags : avx2 fma\n"),
    "darwin arm64": ThisMachine("darwin", "arm64", "Apple M2 Pro"),
    "darwin x86_64": ThisMachine("darwin", "x86_64", "Intel(R) Core(TM) i7 CPU @ 2.60GHz"),
    "win32 AMD64": ThisMachine("win32", "AMD64", ""),
}
WORDS = {"linux": "Linux", "darwin": "macOS", "win32": "Windows"}


def be(monkeypatch: pytest.MonkeyPatch, machine: ThisMachine) -> None:
    monkeypatch.setattr(machines, "this_machine", lambda: machine)


@pytest.fixture(params=OTHERS.values(), ids=OTHERS)
def other_machine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> ThisMachine:
    machine: ThisMachine = request.param
    be(monkeypatch, machine)
    return machine


def test_no_other_machine_gets_the_portable_class(other_machine: ThisMachine) -> None:
    there = f"this is {WORDS[other_machine.system]} on {other_machine.architecture}"
    assert lacks_for_portable().startswith(there)
    assert resolve_profile("auto") == "native"
    with pytest.raises(UserError, match="take profile=native"):
        hardware_class("portable", "cpu")
    assert hardware_class(resolve_profile("auto"), "cpu").endswith(" native")


def test_portable_is_refused_where_it_cannot_be(
    other_machine: ThisMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (*PROFILES["portable"], MARKER, *FORBIDDEN):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(UserError) as refused:
        enter("portable")
    (line,) = refused.value.lines
    assert "profile=portable needs Linux on an x86-64 CPU with AVX2 and FMA" in line
    assert other_machine.architecture in line
    assert "no kernels with the same bits on every CPU are known" in line
    assert "profile=auto" in line


def test_an_x86_cpu_without_avx2_is_not_of_the_portable_class(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for flags, lacking in (("fma avx2", ""), ("fma avx", "this CPU has no avx2"), ("", "no fma")):
        be(monkeypatch, ThisMachine("linux", "x86_64", f"flags : {flags}"))
        assert lacking in lacks_for_portable()
        assert bool(lacks_for_portable()) == bool(lacking)
        assert resolve_profile("auto") == ("native" if lacking else "portable")
    be(monkeypatch, ThisMachine("linux", "x86_64", ""))
    assert "cannot be read" in lacks_for_portable()


CLASSES = {
    "a server": (ThisMachine("linux", "aarch64", N1), "cpu aarch64 Neoverse-N1 (04880d67) native"),
    "with SVE": (ThisMachine("linux", "aarch64", V1, 256), "cpu aarch64 Neoverse-V1 (?) native"),
    "shorter SVE": (ThisMachine("linux", "aarch64", V1, 128), "cpu aarch64 Neoverse-V1 (?) native"),
    "hidden SVE": (
        ThisMachine("linux", "aarch64", N1.replace("0xd0c", "0xd40")),
        "cpu aarch64 Neoverse-V1 (04880d67) native",
    ),
    "two kinds of cores": (
        ThisMachine("linux", "aarch64", BIG_LITTLE),
        "cpu aarch64 Cortex-A725 + Cortex-X925 (04880d67) native",
    ),
    "another maker": (
        ThisMachine("linux", "aarch64", N1.replace("0x41", "0x61").replace("0xd0c", "0x000")),
        "cpu aarch64 0x61 0x000 (04880d67) native",
    ),
    "a closed /proc": (
        ThisMachine("linux", "aarch64", ""),
        "cpu aarch64 of unknown model (?) native",
    ),
    "a Mac": (MAC, MAC_CLASS),
    "a virtual Mac": (
        MAC._replace(cpu="Apple M1 (Virtual)", version="26.0.1"),
        "cpu Apple M1 (Virtual), macOS 26.0.1 native",
    ),
    "a silent Mac": (
        MAC._replace(cpu="", version=""),
        "cpu arm64, macOS of unknown version native",
    ),
}


def class_of(machine: ThisMachine, monkeypatch: pytest.MonkeyPatch) -> str:
    be(monkeypatch, machine)
    return hardware_class(resolve_profile("auto"), "cpu")


@pytest.mark.parametrize("kind", CLASSES)
def test_a_class_names_model_and_features_of_its_cpu(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine, name = CLASSES[kind]
    pattern = re.escape(name).replace(r"\?", "[0-9a-f]{8}")
    assert re.fullmatch(pattern, class_of(machine, monkeypatch))


def test_a_gpu_in_an_arm_server_is_of_another_class(monkeypatch: pytest.MonkeyPatch) -> None:
    """An L4 or an A100 is sold for both: the CPU's part of a training is another one."""
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA L4")
    classes = set()
    for architecture in ("x86_64", "aarch64"):
        be(monkeypatch, ThisMachine("linux", architecture, ""))
        classes.add(hardware_class("native", "cuda").partition(",")[0])
    assert classes == {"cuda NVIDIA L4", "cuda aarch64 NVIDIA L4"}


def test_vectors_of_another_length_are_another_class(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other kernels run there; what only the kernel's version adds to the list is none."""
    kinds = [CLASSES[kind][0] for kind in ("with SVE", "shorter SVE", "hidden SVE")]
    assert len({class_of(machine, monkeypatch) for machine in kinds}) == 3
    newer = ThisMachine("linux", "aarch64", N1.replace("ssbs", "ssbs paca pacg dcpop ecv"))
    older = ThisMachine("linux", "aarch64", N1)
    assert class_of(newer, monkeypatch) == class_of(older, monkeypatch)


def test_this_machine_is_what_the_system_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """And no variable of the environment makes another one of it."""
    found = machines.this_machine()
    assert (found.system, found.architecture) == (sys.platform, platform.machine())
    assert found.cpu == Path("/proc/cpuinfo").read_text() or "MHz" in found.cpu
    source = Path(machines.__file__).read_text()
    assert "environ" not in source.partition('"""\n')[2]


def test_a_mac_is_asked_for_the_name_of_its_cpu_and_its_version(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By the function of its C library, here a stand-in; one that refuses has neither."""

    class Library:
        def __init__(self, answers: dict[bytes, bytes]) -> None:
            self.answers = answers

        def sysctlbyname(self, name: bytes, text: Any, size: Any, new: None, length: Any) -> int:
            assert (new, length.value) == (None, 0)
            text.value = self.answers.get(name, b"")
            return 0 if name in self.answers else -1

    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(platform, "machine", lambda: "arm64")
    answers = {b"machdep.cpu.brand_string": b"Apple M4 Max", b"kern.osproductversion": b"15.6.1"}
    for library, told in ((Library(answers), ("Apple M4 Max", "15.6.1")), (Library({}), ("", ""))):
        monkeypatch.setattr(ctypes, "CDLL", lambda _, library=library: library)
        found = machines.this_machine()
        assert (found.system, found.architecture) == ("darwin", "arm64")
        assert (found.cpu, found.version) == told


def test_an_update_of_macos_is_another_class(monkeypatch: pytest.MonkeyPatch) -> None:
    """Accelerate, which multiplies matrices there, comes with macOS and not with the lock."""
    versions = ("15.1", "15.2", "26.0")
    classes = {class_of(MAC._replace(version=version), monkeypatch) for version in versions}
    assert len(classes) == 3


def test_the_length_of_vectors_is_asked_of_an_arm_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    for answer, bits in ((-1, 0), (32, 256), (1 << 17 | 16, 128)):  # with a flag above the length
        library = SimpleNamespace(prctl=lambda option, *_, answer=answer: answer)
        monkeypatch.setattr(ctypes, "CDLL", lambda _, library=library: library)
        assert machines.this_machine().vector_bits == bits


def situation(environment: dict[str, str], hardware: str) -> Situation:
    return Situation(
        Conditions({}, {"threads": 1}, "data", "lock", {}, environment), hardware, DatasetFacts()
    )


def recorded(environment: dict[str, str], hardware: str) -> RecordedClaim:
    return RecordedClaim(
        text="it learns",
        arguments=[],
        metric="accuracy",
        values={"1": 0.5},
        bits={hardware: {"1": "aa"}},
        steps=1,
        conditions=situation({}, hardware).conditions,
        environments={hardware: environment},
    )


CPU = "cpu Some CPU (0123abcd) native"
ARM = "cpu aarch64 Some CPU (0123abcd) native"
CASES = [
    # recorded, of which class; here, of which class; what differs
    (PORTABLE, PORTABLE_CLASS, PORTABLE, PORTABLE_CLASS, ""),
    (PORTABLE, PORTABLE_CLASS, {**PORTABLE, "MKL_CBWR": "AVX2"}, PORTABLE_CLASS, "MKL_CBWR is"),
    (PORTABLE, PORTABLE_CLASS, NATIVE, CPU, "profile is native, recorded portable"),
    (NATIVE, CPU, NATIVE, CPU, ""),
    (NATIVE, CPU, NATIVE, "cpu Another (0123abcd) native", ""),
    (NATIVE, CPU, PORTABLE, PORTABLE_CLASS, ""),
    (NATIVE, ARM, PORTABLE, PORTABLE_CLASS, ""),
    (NATIVE, "cuda H200", PORTABLE, PORTABLE_CLASS, ""),
    (PORTABLE, PORTABLE_CLASS, PORTABLE, "cuda H200", ""),
    (PORTABLE, "cuda H200", NATIVE, "cuda H200", "profile is native, recorded portable"),
]


@pytest.mark.parametrize(("then", "known", "now", "here", "line"), CASES)
def test_a_profile_is_compared_within_a_class(
    then: dict[str, str], known: str, now: dict[str, str], here: str, line: str, tmp_path: Path
) -> None:
    """On a machine that can have the recorded portable profile, leaving it is named."""
    claim = Claim(name="it", text="it learns", metric="accuracy", arguments=[], seeds=[1])
    lines = conditions_that_differ(tmp_path, claim, recorded(then, known), situation(now, here))
    assert (line in "\n".join(lines)) if line else not lines


def test_on_another_architecture_native_is_no_difference(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    be(monkeypatch, OTHERS["linux aarch64"])
    claim = Claim(name="it", text="it learns", metric="accuracy", arguments=[], seeds=[1])
    expected = recorded(PORTABLE, PORTABLE_CLASS)
    assert not conditions_that_differ(tmp_path, claim, expected, situation(NATIVE, ARM))
    other = situation(NATIVE, ARM)
    other = replace(other, conditions=replace(other.conditions, config={"threads": 2}))
    (line,) = conditions_that_differ(tmp_path, claim, expected, other)
    assert line == "config: threads is 2, recorded 1"


def test_a_recording_keeps_the_environment_of_each_class() -> None:
    """One that an older kit wrote had one for all."""
    claim = recorded(PORTABLE, PORTABLE_CLASS)
    content = {"commit": None, "dirty": None, "claims": {"it": claim.as_json()}}
    conditions = claim.as_json()["conditions"]
    assert isinstance(conditions, dict)
    assert "environment" not in conditions
    assert claim.as_json()["environments"] == {PORTABLE_CLASS: PORTABLE}
    read = parse_recording(content)
    assert read is not None
    assert read.claims["it"].conditions_on(PORTABLE_CLASS).environment == PORTABLE
    assert read.claims["it"].conditions_on(ARM).environment == {}
    old = {**claim.as_json(), "conditions": situation(PORTABLE, "").conditions.as_json()}
    del old["environments"]
    read = parse_recording({"claims": {"it": old}})
    assert read is not None
    assert read.claims["it"].environments == {PORTABLE_CLASS: PORTABLE}


def test_conditions_of_all_classes_have_no_environment() -> None:
    claim = recorded(PORTABLE, PORTABLE_CLASS)
    of_a_class = situation(PORTABLE, PORTABLE_CLASS).conditions
    with pytest.raises(ValueError, match="hold an environment"):
        replace(claim, conditions=of_a_class)


def test_the_profile_is_no_setting_among_the_conditions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "repro.runs.conditions.conditions_on_disk",
        lambda root, config: Conditions({}, {}, "", "lock", {}).on_disk,
    )
    config = {"profile": "native", "seed": 1, "seeds": {}, "threads": 1}
    found = conditions_here(tmp_path, config, {}, "native", "cpu").conditions
    assert found.config == {"threads": 1, "seeds": {}}
    assert found.environment["profile"] == "native"
    assert "cpu_kernels" not in found.environment
