"""What `repro diff` tells of a run's surroundings, and what two lines of a trace differ in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from repro.diagnosis.diff import Change, Comparison, compare_traces, first_difference
from repro.diagnosis.explain import print_difference, sentence
from repro.runs.logs import TraceLine

CONTEXT = {
    "git": {"commit_hash": "c" * 40},
    "hardware": {"cpu_model": "A processor", "gpus": ["A GPU"], "gpu_driver": "570.1"},
    "software": {"platform": "Linux-6.1", "python": "3.12.1", "packages": {"torch": "2.14"}},
}
HEADER = {"conditions": {"code": {"experiment/model.py": "a"}, "data": "d"}, "seed": 42}


def run_with(folder: Path, context: dict[str, Any] | None, loss: str = "0x1.8p+0") -> Path:
    """Write a run of one step."""
    folder.mkdir()
    lines = [
        {"step": 0, "header": HEADER},
        {"step": 0, "weights": "0"},
        {"step": 1, "samples": "5", "loss": loss, "weights": "6"},
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "trace.jsonl").write_text(text)
    if context is not None:
        (folder / "experiment_context.json").write_text(json.dumps(context))
    return folder


def changed(section: str, **values: str) -> dict[str, Any]:
    return {**CONTEXT, section: {**CONTEXT[section], **values}}


@pytest.mark.parametrize(
    ("context", "told"),
    [
        (
            changed("hardware", gpu_driver="580.2"),
            "B ran with the GPU driver 580.2, A with 570.1",
        ),
        (
            changed("software", platform="Linux-6.8"),
            "B ran on the platform Linux-6.8, A on Linux-6.1",
        ),
        (
            changed("hardware", cpu_model="Another one"),
            "cpu_model is Another one in B, A processor in A",
        ),
        (changed("git", commit_hash="d" * 40), f"commit is {'d' * 40} in B, {'c' * 40} in A"),
    ],
)
def test_changed_surroundings_are_told_in_words(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], context: dict[str, Any], told: str
) -> None:
    a = run_with(tmp_path / "a", CONTEXT)
    b = run_with(tmp_path / "b", context)
    comparison = compare_traces(a, b)
    assert [sentence(change) for change in comparison.context] == [told]
    print_difference(comparison, ("a", "b"))
    words = capsys.readouterr().out
    assert f"Also different, but it should change no bits\n  {told}\n" in words
    assert "IDENTICAL: all steps from 0 to 1 agree" in words


@pytest.mark.parametrize("context", [None, {}, {"hardware": {"gpu_driver": None}}])
def test_a_run_without_a_context_is_compared_all_the_same(
    tmp_path: Path, context: dict[str, Any] | None
) -> None:
    a = run_with(tmp_path / "a", CONTEXT)
    b = run_with(tmp_path / "b", context)
    comparison = compare_traces(a, b)
    assert Change("hardware: gpu_driver", "570.1", None) in comparison.context
    assert Change("software: platform", "Linux-6.1", None) in comparison.context
    assert comparison.parting is None


def test_the_first_quantity_that_differs_is_told(tmp_path: Path) -> None:
    a = run_with(tmp_path / "a", CONTEXT)
    b = run_with(tmp_path / "b", CONTEXT, loss="0x1.4p+0")
    told = compare_traces(a, b).as_json()
    assert told == {
        "conditions": [],
        "context": [],
        "compared": 2,
        "span": [0, 1],
        "last": [1, 1],
        "step": 1,
        "quantity": "loss",
        "agree": ["samples"],
        "differing": ["loss"],
        "values": ("1.5 (0x1.8p+0)", "1.25 (0x1.4p+0)"),
        "metrics": None,
        "metrics_not_compared": "the runs part",
    }


def test_files_of_a_step_have_no_metrics_to_be_compared(capsys: pytest.CaptureFixture[str]) -> None:
    conditions = [Change("seed", 1, 2)]
    print_difference(Comparison(conditions, [], 1, (3, 3), (3, 3), parting=None), ("a", "b"))
    words = capsys.readouterr().out
    assert "IDENTICAL: step 3 agrees" in words
    assert "metrics" not in words


def test_a_quantity_that_one_run_lacks_differs() -> None:
    parting = first_difference(
        TraceLine(3, {"loss": "1"}), TraceLine(3, {"loss": "1", "more": "2"})
    )
    assert parting is not None
    assert (parting.step, parting.quantity, parting.values) == (3, "more", (None, "2"))
    assert first_difference(TraceLine(3, {"loss": "1"}), TraceLine(3, {"loss": "1"})) is None
