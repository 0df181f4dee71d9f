"""A checkpoint's tensors are written piece by piece, with the bytes that safetensors gives."""

import errno
import hashlib
import os
import threading
from pathlib import Path

import pytest
import torch
from repro.training import checkpoint, tensors
from repro.training.packing import pack
from repro.training.tensors import load_tensors, write_tensors
from safetensors.torch import _TYPES, save


def filled(dtype: torch.dtype, *shape: int) -> torch.Tensor:
    count = torch.empty(shape, dtype=dtype).numel() * dtype.itemsize
    return torch.arange(count).to(torch.uint8).remainder(2).view(dtype).reshape(shape)


def test_the_bytes_are_those_of_the_library(tmp_path: Path) -> None:
    """Every type that torch and the library share, empty and lone ones, names of any kind."""
    odd = {
        'q"\\\x01\n\x7f\u2028é': torch.ones(3),
        "": torch.zeros(()),
        "none": torch.zeros(2, 0),
        "Z": torch.ones(1),
    }
    types = {str(dtype): filled(dtype, 2, 3) for dtype in _TYPES.values()}
    own = {name: types[name] for name in types if _is_own(types[name])}
    assert len(own) == len(tensors._NAMES)
    for number, case in enumerate(({}, odd, own, types, {**odd, **types})):
        path = tmp_path / str(number)
        digest = write_tensors(path, case, flush=lambda _: None)
        assert path.read_bytes() == save(case), number
        assert digest == hashlib.sha256(path.read_bytes()).hexdigest()
        assert load_tensors(path).keys() == case.keys()


def _is_own(tensor: torch.Tensor) -> bool:
    return tensor.dtype in tensors._NAMES


def test_large_tensors_are_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Several pieces, the last one short."""
    monkeypatch.setattr(tensors, "_PIECE", 64)
    case = {"a": torch.rand(1001), "b": torch.arange(77, dtype=torch.int16)}
    path = tmp_path / "file"
    flushed: list[bytes] = []
    digest = write_tensors(path, case, flush=lambda it: flushed.append(it.read_bytes()))
    assert flushed == [save(case)]
    assert digest == hashlib.sha256(save(case)).hexdigest()


def test_where_no_thread_can_be_started_a_file_is_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the limit of processes: the digest is taken afterwards."""

    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    case = {"a": torch.rand(1001)}
    monkeypatch.setattr(tensors, "_PIECE", 64)
    monkeypatch.setattr(threading.Thread, "start", refuse)
    digest = write_tensors(tmp_path / "file", case, flush=lambda _: None)
    assert (tmp_path / "file").read_bytes() == save(case)
    assert digest == hashlib.sha256(save(case)).hexdigest()


def test_views_and_shared_memory_are_saved_as_they_read(tmp_path: Path) -> None:
    base = torch.arange(24.0).reshape(4, 6)
    state = {
        "base": base,
        "rows": base[1:3],
        "transposed": base.t(),
        "every other": base[:, ::2],
        "expanded": base[:1].expand(3, 6),
        "tied": base,
        "conjugated": torch.tensor([1 + 2j, 3 - 1j], dtype=torch.complex64).conj(),
        "parameter": torch.nn.Parameter(base[0]),
        "channels_last": torch.rand(2, 3, 4, 4).to(memory_format=torch.channels_last),
    }
    checkpoint.save(tmp_path / "c", state)
    found = checkpoint.load(tmp_path / "c")
    for name, value in state.items():
        assert torch.equal(found[name], value), name
    stored = load_tensors(tmp_path / "c" / "tensors.safetensors")
    assert "tied" not in " ".join(stored)


def test_nothing_of_the_state_is_copied_to_be_written() -> None:
    state = {"w": torch.rand(8, 8)}
    (kept,) = pack(state).tensors.values()
    assert kept.data_ptr() == state["w"].data_ptr()


def test_a_full_disk_leaves_no_part_of_a_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, *_: object) -> str:
        path.write_bytes(b"a part")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(checkpoint, "write_tensors", full)
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        checkpoint.save(tmp_path / "c", {"w": torch.ones(1)})
    assert list(tmp_path.iterdir()) == []
