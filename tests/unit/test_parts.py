"""Checkpoints of sharded models: each process its part, all one answer, the same bytes."""

import errno
import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from conftest import ROOT, TEMPLATE
from part_states import STEP, Threads, assert_equal, cut, edit, in_all, refit, whole_state
from repro.core.bounded import MOST_VALUES
from repro.core.errors import UserError
from repro.core.layout import PARTS, STATE, SUMS, TENSORS, part_file, step_folder
from repro.training import checkpoint, durable
from repro.training.part import Part
from repro.training.scale import parts
from safetensors.torch import load_file


def save(folder: Path, size: int, step: int = STEP) -> Path:
    state = whole_state(step)
    assert not in_all(size, lambda own: parts.save(folder, cut(state, own.rank, size), own))
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def is_sharded(name: str, shape: tuple[int, ...]) -> bool:
    """Of what the tensors of a checkpoint are that `cut` cuts."""
    return not name.startswith(".buffers") and bool(shape)


# Saving and loading ------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 3, 4])
def test_equal_states_have_equal_bytes_and_any_number_of_processes_reads_them(
    tmp_path: Path, size: int
) -> None:
    folder = save(step_folder(tmp_path, STEP), size)
    assert checkpoint.find_fault(folder) is None
    assert contents(save(tmp_path / "again", size)) == contents(folder)
    assert {*contents(folder)} == {PARTS, STATE, *(part_file(rank, size) for rank in range(size))}
    for others in (1, 2, 4, 11):
        for rank in range(others):
            assert_equal(parts.load(folder, rank, others), cut(whole_state(), rank, others))
    loaded = checkpoint.load(folder)
    assert_equal(loaded, whole_state())
    assert loaded["model"]["first"] is loaded["model"]["tied"]


@pytest.mark.parametrize("size", [1, 4])
def test_parts_put_together_have_the_bytes_of_a_whole_checkpoint(tmp_path: Path, size: int) -> None:
    checkpoint.save(tmp_path / "whole", whole_state())
    folder = save(step_folder(tmp_path, STEP), size)
    for _ in range(2):  # what is whole stays as it is
        parts.consolidate(folder)
        assert contents(folder) == contents(tmp_path / "whole")
        assert checkpoint.find_fault(folder) is None
    assert_equal(parts.load(folder, 1, 4), whole_state())
    for others in (1, 2, 4, 11):
        for rank in range(others):
            found = parts.load(folder, rank, others, is_sharded)
            assert_equal(found, cut(whole_state(), rank, others))


def test_each_process_writes_its_own_rows_alone(tmp_path: Path) -> None:
    folder = save(tmp_path / "c", 4)
    held = [load_file(folder / part_file(rank, 4)) for rank in range(4)]
    assert [len(each.get(".model.first", ())) for each in held] == [3, 3, 3, 1]
    assert [".model.half" in each for each in held] == [True, True, True, False]
    assert [".buffers.mean" in each for each in held] == [True, False, False, False]
    assert not any(".model.tied" in each for each in held)
    manifest = json.loads((folder / PARTS).read_text())
    entry = {"dtype": "F32", "shape": [10, 4], "edges": [0, 3, 6, 9, 10]}
    assert manifest["tensors"][".model.first"] == entry


def test_types_that_the_kit_does_not_write_itself(tmp_path: Path) -> None:
    """The library writes them; a sharded one is refused, since parts of it have no order."""
    odd = torch.zeros(4).to(torch.float8_e4m3fn)
    state = {"buffers": {"odd": odd}, "model": {"w": torch.ones(4, 2)}}
    checkpoint.save(tmp_path / "whole", state)
    folder = tmp_path / "c"
    assert not in_all(2, lambda own: parts.save(folder, cut(state, own.rank, 2), own))
    parts.consolidate(folder)
    assert contents(folder) == contents(tmp_path / "whole")
    state = {"model": {"odd": odd}}
    lines = in_all(2, lambda own: parts.save(folder, cut(state, own.rank, 2), own))
    assert len(lines) == 2
    assert "a sharded tensor of torch.float8_e4m3fn cannot be saved" in lines[0]


@pytest.mark.parametrize("culprit", [0, 2])
@pytest.mark.parametrize("moment", ["own file", "flush"])
def test_where_one_process_cannot_write_all_end_with_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, culprit: int, moment: str
) -> None:
    """A full disk: the older checkpoint of that name stays, and nothing else is left."""
    folder = save(tmp_path / "c", 4, step=6)
    before = contents(folder)
    name = part_file(culprit, 4)

    def full(path: Path, *rest: Any) -> Any:
        if path.name == name:
            path.write_bytes(b"a part")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(path, *rest)

    write = parts.write_tensors if moment == "own file" else durable.flush_to_disk
    module: ModuleType = parts if moment == "own file" else durable
    monkeypatch.setattr(module, "write_tensors" if moment == "own file" else "flush_to_disk", full)
    state = whole_state()
    lines = in_all(4, lambda own: parts.save(folder, cut(state, own.rank, 4), own))
    assert len(lines) == 4
    assert len({*lines}) == 1
    assert f"process {culprit} cannot write its part" in lines[0]
    assert os.strerror(errno.ENOSPC) in lines[0]
    assert [path.name for path in tmp_path.iterdir()] == ["c"]
    assert contents(folder) == before
    assert checkpoint.find_fault(folder) is None


OTHERS: dict[str, Callable[[Part], Part | None]] = {
    "rows twice": lambda part: Part(part.tensor, part.shape, 0),
    "rows left out": lambda part: Part(part.tensor[:1], part.shape, part.start),
    "another type": lambda part: Part(part.tensor.double(), part.shape, part.start),
    "another shape": lambda part: Part(part.tensor, (11, 4), part.start),
    "no such tensor": lambda part: None,
}


@pytest.mark.parametrize("name", OTHERS)
def test_parts_that_are_not_of_one_model_are_refused_in_all(tmp_path: Path, name: str) -> None:
    def work(own: Threads) -> None:
        part = cut(torch.ones(10, 4), own.rank, 4)
        changed = OTHERS[name](part) if own.rank == 2 else part
        parts.save(tmp_path / "c", {"model": {"w": changed} if changed else {}}, own)

    lines = in_all(4, work)
    assert len(lines) == 4
    assert len({*lines}) == 1
    assert lines[0].startswith("model.w: ")
    assert list(tmp_path.iterdir()) == []


MEMORY = """
import re, sys, threading
from pathlib import Path
import torch
from repro.training.part import Part
from repro.training.scale import parts
sys.path.insert(0, sys.argv[2])
from part_states import Threads

def held():
    # Without the files' own pages, which the system takes back as it needs them.
    return int(re.search(r"RssAnon:\\s*(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024

def growth(work):
    before, most, done = held(), 0, threading.Event()
    def watch():
        nonlocal most
        while not done.wait(0.001):
            most = max(most, held())
    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    result = work()
    done.set()
    watcher.join()
    return most - before, result

def bytes_read():
    return int(re.search(r"rchar: (\\d+)", Path("/proc/self/io").read_text())[1]) / 2**20

MIB = 1 << 18
own = Threads(0, 1, [""], threading.Barrier(1))
folder = Path(sys.argv[1], "small")
parts.save(folder, {"a": Part(torch.ones(8), (8,), 0)}, own)
parts.consolidate(folder)
state = {str(n): Part(torch.full((32 * MIB,), float(n)), (32 * MIB,), 0) for n in range(8)}
folder = Path(sys.argv[1], "c")
print(growth(lambda: parts.save(folder, state, own))[0])
del state
print(growth(lambda: parts.consolidate(folder))[0])
before = bytes_read()
held_by_load, state = growth(lambda: parts.load(folder, 1, 4, lambda *_: True))
print(held_by_load, bytes_read() - before, sum(part.tensor.sum().item() for part in state.values()))
"""


@pytest.fixture(scope="module")
def memory(tmp_path_factory: pytest.TempPathFactory) -> list[float]:
    """What a process holds of eight tensors of 32 MiB more than before, in MiB; see MEMORY."""
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, str(tmp_path_factory.mktemp("m")), str(ROOT / "tests")],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(TEMPLATE), *sys.path])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [*map(float, done.stdout.split())]


def test_saving_and_putting_together_hold_at_most_one_tensor_more(memory: list[float]) -> None:
    """Than the process's own part, in a process of its own."""
    saving, together, *_ = memory
    assert saving < 32
    assert together < 32


def test_a_process_reads_its_own_rows_of_a_whole_checkpoint(memory: list[float]) -> None:
    """One of four: a quarter of 256 MiB, and not all of it for the digests, which process 0 has."""
    *_, loading, read, total = memory
    assert loading < 64 + 32
    assert read < 32  # its rows are mapped, and are no bytes that it reads by a call
    assert total == sum(range(8)) * 2**21


# Faults ------------------------------------------------------------------------------------------


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def pointer(path: Path) -> None:
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")


DAMAGES: dict[str, tuple[Callable[[Path, Path], object], str]] = {
    "flipped": (lambda c, o: flip(c / part_file(2, 4)), "part-2-of-4.safetensors is changed"),
    "cut": (lambda c, o: os.truncate(c / part_file(1, 4), 9), "part-1-of-4.safetensors is changed"),
    "missing": (lambda c, o: (c / part_file(3, 4)).unlink(), "part-3-of-4.safetensors is missing"),
    "a pointer": (lambda c, o: pointer(c / part_file(1, 4)), "is a pointer of git LFS"),
    "of another step": (
        lambda c, o: shutil.copy(o / part_file(1, 4), c),
        "part-1-of-4.safetensors is changed, cut or of another checkpoint",
    ),
    "of another number": (
        lambda c, o: (c / part_file(1, 4)).rename(c / part_file(1, 8)),
        "part-1-of-8.safetensors: foreign, parts.json is of 4 processes",
    ),
    "two swapped": (
        lambda c, o: [
            (c / part_file(1, 4)).rename(c / "x"),
            (c / part_file(2, 4)).rename(c / part_file(1, 4)),
            (c / "x").rename(c / part_file(2, 4)),
        ],
        "part-1-of-4.safetensors is changed",
    ),
    "another size": (
        lambda c, o: edit(c, lambda v: v["files"][STATE].__setitem__("size", 7)),
        "state.json is changed",
    ),
    "state": (lambda c, o: flip(c / STATE), "state.json is changed"),
    "no manifest": (lambda c, o: (c / PARTS).unlink(), "parts.json is missing"),
    "manifest of another step": (
        lambda c, o: shutil.copy(o / PARTS, c),
        "parts.json does not agree",
    ),
    "manifest cut": (lambda c, o: os.truncate(c / PARTS, 99), "parts.json is damaged"),
    "copied under another name": (
        lambda c, o: [shutil.rmtree(c), shutil.copytree(o, c)],
        "a copy of another one: its name says step 7, its state 6",
    ),
    "rows that the files do not have": (
        lambda c, o: edit(c, lambda v: v["tensors"][".model.first"]["edges"].__setitem__(1, 2)),
        "'.model.first' is not as in parts.json",
    ),
    "a tensor too few": (
        lambda c, o: edit(c, lambda v: v["tensors"].pop(".model.words")),
        "'.model.words' is not in parts.json",
    ),
    "a tensor too many": (
        lambda c, o: edit(
            c,
            lambda v: v["tensors"].update(
                {"x": {"dtype": "F32", "shape": [1 << 50], "edges": [0, 1 << 50] + [1 << 50] * 3}}
            ),
        ),
        "'x' is not as in parts.json",
    ),
    "no tensors with a matching digest": (
        lambda c, o: (
            [pointer(c / part_file(1, 4)), (c / part_file(1, 4)).write_bytes(b"x" * 2000)]
            and refit(c, part_file(1, 4))
        ),
        "part-1-of-4.safetensors is damaged: its header",
    ),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_what_is_damaged_is_named_and_an_older_checkpoint_is_taken(
    tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    other = save(step_folder(tmp_path, 6), 4, step=6)
    folder = save(step_folder(tmp_path, STEP), 4)
    damage, words = DAMAGES[name]
    damage(folder, other)
    fault = checkpoint.find_fault(folder)
    assert fault
    assert words in fault
    assert "\n" not in fault
    for call in (checkpoint.load, parts.consolidate):
        if name == "no manifest" and call is parts.consolidate:
            continue  # it has nothing to do
        with pytest.raises(UserError) as refused:
            call(folder)
        assert len(refused.value.lines) == 1
    assert checkpoint.newest_whole(tmp_path) == other
    assert f"damaged ({fault}); going back to {other.name}" in capsys.readouterr().out


def test_a_part_that_was_put_there_after_the_check_is_refused_by_who_reads_it(
    tmp_path: Path,
) -> None:
    """The digests are read once; each process still sees that names, types and rows are right."""
    folder = save(tmp_path / "c", 4)
    shutil.copy(folder / part_file(3, 4), folder / part_file(1, 4))
    with pytest.raises(UserError, match=r"part-1-of-4.safetensors is damaged \(tensor"):
        parts.load(folder, 1, 4)
    assert_equal(parts.load(folder, 0, 4), cut(whole_state(), 0, 4))  # it does not read that one


def test_no_digest_is_read_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = save(tmp_path / "c", 4)
    read: list[str] = []

    def counted(path: Path) -> str:
        read.append(path.name)
        return digest(path)

    digest = parts.sha256_file
    monkeypatch.setattr(parts, "sha256_file", counted)
    monkeypatch.setattr(checkpoint, "sha256_file", counted)
    assert checkpoint.find_fault(folder) is None
    for rank in range(4):
        parts.load(folder, rank, 4)
    assert sorted(read) == sorted({*contents(folder)} - {PARTS})


def entry(**changes: Any) -> dict[str, Any]:
    return {"dtype": "F32", "shape": [4], "edges": [0, 1, 2, 3, 4], **changes}


HOSTILE: dict[str, Any] = {
    "no object": lambda v: [],
    "no tensors": lambda v: {"files": v["files"]},
    "no files": lambda v: {"files": {}, "tensors": {}},
    "more": lambda v: {**v, "x": 1},
    "names elsewhere": lambda v: {**v, "files": {**v["files"], "../../x": v["files"][STATE]}},
    "a name of another": lambda v: {
        **v,
        "files": {k.replace("part-3", "../x"): f for k, f in v["files"].items()},
    },
    "no state": lambda v: {**v, "files": {k: f for k, f in v["files"].items() if k != STATE}},
    "a million files": lambda v: {**v, "files": {f"f{n}": 0 for n in range(1_000_000)}},
    "a million tensors": lambda v: {**v, "tensors": {f"t{n}": {} for n in range(1_000_000)}},
    "more than is read": lambda v: {**v, "tensors": [0] * (MOST_VALUES + 1)},
    "no facts": lambda v: {**v, "files": {**v["files"], STATE: 1}},
    "a size of text": lambda v: {**v, "files": {**v["files"], STATE: {"sha256": "", "size": ""}}},
    "overlap": entry(edges=[0, 3, 2, 3, 4]),
    "lack at the start": entry(edges=[1, 1, 2, 3, 4]),
    "lack at the end": entry(edges=[0, 1, 2, 3, 3]),
    "exceed": entry(edges=[0, 1, 2, 3, 5]),
    "below zero": entry(edges=[0, -1, 2, 3, 4]),
    "too few edges": entry(edges=[0, 4]),
    "a million edges": entry(edges=[0] * 1_000_000),
    "edges of true": entry(edges=[False, True, 2, 3, 4]),
    "huge edges": entry(edges=[0, 10**400, 10**400, 10**400, 4]),
    "unknown type": entry(dtype="F4"),
    "type of a list": entry(dtype=["F32"]),
    "no shape": entry(shape=[], edges=[0] * 5),
    "negative shape": entry(shape=[4, -1]),
    "fractions": entry(shape=[4.0]),
    "huge shape": entry(shape=[4, 2**62]),
    "overflowing shape": entry(shape=[0, 2**40, 2**40], edges=[0] * 5),
    "a million dimensions": entry(shape=[4] + [1] * 1_000_000),
    "more in a tensor": entry(more=1),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_manifest_that_nobody_wrote_is_refused_in_one_line(tmp_path: Path, name: str) -> None:
    folder = save(tmp_path / "c", 4)
    value = json.loads((folder / PARTS).read_text())
    change = HOSTILE[name]
    if isinstance(change, dict):
        value["tensors"][".model.half"] = change
    else:
        value = change(value)
    (folder / PARTS).write_text(json.dumps(value))  # it is not looked at how it is written
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    fault = checkpoint.find_fault(folder)
    assert fault
    assert fault.startswith("parts.json is damaged: ")
    assert "as it was written" not in fault
    assert "\n" not in fault
    assert len(fault) < 300
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1 << 20  # KiB


@pytest.mark.parametrize("text", ["", "[" * 5000, "\xff", "{", '{"a": 1} x'])
def test_a_manifest_that_is_no_json_is_refused_in_one_line(tmp_path: Path, text: str) -> None:
    folder = save(tmp_path / "c", 2)
    (folder / PARTS).write_text(text, encoding="latin-1")
    fault = checkpoint.find_fault(folder)
    assert fault
    assert fault.startswith("parts.json is damaged: ")
    assert "\n" not in fault


@pytest.mark.parametrize(
    "change", [lambda t: t.replace("[", "[ ", 1), lambda t: t + "\n", lambda t: t.replace("\n", "")]
)
def test_a_manifest_has_the_bytes_that_the_kit_writes(
    tmp_path: Path, change: Callable[[str], str]
) -> None:
    folder = save(tmp_path / "c", 2)
    path = folder / PARTS
    path.write_text(change(path.read_text()))
    fault = checkpoint.find_fault(folder)
    assert fault == "parts.json is damaged: it is not as it was written"


# Putting together --------------------------------------------------------------------------------


def consolidate_until(folder: Path, last: int) -> bool:
    """Begin in a process that ends, as by SIGKILL, at its `last`-th step; tell whether it did."""
    child = os.fork()
    if child == 0:
        left = last

        def ending(call: Callable[..., Any]) -> Callable[..., Any]:
            def counted(*arguments: Any, **named: Any) -> Any:
                nonlocal left
                left -= 1
                if left == 0:
                    os._exit(9)
                return call(*arguments, **named)

            return counted

        for owner, name in ((os, "fsync"), (Path, "replace"), (Path, "unlink"), (Path, "chmod")):
            setattr(owner, name, ending(getattr(owner, name)))
        try:
            parts.consolidate(folder)
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9


def test_a_kill_while_parts_are_put_together_leaves_one_or_the_other(tmp_path: Path) -> None:
    """At every fsync, rename and removal; the next call ends with the bytes of a whole one."""
    original = save(tmp_path / "original", 4)
    checkpoint.save(tmp_path / "whole", whole_state())
    kinds = []
    for last in range(1, 40):
        folder = tmp_path / str(last)
        shutil.copytree(original, folder)
        was_killed = consolidate_until(folder, last)
        assert checkpoint.find_fault(folder) is None, last
        assert_equal(checkpoint.load(folder), whole_state())
        kinds.append(checkpoint.is_in_parts(folder))
        parts.consolidate(folder)
        assert contents(folder) == contents(tmp_path / "whole"), last
        if not was_killed:
            break
    assert not was_killed
    assert kinds == sorted(kinds, reverse=True)  # first the parts, from some moment on the whole
    assert 3 < kinds.count(True) < len(kinds) - 3


def test_once_the_sums_are_there_no_part_is_needed(tmp_path: Path) -> None:
    """A power cut may take the removals in any order."""
    folder = save(tmp_path / "c", 4)
    manifest = (folder / PARTS).read_bytes()
    parts.consolidate(folder)
    whole = contents(folder)
    (folder / PARTS).write_bytes(manifest)
    assert checkpoint.find_fault(folder) is None
    assert_equal(checkpoint.load(folder), whole_state())
    parts.consolidate(folder)
    assert contents(folder) == whole


def test_a_full_disk_leaves_the_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, *_: object) -> str:
        path.write_bytes(b"a part")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    folder = save(tmp_path / "c", 4)
    before = contents(folder)
    monkeypatch.setattr(parts, "write_tensors", full)
    with pytest.raises(UserError, match=os.strerror(errno.ENOSPC)):
        parts.consolidate(folder)
    assert contents(folder) == before


def test_a_damaged_part_is_not_made_good(tmp_path: Path) -> None:
    folder = save(tmp_path / "c", 4)
    flip(folder / part_file(1, 4))
    with pytest.raises(UserError, match=r"part-1-of-4.safetensors is changed"):
        parts.consolidate(folder)
    assert not (folder / SUMS).exists()
    assert not (folder / TENSORS).exists()


# Other places ------------------------------------------------------------------------------------


def test_a_checkpoint_in_parts_is_copied_whole(tmp_path: Path) -> None:
    folder = save(tmp_path / "c", 4)
    checkpoint.copy(folder, tmp_path / "copy")
    assert contents(tmp_path / "copy") == contents(folder)
    assert checkpoint.find_fault(tmp_path / "copy") is None


def test_a_project_of_one_machine_says_what_reads_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save(step_folder(tmp_path, STEP), 2)
    for name in [*sys.modules]:
        if name.startswith("repro.training.scale"):
            monkeypatch.setitem(sys.modules, name, None)
    for call in (checkpoint.load, checkpoint.find_fault):
        with pytest.raises(UserError, match="made with scale=many") as refused:
            call(folder)
        assert len(refused.value.lines) == 1
    with pytest.raises(UserError, match="made with scale=many"):
        checkpoint.newest_whole(tmp_path)
