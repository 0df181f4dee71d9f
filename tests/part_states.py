"""States of sharded models, as each process has them, and processes that are threads."""

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from repro.core.errors import UserError
from repro.core.hashing import sha256_file
from repro.core.layout import PARTS
from repro.training.part import Part
from repro.training.processes import Processes
from torch import Tensor

STEP = 7
_HANGS = 1200  # seconds, as in conftest.py, which projects do not have


class Threads(Processes):
    """Processes that are threads: what they tell each other goes through a list."""

    def __init__(self, rank: int, size: int, board: list[str], barrier: threading.Barrier) -> None:
        self.rank, self.size = rank, size
        self._board, self._barrier = board, barrier

    def texts(self, own: str) -> list[str]:
        self._board[self.rank] = own
        self._barrier.wait(_HANGS)
        found = [*self._board]
        self._barrier.wait(_HANGS)
        return found


def in_all(size: int, work: Callable[[Threads], object]) -> list[str]:
    """Let each process do `work`; the lines of those that refused."""
    board, barrier = [""] * size, threading.Barrier(size)
    lines: list[str] = []

    def one(rank: int) -> None:
        try:
            work(Threads(rank, size, board, barrier))
        except UserError as error:
            lines.extend(error.lines)
        except BaseException:
            barrier.abort()
            raise

    threads = [threading.Thread(target=one, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(_HANGS)
        assert not thread.is_alive(), "it waits for ever"
    return lines


def whole_state(step: int = STEP) -> dict[str, Any]:
    """Tensors of several types, of fewer rows than processes, without any, tied, and in no part."""
    torch.manual_seed(step)
    tied = torch.randn(10, 4)
    model = {
        "first": tied,
        "half": torch.randn(3).to(torch.bfloat16),
        "tied": tied,
        "none": torch.zeros(0, 5),
        "without values": torch.zeros(4, 0),
        "words": torch.randint(0, 1 << 16, (7, 2)).to(torch.uint16),
        "flags": torch.rand(6, 2, 2) > 0.5,
    }
    moments = {0: {"step": torch.tensor(float(step)), "mean": torch.randn(10, 4).double()}}
    plain = {"mean": torch.randn(5), "count": torch.tensor(3), "view": torch.randn(4, 4).t()}
    state = {"model": model, "optimizers": {"model": {"state": moments}}}
    return {**state, "buffers": plain, "step": step, "notes": {"a": None}, "config": {}}


def cut(state: Any, rank: int, size: int) -> Any:
    """A state as process `rank` of FSDP2 has it: what is in no buffer and has rows is in parts."""
    if isinstance(state, dict):
        kept = ("buffers", "step")
        return {k: v if k in kept else cut(v, rank, size) for k, v in state.items()}
    if not isinstance(state, Tensor):
        return state
    chunks = [*state.chunk(size)] if len(state) else []
    start = sum(len(chunk) for chunk in chunks[:rank])
    own = chunks[rank] if rank < len(chunks) else state[:0]
    return Part(own, tuple(state.shape), start)


def flat(state: Any, name: str = "") -> dict[str, Any]:
    if isinstance(state, dict):
        return {k: v for key, item in state.items() for k, v in flat(item, f"{name}.{key}").items()}
    return {name: state}


def assert_equal(found: Any, expected: Any) -> None:
    found, expected = flat(found), flat(expected)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        own = found[name]
        assert type(own) is type(value), name
        if isinstance(value, Part):
            assert (own.shape, own.tensor.dtype) == (value.shape, value.tensor.dtype), name
            assert len(own.tensor) == len(value.tensor), name
            assert not len(own.tensor) or own.start == value.start, name
            assert torch.equal(own.tensor, value.tensor), name
        elif isinstance(value, Tensor):
            assert own.dtype == value.dtype, name
            assert torch.equal(own, value), name
        else:
            assert own == value, name


def edit(folder: Path, change: Callable[[Any], object]) -> None:
    """Change the manifest, and write it as the kit does."""
    path = folder / PARTS
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value, indent=1, sort_keys=True) + "\n")


def refit(folder: Path, name: str) -> None:
    """Let the manifest agree with a file that somebody has put there."""
    digest = sha256_file(folder / name)
    facts = {"sha256": digest, "size": (folder / name).stat().st_size}
    edit(folder, lambda value: value["files"].update({name: facts}))
