"""Metrics of two runs whose steps agree: what is compared, what is found, and how it is told."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from repro.core.errors import UserError
from repro.core.files import json_text, parse_object
from repro.diagnosis.diff import compare_traces
from repro.diagnosis.explain import print_difference
from repro.diagnosis.metric_difference import MetricDifference, find_metric_difference
from repro.runs.metric_values import differing_metrics, metrics_of, shown_values

HEADER = {"conditions": {"data": "d"}, "seed": 42}
LINES = [
    {"step": 1, "loss": 2.5},
    {"step": 2, "loss": 1.5},
    {"step": 2, "epoch": 1, "split": "validation", "loss": 0.5, "accuracy": 0.25},
]
EVALUATION = {"step": 2, "steps": 2, "accuracy": 0.127, "class_accuracy": {"0": 1.0, "1": None}}
NEXT = math.nextafter(0.25, 1)


def write_run(
    folder: Path, *lines: dict[str, Any], last: str = "7", seed: int = 42, **files: Any
) -> Path:
    """Write a run of two steps with these lines of metrics.jsonl, and files: metrics_best=..."""
    folder.mkdir()
    trace = [
        {"step": 0, "header": {**HEADER, "seed": seed}},
        {"step": 1, "loss": "5"},
        {"step": 2, "loss": last},
    ]
    for name, content in (("trace.jsonl", trace), ("metrics.jsonl", lines)):
        if content:
            text = "".join(json.dumps(line) + "\n" for line in content)
            (folder / name).write_text(text)
    for name, value in files.items():
        (folder / f"{name.replace('_', '-')}.json").write_text(json.dumps(value))
    return folder


def test_many_lines_of_one_step_are_compared_in_the_time_of_reading_them(tmp_path: Path) -> None:
    """Each with the one of its number: to look for a free number from 0 on took hours."""
    many = 100_000
    a = write_run(tmp_path / "a", *[LINES[0]] * many)
    b = write_run(tmp_path / "b", *[LINES[0]] * (many - 1), {**LINES[0], "loss": 3.5})
    found = find_metric_difference(a, b, last=2)
    assert found
    assert (found.a, found.b) == (2.5, 3.5)


def changed(number: int, **values: Any) -> list[dict[str, Any]]:
    """The lines of the other run: one of them is another one."""
    return [{**line, **values} if n == number else line for n, line in enumerate(LINES)]


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        (LINES, None),
        ([], None),  # a run without the file
        (LINES[:1], None),
        ([*LINES, {"step": 3, "loss": 9.0}], None),  # no step of both traces
        (
            changed(2, accuracy=NEXT, loss=0.125),
            (2, "validation", "loss", 0.5, 0.125, ["loss", "accuracy"]),
        ),
        (changed(2, accuracy=NEXT), (2, "validation", "accuracy", 0.25, NEXT, ["accuracy"])),
        (changed(0, loss=2.0), (1, None, "loss", 2.5, 2.0, ["loss"])),
        (changed(1, error=4.0), (2, None, "error", None, 4.0, ["error"])),
        ([{"step": 2}], (2, None, "loss", 1.5, None, ["loss"])),
    ],
)
def test_lines_of_one_step_and_split_are_compared(
    tmp_path: Path, lines: list[dict[str, Any]], found: tuple[Any, ...] | None
) -> None:
    a = write_run(tmp_path / "a", *LINES, {"step": 3, "loss": 0.1})
    b = write_run(tmp_path / "b", *lines)
    difference = find_metric_difference(a, b, last=2)
    assert difference == (MetricDifference("metrics.jsonl", *found) if found else None)


def test_lines_of_one_step_are_compared_in_their_order(tmp_path: Path) -> None:
    twice = [{"step": 1, "loss": 1.0}, {"step": 1, "grade": 2.0}]
    a = write_run(tmp_path / "a", *twice)
    assert find_metric_difference(a, write_run(tmp_path / "b", *twice), last=2) is None
    other = write_run(tmp_path / "c", twice[0], {"step": 1, "grade": 3.0})
    difference = find_metric_difference(a, other, last=2)
    assert difference is not None
    assert difference.metric == "grade"


@pytest.mark.parametrize(
    ("files", "found"),
    [
        ({}, None),
        ({"metrics": {**EVALUATION, "accuracy": 0.5, "step": 1}}, None),  # another checkpoint
        ({"metrics": {**EVALUATION, "steps": 9}}, None),  # trained further since
        ({"metrics": [1], "metrics_table": 5}, None),  # other files of the author
        ({"metricsX": {**EVALUATION, "accuracy": 0.5}}, None),
        (
            {"metrics": {**EVALUATION, "accuracy": 0.174}},
            ("metrics.json", 2, None, "accuracy", 0.127, 0.174, ["accuracy"]),
        ),
        (
            {"metrics_best": {**EVALUATION, "class_accuracy": {"0": 1.0, "1": 0.5}}},
            ("metrics-best.json", 2, None, "class_accuracy.1", None, 0.5, ["class_accuracy.1"]),
        ),
    ],
)
def test_evaluations_of_one_step_are_compared(
    tmp_path: Path, files: dict[str, Any], found: tuple[Any, ...] | None
) -> None:
    same = {"metrics_best": EVALUATION, "metricsX": EVALUATION}
    a = write_run(tmp_path / "a", metrics=EVALUATION, metrics_table=5, **same)
    (a / "metrics-figures.json").mkdir()
    b = write_run(tmp_path / "b", **files)
    assert find_metric_difference(a, b, last=2) == (MetricDifference(*found) if found else None)


def test_values_are_compared_exactly() -> None:
    values = {"a": 0.1 + 0.2, "b": math.nan, "c": [1, math.nan], "d": 1}
    assert differing_metrics(values, {**values, "b": -math.nan, "c": [1, math.nan]}) == []
    assert differing_metrics(values, {**values, "a": 0.3}) == ["a"]
    assert differing_metrics({"x": 1.0, "z": 0.0}, {"y": 1.0, "z": -0.0}) == ["x", "z", "y"]
    assert differing_metrics({"none": None}, {}) == ["none"]


def test_values_that_look_the_same_are_shown_exactly() -> None:
    assert shown_values(0.127, 0.174) == ("0.127", "0.174")
    assert shown_values(0.25, NEXT) == (
        "0.25 (0x1.0000000000000p-2)",
        "0.25 (0x1.0000000000001p-2)",
    )
    assert shown_values(None, "é") == ("not there", '"é"')
    assert shown_values(1, 1.0) == ("1", "1.0")
    assert shown_values(1.0, 1) == ("1.0", "1")
    assert shown_values([1, 0.1], [1.0, 0.1]) == ("[1, 0.1]", "[1.0, 0.1]")


def told(capsys: pytest.CaptureFixture[str], a: Path, b: Path) -> tuple[Any, str]:
    comparison = compare_traces(a, b)
    print_difference(comparison, ("a", "b"))
    return comparison.as_json()["metrics"], capsys.readouterr().out


def test_steps_that_agree_with_other_metrics_are_not_identical(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a = write_run(tmp_path / "a", *LINES)
    b = write_run(tmp_path / "b", *changed(2, accuracy=0.75, loss=0.125))
    found, words = told(capsys, a, b)
    assert found == {
        "file": "metrics.jsonl",
        "step": 2,
        "split": "validation",
        "metric": "loss",
        "a": 0.5,
        "b": 0.125,
        "differing": ["loss", "accuracy"],
    }
    assert "IDENTICAL" not in words
    assert "OTHER METRICS, although all steps from 1 to 2 agree" in words
    assert "In metrics.jsonl at step 2 (validation) loss is 0.5 in A, 0.125 in B.\n" in words
    assert "Other values there, too: accuracy.\n" in words
    words = " ".join(words.split())
    assert "state that no checkpoint saves, so a resumed run has lost it" in words
    assert "other hardware" not in words  # the conditions of training were compared
    c = write_run(tmp_path / "c", *LINES, metrics=EVALUATION)
    d = write_run(tmp_path / "d", *LINES, metrics={**EVALUATION, "accuracy": 1})
    _, words = told(capsys, c, d)
    words = " ".join(words.split())
    assert "the two evaluations ran on other hardware or with other code: evaluate both" in words


def test_metrics_are_not_compared_where_runs_part_or_have_other_conditions(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a = write_run(tmp_path / "a", *LINES)
    found, words = told(capsys, a, write_run(tmp_path / "b", *changed(0, loss=1.0), last="8"))
    assert found is None
    assert "The runs part at step 2" in words
    found, words = told(capsys, a, write_run(tmp_path / "c", *changed(0, loss=1.0), seed=43))
    assert found is None
    assert "IDENTICAL: all steps" in words
    assert "Their metrics were not compared, because the conditions differ." in words


def test_a_damaged_file_is_one_line(tmp_path: Path) -> None:
    a = write_run(tmp_path / "a", *LINES, metrics=EVALUATION)
    b = write_run(tmp_path / "b", *LINES)
    (b / "metrics.json").write_bytes(b'{"step": 2, "acc\xff')
    with pytest.raises(UserError, match=r"^[^\n]*metrics\.json is damaged \(.*utf-8.*\): eval"):
        find_metric_difference(a, b, last=2)
    (b / "metrics.jsonl").write_text("5\n")
    with pytest.raises(UserError, match=r"^[^\n]*metrics\.jsonl: line 1 is damaged"):
        find_metric_difference(a, b, last=2)


@pytest.mark.parametrize("depth", [200, 100_000])
def test_very_deep_nesting_is_one_line(tmp_path: Path, depth: int) -> None:
    deep = f'{{"step": 2, "a": {"[" * depth}{"]" * depth}}}\n'
    a = write_run(tmp_path / "a", metrics=EVALUATION)
    (a / "metrics.json").write_text(deep)
    with pytest.raises(UserError, match=r"^[^\n]*metrics\.json is damaged \([^\n]*$"):
        find_metric_difference(a, a, last=2)
    (a / "metrics.jsonl").write_text(deep)
    with pytest.raises(UserError, match=r"^[^\n]*metrics\.jsonl: line 1 is damaged \([^\n]*$"):
        find_metric_difference(a, a, last=2)
    assert parse_object(a / "metrics.json") is None


def test_metrics_in_groups_have_dotted_names() -> None:
    values = {"step": 1, "steps": 2, "split": "test", "a": {"b": {"c": 1}}, "d": [{"e": 2}]}
    assert metrics_of(values) == {"a.b.c": 1, "d": [{"e": 2}]}


def test_what_json_lacks_is_a_string(tmp_path: Path) -> None:
    a = write_run(tmp_path / "a", metrics=EVALUATION)
    b = write_run(tmp_path / "b", metrics={**EVALUATION, "accuracy": math.nan})
    text = json_text(compare_traces(a, b).as_json())
    assert json.loads(text)["metrics"]["b"] == "NaN"
    found = json.loads(json_text({"a": [math.inf, (-math.inf, 1.5)], "b": {"c": math.nan}}))
    assert found == {"a": ["Infinity", ["-Infinity", 1.5]], "b": {"c": "NaN"}}
    assert [float(text) for text in ("Infinity", "-Infinity")] == [math.inf, -math.inf]


def test_metrics_are_not_compared_if_earlier_steps_had_other_conditions(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """B was trained with other code until step 1, and resumed with A's."""
    a = write_run(tmp_path / "a", *LINES)
    b = write_run(tmp_path / "b", *changed(0, loss=1.0))
    lines = (b / "trace.jsonl").read_text().splitlines()
    first = json.dumps({"step": 0, "header": {"conditions": {"data": "other"}, "seed": 42}})
    resumed = json.dumps({"step": 1, "header": HEADER | {"seed": 42}})
    (b / "trace.jsonl").write_text("\n".join([first, lines[1], resumed, lines[2], ""]))
    found, words = told(capsys, a, b)
    assert found is None
    assert "IDENTICAL: all steps" in words
    assert "not compared, because the conditions of step 1 differ." in words
    comparison = compare_traces(a, b)
    assert comparison.conditions == []
    assert comparison.as_json()["metrics_not_compared"] == "the conditions of step 1 differ"
