"""Results of several hardware classes in one recording: who keeps what, and what is compared."""

import multiprocessing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from repro.core.errors import UserError
from repro.core.files import write_json
from repro.results import published
from repro.results.claims import EXPECTED, Claim, read_recording, recorded_run
from repro.results.classes import added_class, beside, comparable_recording
from repro.results.document import blocks
from repro.results.judge import judge_training
from repro.results.measure import SeedResult, Spent
from repro.results.published import publish_beside, trace_file
from repro.results.recording import (
    Cost,
    RecordedCheckpoint,
    RecordedClaim,
    Recording,
    parse_recording,
)
from repro.results.verdict import Verdict
from repro.runs.conditions import Conditions, DatasetFacts, Situation

FIRST = "cpu x86-64-v3 portable"
ARM = "cpu aarch64 Neoverse-N1 (04880d67) native"
MAC = "cpu Apple M2 Pro, macOS 15.1 native"
CONDITIONS = Conditions({"a.py": "1"}, {"threads": 1}, "data", "lock", {})
MINE = Claim(
    name="claim-0",
    text="it learns",
    metric="accuracy",
    arguments=[],
    seeds=[1, 2, 3],
    checkpoint="best",
)


def claim(hardware: str, value: float = 0.5, bits: str = "aa", steps: int = 9) -> RecordedClaim:
    return RecordedClaim(
        text="it learns",
        arguments=[],
        metric="accuracy",
        values={"1": value, "2": value + 0.01, "3": value + 0.02},
        bits={hardware: {"1": bits, "2": bits, "3": bits}},
        best={hardware: {seed: RecordedCheckpoint(steps, bits) for seed in "123"}},
        checkpoint="best",
        steps=steps,
        conditions=CONDITIONS,
        environments={hardware: {"profile": hardware.rpartition(" ")[2]}},
        cost=Cost(hardware, 1, 2),
        mean=value,
    )


def recording(commit: str, *claims: RecordedClaim, dirty: bool = False) -> Recording:
    return Recording({f"claim-{k}": each for k, each in enumerate(claims)}, commit, dirty)


def with_arm() -> Recording:
    return beside(recording("c1", claim(FIRST)), recording("c2", claim(ARM, 0.4, "bb", 7)))


def test_what_is_added_changes_nothing_of_the_first_class() -> None:
    found = with_arm()
    (merged,) = found.claims.values()
    first = claim(FIRST)
    assert (found.commit, found.dirty) == ("c1", False)
    assert (merged.values, merged.mean, merged.cost) == (first.values, first.mean, first.cost)
    assert merged.bits == {**first.bits, **claim(ARM, bits="bb").bits}
    assert merged.values_on(ARM)["1"] == 0.4
    assert merged.values_on(MAC) == merged.values_on(FIRST) == first.values
    assert (merged.steps_on(FIRST, "1"), merged.steps_on(ARM, "1")) == (9, 7)
    assert merged.chosen(ARM, "1") == RecordedCheckpoint(7, "bb")
    assert merged.added[ARM].commit == "c2"
    content = found.as_json()
    assert parse_recording(content) == found
    alone = recording("c1", first).as_json()["claims"]
    assert isinstance(alone, dict)
    assert "added" not in str(alone)  # as before there were several


def test_the_first_class_recorded_again_keeps_what_was_added() -> None:
    found = beside(with_arm(), recording("c3", claim(FIRST, 0.6, "cc")))
    (merged,) = found.claims.values()
    assert (found.commit, merged.values["1"], merged.bits[FIRST]["1"]) == ("c3", 0.6, "cc")
    assert (merged.values_on(ARM)["1"], merged.bits[ARM]["1"]) == (0.4, "bb")
    assert merged.added[ARM].commit == "c2"


def test_an_added_class_recorded_again_is_replaced_alone() -> None:
    found = beside(with_arm(), recording("c3", claim(ARM, 0.3, "dd"), dirty=True))
    (merged,) = found.claims.values()
    assert (found.commit, found.dirty, merged.values["1"]) == ("c1", False, 0.5)
    assert (merged.values_on(ARM)["1"], merged.bits[ARM]["1"]) == (0.3, "dd")
    assert (merged.added[ARM].commit, merged.added[ARM].dirty) == ("c3", True)
    three = beside(found, recording("c4", claim(MAC, 0.2, "ee")))
    assert three.claims["claim-0"].bits.keys() == {FIRST, ARM, MAC}
    assert three.claims["claim-0"].added.keys() == {ARM, MAC}


@pytest.mark.parametrize(
    ("change", "is_kept"),
    [
        ({}, True),
        ({"environment": {"profile": "native"}}, True),  # of a class
        ({"code": {"a.py": "2"}}, False),
        ({"config": {"threads": 2}}, False),
        ({"data": "other"}, False),
        ({"lock": "other"}, False),
        ({"packages": {"torch": "1"}}, False),
    ],
)
def test_results_are_kept_under_equal_conditions_alone(
    change: dict[str, object], is_kept: bool, tmp_path: Path
) -> None:
    now = Situation(replace(CONDITIONS, **change), ARM, DatasetFacts())  # type: ignore[arg-type]
    assert comparable_recording(tmp_path, [MINE], {"claim-0": now}) is None  # nothing is there
    write_json(tmp_path / EXPECTED, recording("c1", claim(FIRST)).as_json())
    assert bool(comparable_recording(tmp_path, [MINE], {"claim-0": now})) == is_kept
    other = MINE.model_copy(update={"seeds": [1, 2]})
    assert comparable_recording(tmp_path, [other], {"claim-0": now}) is None
    (tmp_path / EXPECTED).write_text("<<<<<<< HEAD\n{")  # it may hold what others recorded
    with pytest.raises(UserError, match="is damaged: restore it, or delete it"):
        comparable_recording(tmp_path, [MINE], {"claim-0": now})


def test_each_class_is_judged_by_its_own_values() -> None:
    (merged,) = with_arm().claims.values()
    for hardware, value, bits, steps in ((FIRST, 0.5, "aa", 9), (ARM, 0.4, "bb", 7)):
        for said, verdict in ((value, "IDENTICAL"), (value + 0.05, "DIFFERENT")):
            found = Verdict("c", 1, hardware_class=hardware, metric="accuracy", checkpoint="best")
            best = RecordedCheckpoint(steps, bits)
            judge_training(found, merged, SeedResult(said, bits, steps, Spent(), best))
            assert (found.verdict, found.recorded) == (verdict, value)


def test_each_class_has_its_trace_and_its_rows(tmp_path: Path) -> None:
    (merged,) = with_arm().claims.values()
    assert added_class(merged, FIRST) == ""
    assert added_class(merged, ARM) == ARM
    assert added_class(merged, MAC) == MAC
    assert added_class(None, MAC) == ""
    names = [trace_file(tmp_path, "c", 1, added_class(merged, kind)).name for kind in (FIRST, ARM)]
    assert names == ["c_seed-1.jsonl", "c_seed-1-cpu-aarch64-neoverse-n1-04880d67-native.jsonl"]
    (tmp_path / "requirements.lock").write_text("")
    settings = 'train = "experiment.train:train"\nevaluate = "experiment.evaluate:evaluate"\n'
    (tmp_path / "pyproject.toml").write_text(f"[tool.repro]\n{settings}")
    told = blocks(tmp_path, with_arm())
    assert f"| {FIRST} | 1 | 0.5000 |" in told["results"]
    assert f"| {ARM} | 1 | 0.4000 |" in told["results"]
    assert told["cost"].count("| 1 s | 2 MiB |") == 2
    assert told["commit"] == (
        f"Recorded from commit `c1`. Added under the same conditions: `{ARM}`, commit `c2`."
    )


@pytest.mark.parametrize("damage", ["no value", "another seed", "no number", "no such class"])
def test_an_added_class_that_does_not_fit_is_damaged(damage: str) -> None:
    content: dict[str, dict[str, dict[str, dict[str, dict[str, object]]]]]
    content = with_arm().as_json()  # type: ignore[assignment]
    added = content["claims"]["claim-0"]["added"]
    values = added[ARM]["values"]
    assert isinstance(values, dict)
    if damage == "no value":
        del values["1"]
    elif damage == "another seed":
        values["4"] = 0.5
    elif damage == "no number":
        values["1"] = float("nan")
    else:
        added[MAC] = added.pop(ARM)
    assert parse_recording(content) is None  # type: ignore[arg-type]


def test_a_run_is_looked_for_by_its_class(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same bits may be those of two classes, whose traces have other headers."""
    (merged,) = with_arm().claims.values()
    folder = tmp_path / "runs" / "record" / "claim-0" / "digest" / "seed-1"
    write_json(folder / "metrics-last.json", {"bits": "bb"})

    class Context:
        conditions = merged.conditions_on(ARM)
        hardware_class = ARM

    monkeypatch.setattr("repro.results.claims.read_context", lambda run: Context)
    monkeypatch.setattr("repro.results.claims.other_code", lambda run, conditions: [])
    assert recorded_run(tmp_path, "claim-0", merged, 1) == folder
    assert recorded_run(tmp_path, "claim-0", merged, 1, ARM) == folder
    assert recorded_run(tmp_path, "claim-0", merged, 1, FIRST) is None
    first = merged.bits[FIRST]["1"]
    write_json(folder / "metrics-last.json", {"bits": first})
    write_json(folder / "metrics.json", {"bits": first})
    assert recorded_run(tmp_path, "claim-0", merged, 1) is None  # bits of another class


def publish_results_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_copy_figures", "_copy_trace", "write_document"):
        monkeypatch.setattr(published, name, lambda *_: None)


def publish_of(root: Path, hardware: str, bits: str) -> None:
    """End a recording as a machine of that class does."""
    now = recording(f"commit of {hardware}", claim(hardware, 0.5, bits))
    situation = Situation(CONDITIONS, hardware, DatasetFacts())
    publish_beside(root, [MINE], {"claim-0": situation}, {"claim-0": root}, now)


def test_what_another_machine_recorded_meanwhile_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Machines may share a folder: what is there is read when all is trained."""
    publish_results_alone(monkeypatch)
    for hardware, bits in ((FIRST, "aa"), (ARM, "bb"), (MAC, "cc")):
        publish_of(tmp_path, hardware, bits)
    found = read_recording(tmp_path).claims["claim-0"]
    assert {name: each["1"] for name, each in found.bits.items()} == {
        FIRST: "aa",
        ARM: "bb",
        MAC: "cc",
    }


def test_two_machines_that_end_in_the_same_moment_keep_each_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second one begins when the first has read what is there and has not yet written."""
    publish_results_alone(monkeypatch)
    second = multiprocessing.get_context("fork").Process(
        target=publish_of, args=(tmp_path, ARM, "bb")
    )
    read = published.comparable_recording

    def slowly(*arguments: Any) -> Recording | None:
        found = read(*arguments)
        if multiprocessing.parent_process() is None:
            second.start()
            second.join(1)  # seconds: far more than it needs unless it waits
        return found

    monkeypatch.setattr(published, "comparable_recording", slowly)
    publish_of(tmp_path, FIRST, "aa")
    second.join(30)
    assert second.exitcode == 0
    found = read_recording(tmp_path).claims["claim-0"]
    assert found.bits.keys() == {FIRST, ARM}
