"""Folders of images, and of checkpoints, as they are met in the field."""

import os
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from repro.core import layout
from repro.core.errors import UserError
from repro.data.manifest import tree_digests
from repro.runs.folder import Run, find_start, open_run
from repro.training import checkpoint


def test_a_folder_that_cannot_be_read_is_no_folder_without_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / "image.png").write_bytes(b"")
    (tmp_path / "b").chmod(0)
    monkeypatch.chdir(tmp_path)  # from there, for the folders above may be closed, too
    tmp_path.chmod(0o755)
    user = os.geteuid()
    if user == 0:  # root may read everything
        os.seteuid(65534)
    try:
        with pytest.raises(PermissionError):
            tree_digests(Path())
    finally:
        os.seteuid(user)
        (tmp_path / "b").chmod(0o755)
    assert list(tree_digests(Path())) == ["a/image.png", "b/image.png"]


ASIDE = ["{}.bad", "{}.bak", "{}~", "{} (copy)", "{}-old", "old-{}", ".{}.partial", "x{}"]
NO_STEPS = ["step-9", "step-٠٠٠٠٠٠٠٠٩", "step-0000000009", "step-+00000009", "step-"]


def trained(run: Path, steps: tuple[int, ...]) -> Path:
    """The checkpoints of a run that saved at these steps."""
    checkpoints = run / layout.CHECKPOINTS
    for step in steps:
        checkpoint.save(layout.step_folder(checkpoints, step), {"step": step})
    checkpoint.point(checkpoints / "last", layout.step_folder(checkpoints, steps[-1]))
    return checkpoints


@pytest.mark.parametrize("aside", ASIDE)
def test_a_checkpoint_that_was_set_aside_is_none(tmp_path: Path, aside: str) -> None:
    checkpoints = trained(tmp_path, (2, 4, 6))
    newest = layout.step_folder(checkpoints, 6)
    newest.rename(newest.with_name(aside.format(newest.name)))
    copied = aside.format("step-000000900")
    shutil.copytree(layout.step_folder(checkpoints, 2), checkpoints / copied)
    assert checkpoint.newest_whole(checkpoints).name == "step-000000004"
    checkpoint.prune(checkpoints, 1, 6)
    left = {path.name for path in checkpoints.iterdir()}
    assert left == {"last", "step-000000004", aside.format(newest.name), copied}


def test_names_that_no_step_has_are_no_checkpoints(tmp_path: Path) -> None:
    checkpoints = trained(tmp_path, (2, 4))
    for name in NO_STEPS:
        shutil.copytree(layout.step_folder(checkpoints, 2), checkpoints / name)
    (checkpoints / "step-000000800").write_text("a file")
    assert [layout.step_of(path) for path in layout.steps_newest_first(checkpoints)] == [4, 2]
    checkpoint.save(layout.step_folder(checkpoints, 10**9), {"step": 10**9})
    assert layout.step_of(layout.steps_newest_first(checkpoints)[0]) == 10**9


def test_a_copy_under_another_steps_name_is_damaged_and_takes_no_place(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoints = trained(tmp_path, (2, 4, 6))
    copied = layout.step_folder(checkpoints, 900)
    shutil.copytree(layout.step_folder(checkpoints, 2), copied)
    assert checkpoint.newest_whole(checkpoints).name == "step-000000006"
    assert "its name says step 900, its state 2" in capsys.readouterr().out
    checkpoint.prune(checkpoints, 2, 6)
    kept = [layout.step_of(path) for path in layout.steps_newest_first(checkpoints)]
    assert kept == [900, 6, 4]


def test_a_run_that_goes_on_from_a_checkpoint_set_aside_gives_it_its_name(tmp_path: Path) -> None:
    checkpoints = trained(tmp_path / "one", (2, 4))
    aside = layout.step_folder(checkpoints, 4).rename(checkpoints / "step-000000004.bad")
    (tmp_path / "one" / layout.CONFIG_USED).touch()
    (tmp_path / "two").mkdir()
    run = Run(tmp_path / "two", aside)
    run.begin(4)
    assert checkpoint.newest_whole(run.checkpoints).name == "step-000000004"


def test_a_context_that_was_set_aside_is_none(tmp_path: Path) -> None:
    for name in ("resumed_at_step_4", "resumed_at_step_4.bak", "resumed_at_step_"):
        (tmp_path / name).mkdir()
    assert layout.context_folders(tmp_path) == [tmp_path, layout.resumed_folder(tmp_path, 4)]


def test_the_newest_checkpoint_is_hashed_once_to_go_on_from_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may take minutes. A newer one that is damaged is looked at again."""
    run = tmp_path / layout.RUNS / "a"
    checkpoints = trained(run, (2, 4, 6))
    (run / layout.CONFIG_USED).write_text("")
    os.truncate(layout.step_folder(checkpoints, 6) / layout.TENSORS, 1)
    hashed: list[str] = []
    hash_file = checkpoint.sha256_file

    def noting(path: Path) -> str:
        hashed.append(f"{path.parent.name}/{path.name}")
        return hash_file(path)

    monkeypatch.setattr(checkpoint, "sha256_file", noting)
    config: Any = SimpleNamespace(resume="auto", run_dir="runs/a")
    start = find_start(tmp_path, config)
    assert start == layout.step_folder(checkpoints, 4)
    assert open_run(tmp_path, config, start).folder == run
    assert hashed.count(f"{start.name}/{layout.TENSORS}") == 1
    config.resume = str(layout.step_folder(checkpoints, 2))
    older = find_start(tmp_path, config)
    with pytest.raises(UserError, match="is not the newest checkpoint of"):
        open_run(tmp_path, config, older)
