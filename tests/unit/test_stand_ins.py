"""Files that stand for content which is not there: named wherever a command expects the content."""

import os
from pathlib import Path

import pytest
import torch
from repro.core.errors import UserError
from repro.core.stand_ins import stand_in
from repro.data.download import fetch
from repro.results.claims import EXPECTED, read_recording
from repro.training import checkpoint
from repro.training.model_state import load_fitting
from torch import nn

POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 9\n"
TOLD = "a pointer of git LFS in the place of the content: git lfs pull gets it"


def test_files_like_any_other_are_none(tmp_path: Path) -> None:
    for name, content in {
        "a.png": b"\x89PNG\r\n",
        "long": POINTER.encode() * 99,
        "b.txt": b"see https://git-lfs.github.com",
        "thumbs.png": b"",
    }.items():
        (tmp_path / name).write_bytes(content)
        assert stand_in(tmp_path / name) is None
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("nowhere")
    for name in ("pipe", "link", "missing", "."):
        assert stand_in(tmp_path / name) is None


def test_weights_and_downloads_that_are_pointers_are_named(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    path.write_text(POINTER)
    with pytest.raises(UserError, match=f"; this is {TOLD}"):
        load_fitting(nn.Linear(1, 1), path, "1" * 64)
    with pytest.raises(UserError, match=f"expected {'1' * 64}: {TOLD}"):
        fetch("http://127.0.0.1:9/w", "1" * 64, path)


def test_a_checkpoint_whose_tensors_are_a_pointer_says_so(tmp_path: Path) -> None:
    folder = tmp_path / "step-000000001"
    checkpoint.save(folder, {"step": 1, "model": {"w": torch.ones(3)}})
    (folder / "tensors.safetensors").write_text(POINTER)
    assert checkpoint.find_fault(folder) == f"tensors.safetensors is {TOLD}"


def test_recorded_results_that_are_a_pointer_are_named(tmp_path: Path) -> None:
    (tmp_path / EXPECTED).parent.mkdir()
    (tmp_path / EXPECTED).write_text(POINTER)
    with pytest.raises(UserError, match=TOLD):
        read_recording(tmp_path)
