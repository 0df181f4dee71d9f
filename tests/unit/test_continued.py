"""Going on with a training: other code since its checkpoint is refused, or is told everywhere."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from recorded_claims import recorded_claim
from repro.core import layout
from repro.core.errors import UserError
from repro.results import record
from repro.results.claims import RECORDED_RUNS, recorded_run
from repro.runs.conditions import conditions_on_disk
from repro.runs.context import other_code, read_context
from repro.runs.run_result import read_result
from repro.runs.training_session import TrainingSession
from test_session import Settings, as_it_was, plain, quiet, settings

__all__ = ["as_it_was"]  # a fixture


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A project with a little code, and a run that was stopped after step 5."""
    (tmp_path / "requirements.lock").write_text("")
    (tmp_path / "runs").mkdir()
    for name in ("experiment/model.py", "experiment/data.py", "repro/kit.py", "tests/test_it.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("WIDTH = 1\n")
    train(tmp_path, stop=5)
    return tmp_path


def train(
    root: Path, stop: int | None = None, name: str = "one", **changes: Any
) -> TrainingSession:
    at = Settings(shards=1, max_steps=stop)
    session = TrainingSession(root, settings(run_dir=f"runs/{name}", training=at, **changes), quiet)
    plain(session)
    return session


def edit(root: Path) -> None:
    (root / "experiment/model.py").write_text("WIDTH = 2\n")
    (root / "experiment/new.py").write_text("")
    (root / "repro/kit.py").unlink()


def everything(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("resume", ["auto", "runs/one", "runs/one/checkpoints/step-000000005"])
def test_other_code_is_refused_and_every_file_named(root: Path, resume: str) -> None:
    before = everything(root / "runs")
    edit(root)
    with pytest.raises(UserError) as refused:
        train(root, resume=resume)
    (line,) = refused.value.lines
    files = "experiment/model.py changed, experiment/new.py is new, repro/kit.py is missing"
    assert (
        f"was trained with other code ({files}): put it back, or resume_changed_code=true" in line
    )
    assert everything(root / "runs") == before


def test_a_copy_of_a_checkpoint_knows_its_code(root: Path, tmp_path: Path) -> None:
    checkpoint = root / "runs/one/checkpoints/step-000000005"
    checkpoint.rename(tmp_path / "copied")
    edit(root)
    with pytest.raises(UserError, match=r"other code \(experiment/model\.py changed"):
        train(root, name="two", resume="copied")


def test_the_lock_and_packages_count_as_code(root: Path) -> None:
    (root / "requirements.lock").write_text("numpy==0.1 \\\n    --hash=sha256:00\n")
    with pytest.raises(UserError) as refused:
        train(root, resume="auto")
    lines = "\n".join(refused.value.lines)
    assert "lock: changed" in lines
    assert "packages: numpy is " in lines


def test_code_that_no_bits_depend_on_may_change(root: Path) -> None:
    (root / "tests/test_it.py").write_text("WIDTH = 2\n")
    (root / "repro/tracking").mkdir()
    (root / "repro/tracking/mine.py").write_text("")
    assert train(root, resume="auto").finished == "steps"


def test_a_checkpoint_without_code_is_judged_by_the_runs_contexts(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from repro.runs.session_base import SessionBase

    state_dict = SessionBase.state_dict

    def older(session: SessionBase) -> dict[str, Any]:
        return {name: part for name, part in state_dict(session).items() if name != "on_disk"}

    monkeypatch.setattr(SessionBase, "state_dict", older)
    train(root, name="two", stop=5)
    monkeypatch.undo()
    edit(root)
    with pytest.raises(UserError, match=r"experiment/new\.py is new"):
        train(root, name="two", resume="auto")


def go_on(root: Path, **changes: Any) -> TrainingSession:
    return train(root, resume="auto", resume_changed_code=True, **changes)


def test_a_run_that_went_on_is_one_of_other_code(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = conditions_on_disk(root)
    edit(root)
    go_on(root, stop=8)
    assert "this is a run of other code: experiment/model.py changed" in capsys.readouterr().out
    run = root / "runs/one"
    assert "code: repro/kit.py is missing" in other_code(run, code)
    conditions = read_result(run).conditions
    assert ", then " in str(conditions["code: experiment/model.py"])
    headers = [json.loads(line) for line in (run / "trace.jsonl").read_text().splitlines()]
    assert [line["step"] for line in headers if "header" in line] == [0, 5]
    train(root, resume="auto")  # the same code as at the last start: nothing to ask for
    (root / "experiment/model.py").write_text("WIDTH = 1\n")
    with pytest.raises(UserError, match="other code"):
        train(root, resume="auto")


def test_a_run_in_a_folder_of_its_own_takes_the_first_code_along(root: Path) -> None:
    edit(root)
    changed = conditions_on_disk(root)
    train(root, name="two", resume="runs/one", resume_changed_code=True)
    assert other_code(root / "runs/two", changed)
    assert ", then " in str(read_result(root / "runs/two").conditions["code: experiment/model.py"])


def test_record_and_verify_take_it_for_no_run_of_the_claim(root: Path) -> None:
    run = root / RECORDED_RUNS / "mine" / "digest" / "seed-1"
    run.parent.mkdir(parents=True)
    (root / "runs/one").rename(run)
    context = read_context(run)
    assert context
    (run / layout.EVALUATION).write_text('{"bits": "aa"}')
    hardware = context.hardware_class
    environments = {hardware: context.conditions.environment}
    bits = {hardware: {"1": "aa"}}
    shared = replace(context.conditions, environment={})
    expected = recorded_claim(conditions=shared, bits=bits, environments=environments)
    assert recorded_run(root, "mine", expected, 1) == run
    edit(root)
    go_on(root, name="record/mine/digest/seed-1")
    assert recorded_run(root, "mine", expected, 1) is None
    with pytest.raises(UserError, match="was trained with other code or settings"):
        record.refuse_other_conditions(run, context.conditions)


def test_code_edited_while_the_data_are_prepared_is_not_recorded(root: Path) -> None:
    """What the process imported is what its context has to name."""
    before = conditions_on_disk(root)
    session = TrainingSession(root, settings(run_dir="runs/two"), quiet)
    edit(root)
    plain(session)
    assert not other_code(root / "runs/two", before)
