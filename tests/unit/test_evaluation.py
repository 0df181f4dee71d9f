"""Which checkpoints of a run are the last and the best one, and where evaluations of them go."""

import json
import shutil
from pathlib import Path

import pytest
from repro.core import layout
from repro.runs.evaluation import best_step, evaluation_places


def run_with(folder: Path, best: int, steps: tuple[int, ...] = (20, 40, 60)) -> Path:
    """A run with these checkpoints, without links; the newest one's best step is `best`."""
    folder.mkdir()
    (folder / "config_used.yaml").write_text("")
    for step in steps:
        checkpoint = folder / "checkpoints" / f"step-{step:09d}"
        checkpoint.mkdir(parents=True)
        state = {"step": step, "best": {"accuracy": 0.5, "step": min(best, step)}}
        (checkpoint / "state.json").write_text(json.dumps(state))
    return folder


def places(checkpoint: Path, step: int) -> list[str]:
    """The names of all places of an evaluation, below the run."""
    found = evaluation_places(checkpoint, step)
    return [str(path.relative_to(found.run)) for path in (*found.metrics, *found.figures)]


LAST = ["metrics-last.json", "metrics.json", "figures"]
BEST = ["metrics-best.json", "figures-best"]
BOTH = ["metrics-last.json", "metrics-best.json", "metrics.json", "figures", "figures-best"]


@pytest.mark.parametrize(
    ("best", "step", "expected"),
    [
        (40, 60, LAST),
        (40, 40, BEST),
        (40, 20, ["metrics-step-20.json", "figures-step-20"]),
        (60, 60, BOTH),
        (0, 60, LAST),  # nothing was validated
        (0, 20, ["metrics-step-20.json", "figures-step-20"]),
    ],
)
def test_a_checkpoints_evaluation_has_its_own_places(
    tmp_path: Path, best: int, step: int, expected: list[str]
) -> None:
    run = run_with(tmp_path / "run", best)
    checkpoint = run / "checkpoints" / f"step-{step:09d}"
    assert places(checkpoint, step) == expected
    link = run / "checkpoints" / "mine"
    link.symlink_to(checkpoint.name)
    assert places(link, step) == expected


def test_a_copy_of_a_checkpoint_alone_has_its_evaluation_inside(tmp_path: Path) -> None:
    run = run_with(tmp_path / "run", 40)
    alone = tmp_path / "alone"
    shutil.copytree(run / "checkpoints" / "step-000000040", alone)
    assert places(alone, 40) == ["metrics.json", "figures"]
    found = evaluation_places(alone, 40)
    found.write({"accuracy": 0.5})
    assert json.loads((alone / "metrics.json").read_text()) == {"accuracy": 0.5}


def test_a_copy_of_a_run_without_links_has_the_same_places(tmp_path: Path) -> None:
    """`cp -rL` makes folders of `last` and `best`."""
    checkpoints = run_with(tmp_path / "run", 40) / "checkpoints"
    (checkpoints / "last").symlink_to("step-000000060")
    (checkpoints / "best").symlink_to("step-000000040")
    copied = tmp_path / "copy" / "checkpoints"
    shutil.copytree(tmp_path / "run", tmp_path / "copy")  # follows the links
    assert not (copied / "best").is_symlink()
    assert places(copied / "last", 60) == LAST
    assert places(copied / "best", 40) == BEST
    assert places(copied / "step-000000040", 40) == BEST


@pytest.mark.parametrize("name", ["mine", "step-000000040"])
def test_a_copy_in_another_folder_of_checkpoints_is_alone(tmp_path: Path, name: str) -> None:
    run = run_with(tmp_path / "run", 40)
    alone = tmp_path / "checkpoints" / name
    shutil.copytree(run / "checkpoints" / "step-000000040", alone)
    assert evaluation_places(alone, 40).run == alone
    assert places(alone, 40) == ["metrics.json", "figures"]


def test_a_stray_folder_is_no_checkpoint(tmp_path: Path) -> None:
    run = run_with(tmp_path / "run", 40)
    checkpoints = run / "checkpoints"
    for name in ("step-000000060.bak", "step-", "step-last", "step-000000070 (copy)"):
        (checkpoints / name).mkdir()
    (checkpoints / "step-1000000000").mkdir()  # sorts by its number, though its name is longer
    found = layout.steps_newest_first(checkpoints)
    assert [layout.step_of(path) for path in found] == [1000000000, 60, 40, 20]
    (checkpoints / "step-1000000000").rmdir()
    assert places(checkpoints / "step-000000060", 60) == LAST


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"best": 3}', '{"best": {"step": "3"}}', '{"best": {"step": true}}']
)
def test_a_state_without_a_best_checkpoint_has_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "state.json").write_text(text)
    assert best_step(tmp_path) == 0
    assert best_step(tmp_path / "nowhere") == 0
