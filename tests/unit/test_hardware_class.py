"""The profile belongs to the hardware class: who gets which, and what is compared with what."""

import os
import platform
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from repro.core.errors import UserError
from repro.environment import profile as profiles
from repro.environment.profile import MARKER, PROFILES, enter, lacks_for_portable, resolve_profile
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
OTHERS = [
    ("linux", "aarch64"),
    ("linux", "riscv64"),
    ("linux", "i686"),
    ("darwin", "arm64"),
    ("darwin", "x86_64"),
    ("win32", "AMD64"),
]


@pytest.fixture(params=OTHERS, ids=" ".join)
def other_machine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    system, machine = request.param
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr(platform, "machine", lambda: machine)


@pytest.mark.usefixtures("other_machine")
def test_no_other_machine_gets_the_portable_class() -> None:
    assert sys.platform in lacks_for_portable()
    assert resolve_profile("auto") == "native"
    with pytest.raises(UserError, match="take profile=native"):
        hardware_class("portable", "cpu")
    assert hardware_class("auto", "cpu").endswith(" native")


@pytest.mark.usefixtures("other_machine")
def test_portable_is_refused_where_it_cannot_be(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*PROFILES["portable"], MARKER):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(UserError) as refused:
        enter("portable")
    assert "profile=portable needs Linux on an x86-64 CPU with AVX2 and FMA" in str(refused.value)
    assert platform.machine() in str(refused.value)
    assert "profile=auto" in str(refused.value)


def test_an_x86_cpu_without_avx2_is_not_of_the_portable_class(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    for flags, lacking in (("fma avx2", ""), ("fma avx", "this CPU has no avx2"), ("", "no fma")):
        monkeypatch.setattr(profiles.Path, "read_text", lambda self, text=flags: f"flags : {text}")
        assert lacking in lacks_for_portable()
        assert bool(lacks_for_portable()) == bool(lacking)
        assert resolve_profile("auto") == ("native" if lacking else "portable")
    unreadable = PermissionError(13, os.strerror(13))

    def refuse(self: Path) -> str:
        raise unreadable

    monkeypatch.setattr(profiles.Path, "read_text", refuse)
    assert "cannot be read" in lacks_for_portable()


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
        conditions=situation(environment, hardware).conditions,
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
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
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


def test_the_profile_is_no_setting_among_the_conditions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "repro.runs.conditions.conditions_on_disk",
        lambda root: Conditions({}, {}, "", "lock", {}).on_disk,
    )
    config = {"profile": "native", "seed": 1, "seeds": {}, "threads": 1}
    found = conditions_here(tmp_path, config, {}, "native", "cpu").conditions
    assert found.config == {"threads": 1, "seeds": {}}
    assert found.environment["profile"] == "native"
    assert "cpu_kernels" not in found.environment
