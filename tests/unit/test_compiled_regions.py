"""What torch compiles is compared with what it compiled, from outside."""

from pathlib import Path
from typing import Any

import pytest
import torch
from repro.diagnosis import diff
from repro.diagnosis.audit import Audit, print_findings
from repro.diagnosis.explain import print_difference, sentence
from repro.diagnosis.operations import Recorder
from repro.diagnosis.step_file import StepRecord, write_step
from repro.runs.logs import TraceLine
from repro.training.determinism import compile_in_place, compiled
from repro.training.regions import regions_asked, watching_regions
from torch import nn


def network() -> nn.Sequential:
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.GELU(), nn.Linear(8, 1))


def step(model: nn.Module, root: Path, factor: float = 1.0, records: bool = True) -> Recorder:
    """Do three steps, and record the last."""
    recorder = Recorder(root, ("experiment",))
    recorder.phase = "forward"
    for number in range(3):
        generator = torch.Generator().manual_seed(number)
        x = torch.randn(5, 4, generator=generator) * (factor if number == 2 else 1)
        model.zero_grad()
        if number < 2 or not records:
            model(x).square().sum().backward()
            continue
        recorder.name(model)
        with watching_regions(recorder.region), recorder.recording(follow=False):
            model(x).square().sum().backward()
    return recorder


def record(root: Path, name: str, operations: Any) -> Path:
    path = root / f"{name}.json"
    line = TraceLine(3, {})
    write_step(StepRecord(name, 3, {}, [], None, None, None, line, operations), path)
    return path


@pytest.mark.parametrize("in_place", [True, False])
def test_a_replay_runs_what_is_compiled_and_tells_its_inputs_and_outputs(
    tmp_path: Path, in_place: bool
) -> None:
    plain = network()
    compile_in_place(plain)
    step(plain, tmp_path, records=False)
    torch._dynamo.reset()
    model = network()
    with regions_asked():
        if in_place:
            compile_in_place(model)
        else:
            model = compiled(model)  # type: ignore[assignment]
        one = step(model, tmp_path)
    for weight, other in zip(model.parameters(), plain.parameters(), strict=True):
        assert torch.equal(weight.grad, other.grad)  # type: ignore[arg-type]
    regions = [each for each in one.operations if each.name.startswith("compiled region")]
    assert [each.phase for each in regions] == ["forward", "backward"]
    names = {tensor.name.removeprefix("_orig_mod.") for tensor in regions[0].inputs}
    assert {"0.weight", "1.running_mean", "3.bias"} <= names
    outputs = {tensor.name.removeprefix("_orig_mod.") for tensor in regions[0].outputs}
    assert "1.running_mean" in outputs  # which it changes
    assert not {"aten.addmm", "aten.gelu"} & {each.name for each in one.operations}


def test_compiled_is_compared_with_compiled_only(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = network()
    with regions_asked():
        compile_in_place(model)
        one = record(tmp_path, "one", step(model, tmp_path).operations)
        torch._dynamo.reset()
        again = network()
        compile_in_place(again)
        other = record(tmp_path, "other", step(again, tmp_path, factor=1.5).operations)
    eager = record(tmp_path, "eager", step(network(), tmp_path).operations)
    found = diff.compare_steps(one, other)
    assert found.replayed
    assert found.replayed.compiled == (True, True)
    assert found.replayed.operation
    assert found.replayed.operation.a
    assert found.replayed.operation.a.name == "compiled region 1"
    print_difference(found, ("one", "other"))
    told = " ".join(capsys.readouterr().out.split())
    assert "a compiled region is compared by its inputs and outputs, and nobody sees inside" in told
    mixed = diff.compare_steps(one, eager)
    assert mixed.replayed
    assert mixed.replayed.operation is None
    assert not mixed.is_identical
    print_difference(mixed, ("one", "eager"))
    told = " ".join(capsys.readouterr().out.split())
    assert "torch compiled the model of A (training.compile=true) and not that of B: their" in told


def test_an_audit_says_that_it_does_not_see_inside(capsys: pytest.CaptureFixture[str]) -> None:
    print_findings(Audit([], [], evaluated=True, compiled=True), [])
    told = " ".join(capsys.readouterr().out.split())
    assert "and the audit does not see inside what torch makes of them" in told


def test_compiling_is_a_condition_and_named() -> None:
    changes = diff._changes(*({"config": {"training": {"compile": on}}} for on in (False, True)))
    assert [sentence(change) for change in changes] == [
        "B ran with training.compile=True, A with False"
    ]
