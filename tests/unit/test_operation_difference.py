"""Two replays of a step: the operation that differs, their files, how far outputs lie apart."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from repro.core.errors import UserError
from repro.diagnosis.diff import compare_steps
from repro.diagnosis.distances import Distance, distances
from repro.diagnosis.operation_difference import find_operation, find_unwritten
from repro.diagnosis.operations import Recorder
from repro.diagnosis.step_file import (
    REPLACED,
    Operation,
    StepRecord,
    TensorRecord,
    read_step,
    write_step,
)
from repro.runs.logs import TraceLine
from safetensors.torch import save_file

WEIGHT = TensorRecord("1", "float32", [3], "0.weight")
ADD = Operation("aten.add", "forward", "0", "Linear", "model.py:3", "1", [WEIGHT], [WEIGHT])
RESULT = TensorRecord("2", "float32", [3], "")
DRAW = Operation("aten.rand", "forward", "", "", "", "", [], [RESULT], random=7)
EMPTY = Operation("aten.empty", "forward", "", "", "", "", [], [RESULT], fresh=True)
OTHER = RESULT._replace(fingerprint="3")


def record(*operations: Operation, samples: tuple[int, ...] = (1, 2)) -> StepRecord:
    line = TraceLine(5, {"samples": "a", "loss": "0x1.8p+0"})
    return StepRecord("run", 5, {"seed": 42}, [], line, [*samples], None, line, [*operations])


@pytest.mark.parametrize(
    ("how", "one", "two"),
    [
        ("outputs", ADD, replace(ADD, outputs=[OTHER])),
        ("arguments", ADD, replace(ADD, arguments="2")),
        ("random", DRAW, replace(DRAW, random=8)),
        ("inputs", ADD, replace(ADD, inputs=[WEIGHT._replace(fingerprint="9")])),
        ("order", ADD, replace(ADD, inputs=[WEIGHT._replace(name="1.weight")])),
        ("operations", ADD, replace(ADD, name="aten.sub", outputs=[OTHER])),
    ],
)
def test_how_two_operations_differ(how: str, one: Operation, two: Operation) -> None:
    found = find_operation(record(DRAW, one), record(DRAW, two))
    assert found is not None
    assert (found.how, found.index[1], found.b) == (how, 1, two)
    assert found.as_json()["how"] == how
    assert "apart" not in found.as_json()


def test_what_is_no_difference() -> None:
    assert find_operation(record(ADD, DRAW), record(ADD, DRAW)) is None
    garbage = replace(EMPTY, outputs=[OTHER])
    assert find_operation(record(EMPTY, ADD), record(garbage, ADD)) is None
    by_another_way = replace(ADD, name="aten.add_")
    assert find_operation(record(ADD), record(by_another_way)) is None
    assert find_operation(record(ADD, ADD), record(ADD)) is None
    renamed = replace(ADD, outputs=[WEIGHT._replace(name="used again")])
    assert find_operation(record(ADD), record(renamed)) is None


def test_memory_that_nobody_wrote_is_found() -> None:
    assert find_unwritten(record(ADD, DRAW)) is None
    found = find_unwritten(record(ADD, replace(DRAW, unwritten=True)))
    assert found is not None
    assert (found.how, found.index) == ("unwritten", (1, 1))


def test_a_step_is_read_as_it_was_written(tmp_path: Path) -> None:
    written = record(ADD, DRAW, EMPTY, replace(ADD, unwritten=True))
    file = tmp_path / "a.json"
    write_step(written, file)
    assert read_step(file) == written
    told = json.loads(file.read_text())
    assert told["line"] == {"step": 5, "samples": "a", "loss": "0x1.8p+0"}
    assert told["operations"][0]["inputs"] == [["1", "float32", [3], "0.weight"]]
    assert [operation.get("random") for operation in told["operations"]] == [None, 7, None, None]
    assert not {"fresh", "unwritten", "random", "class_"} & told["operations"][0].keys()
    start = replace(written, samples=None, recorded=None, parted=0)
    write_step(start, file)
    assert read_step(file) == start
    assert "samples" not in json.loads(file.read_text())


def test_files_of_a_step_are_compared(tmp_path: Path) -> None:
    files = [tmp_path / "a.json", tmp_path / "b.json"]
    write_step(record(ADD), files[0])
    write_step(record(ADD, samples=(2, 1)), files[1])
    told = compare_steps(*files).as_json()
    assert (told["step"], told["quantity"]) == (5, "operations")
    assert (told["samples"], told["operation"]) == ([[1, 2], [2, 1]], None)
    assert compare_steps(files[0], files[0]).parting is None
    files[1].write_text("{}")
    with pytest.raises(UserError, match="was not written by repro trace-step"):
        compare_steps(*files)


def test_how_far_outputs_lie_apart(tmp_path: Path) -> None:
    files = [tmp_path / "a.safetensors", tmp_path / "b.safetensors"]
    x = torch.tensor([1.0, 2.0, float("nan"), -4.0])
    y = x.clone()
    y[1] = torch.nextafter(y[1], torch.tensor(9.0))
    whole = torch.tensor([1, 2])
    save_file({"0": x, "1": whole, "2": whole.clone()}, files[0])
    save_file({"0": y, "1": whole, "2": whole + 1}, files[1])
    ulp = 2.0**-22
    assert distances(*files) == [
        Distance(0, 4, 1, 1, ulp, ulp / (2 + ulp)),
        Distance(2, 2, None, 2, 1.0, 0.5),
    ]
    save_file({"0": x, "1": whole}, files[1])
    assert distances(*files) == []
    assert distances(files[0], tmp_path / "missing") == []


def test_what_is_replaced_is_no_input() -> None:
    """DDP's buckets hold any numbers before a gradient is copied there."""
    a, b, c = torch.ones(3), torch.full((3,), 2.0), torch.full((3,), 3.0)
    recorder = Recorder(Path(), ())
    with recorder.recording():
        c.copy_(a)
        torch.add(a, b, out=c)
        c.zero_()
        c.add_(a)
        torch.add(a, b, out=a)  # which it reads
    found = [[each.fingerprint == REPLACED for each in o.inputs] for o in recorder.operations]
    assert found == [[True, False], [False, False, True], [True], [False] * 2, [False] * 3]
