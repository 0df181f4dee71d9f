"""File systems without fsync of folders, symbolic links or modes: a training goes on without."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from repro.core import layout
from repro.core.files import write_file
from repro.runs.folder import Run
from repro.training import checkpoint, durable

ANSWERS = ["EINVAL", "ENOTSUP", "ENOSYS", "EPERM", "EACCES", "EBADF"]


@pytest.fixture(autouse=True)
def _nothing_said_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(durable, "_said", set())


def refusing(answer: str) -> Callable[..., Any]:
    def refuse(*_: object, **__: object) -> None:
        number = getattr(errno, answer)
        raise OSError(number, os.strerror(number))

    return refuse


def train(run: Run, keep: int, best: int) -> None:
    """Save after 1 to 6 steps, as a training does."""
    for step in range(1, 7):
        checkpoint.save(layout.step_folder(run.checkpoints, step), {"step": step})
        known = best if step >= best else 0
        run.name_checkpoints({layout.LAST: step, layout.BEST: known})
        checkpoint.prune(run.checkpoints, keep, step, known)


def saved(run: Run) -> list[int]:
    return [layout.step_of(path) for path in layout.steps_newest_first(run.checkpoints)]


@pytest.mark.parametrize("answer", ANSWERS)
def test_without_fsync_checkpoints_are_saved_and_it_is_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], answer: str
) -> None:
    monkeypatch.setattr(os, "fsync", refusing(answer))
    train(Run(tmp_path), 2, 2)
    assert saved(Run(tmp_path)) == [6, 5, 2]
    assert checkpoint.load(layout.step_folder(tmp_path / "checkpoints", 6)) == {"step": 6}
    (line,) = capsys.readouterr().out.splitlines()
    assert "this file system has no fsync" in line


@pytest.mark.parametrize("answer", ANSWERS)
def test_without_links_best_and_last_are_kept_and_it_is_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], answer: str
) -> None:
    monkeypatch.setattr(os, "symlink", refusing(answer))
    run = Run(tmp_path)
    train(run, 1, 2)
    assert saved(run) == [6, 2]
    assert {path.name for path in run.checkpoints.iterdir()} == {"step-000000002", "step-000000006"}
    assert checkpoint.newest_whole(run.checkpoints).name == "step-000000006"
    (line,) = capsys.readouterr().out.splitlines()
    assert "this file system has no symbolic links" in line
    assert "--checkpoint RUN/checkpoints/step-N" in line


@pytest.mark.parametrize("call", ["fsync", "symlink"])
@pytest.mark.parametrize("answer", ["EIO", "ENOSPC", "EDQUOT"])
def test_a_disk_that_fails_is_still_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, answer: str
) -> None:
    monkeypatch.setattr(os, call, refusing(answer))
    with pytest.raises(OSError, match=os.strerror(getattr(errno, answer))):
        train(Run(tmp_path), 1, 2)


def test_without_modes_files_are_written_and_checkpoints_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint.save(tmp_path / "one", {"step": 1})
    for name in ("chmod", "utime"):
        monkeypatch.setattr(os, name, refusing("EPERM"))
    write_file(tmp_path / "file", b"whole")
    assert (tmp_path / "file").read_bytes() == b"whole"
    checkpoint.copy(tmp_path / "one", tmp_path / "two")
    assert checkpoint.load(tmp_path / "two") == {"step": 1}
