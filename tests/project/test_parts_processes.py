"""Checkpoints of sharded models by real processes, some of which are killed or have no room."""

import json
import os
import shutil
import signal
import tempfile
from contextlib import ExitStack
from pathlib import Path

import pytest
from conftest import HANGS, PORTABLE, ROOT, TEMPLATE, VENV, clean_environ, finish, ranks
from conftest import torchrun as words_of_torchrun
from forks import fork_server
from part_states import whole_state
from repro.core.layout import PARTS, part_file, step_folder
from repro.training import checkpoint

PROGRAM = ROOT / "tests" / "saving_parts.py"
SIZE = 4


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What stands for a project: the kit, and a program that saves checkpoints."""
    (tmp_path / "experiment").mkdir()
    shutil.copy(PROGRAM, tmp_path / "experiment" / "saving_parts.py")
    shutil.copy(ROOT / "tests" / "part_states.py", tmp_path)
    (tmp_path / "repro").symlink_to(TEMPLATE / "repro")
    return tmp_path


def start_all(folder: Path, size: int, **plan: object) -> list[tuple[int, str]]:
    """Exit code and lines of each of the processes; none may wait for ever, and none is ended."""
    words = ["-m", "experiment.saving_parts", json.dumps(plan)]
    environs = [{**clean_environ(), **PORTABLE, **rank} for rank in ranks(size)]
    with ExitStack() as stack:
        nothing = stack.enter_context(open(os.devnull, "rb"))
        running = []
        for environ in environs:
            told = stack.enter_context(tempfile.TemporaryFile("w+"))
            streams = (nothing.fileno(), told.fileno(), told.fileno())
            command = fork_server(VENV).start(words, folder, environ, streams)
            stack.callback(command.close)
            running.append((command, told))
        ends = []
        for command, told in running:
            code = command.wait(HANGS)
            told.seek(0)
            ends.append((code, told.read()))
        return ends


def steps_of(folder: Path) -> list[int]:
    """The steps whose checkpoints are whole."""
    found = [path for path in folder.glob("step-*") if checkpoint.find_fault(path) is None]
    return sorted(int(path.name.removeprefix("step-")) for path in found)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_four_processes_save_load_and_put_together(folder: Path) -> None:
    """By torchrun. Another number goes on; the whole has the bytes that one process writes."""
    plan = json.dumps({"steps": 2})
    python = [str(VENV / "bin" / "python"), "-m", *words_of_torchrun(SIZE)]
    done = finish([*python, "experiment.saving_parts", plan], folder, clean_environ())
    assert done.returncode == 0, done.stderr
    checkpoints = folder / "checkpoints"
    first = contents(step_folder(checkpoints, 2))
    assert {*first} == {PARTS, "state.json", *(part_file(rank, SIZE) for rank in range(SIZE))}
    shutil.rmtree(checkpoints)
    assert {code for code, _ in start_all(folder, SIZE, steps=2)} == {0}
    assert contents(step_folder(checkpoints, 2)) == first
    ends = start_all(folder, 3, steps=1, consolidate=0)
    assert [code for code, _ in ends] == [0, 0, 0], ends
    for rank, (_, told) in enumerate(ends):
        assert f"process {rank} goes on at step 2" in told
    checkpoint.save(folder / "whole", whole_state(3))
    assert contents(step_folder(checkpoints, 3)) == contents(folder / "whole")
    ends = start_all(folder, 2, steps=0)  # the weights are cut by who takes them up
    assert [code for code, _ in ends] == [0, 0], ends


KILLS = [
    (1, "before its file"),
    (0, "in its file"),
    (3, "in its file"),
    (2, "after its file"),
    (0, "after its file"),
    (0, "after all know"),
    (0, "before the rename"),
]


def test_a_process_that_is_killed_while_saving_ends_all_and_all_go_on_from_the_same(
    folder: Path,
) -> None:
    """At each moment, one after the other in one training; none waits for ever."""
    checkpoints = folder / "checkpoints"
    for number, (culprit, moment) in enumerate(KILLS):
        # One step is saved, the next one is not.
        ends = start_all(folder, SIZE, steps=2, culprit=culprit, moment=moment)
        for rank, end in enumerate(ends):
            if number:
                assert f"process {rank} goes on at step {number}" in end[1], ends
            assert_ended(end, rank == culprit)
        assert steps_of(checkpoints) == [*range(1, number + 2)], (culprit, moment)
        assert not step_folder(checkpoints, number + 2).exists()
    # Process 0 has all that it needs: the checkpoint is whole, whoever is no longer there.
    ends = start_all(folder, SIZE, steps=1, culprit=2, moment="after all know")
    for rank, end in enumerate(ends):
        assert_ended(end, rank == 2)
    assert {code for code, _ in start_all(folder, SIZE, steps=1)} == {0}
    assert steps_of(checkpoints)[-1] >= len(KILLS) + 1
    assert not list(checkpoints.glob(".*.partial"))


def assert_ended(end: tuple[int, str], was_killed: bool) -> None:
    """By its kill, or with the line that says that another process is not there."""
    code, told = end
    assert code == (-signal.SIGKILL if was_killed else 2), told
    assert told.count("error: another process of this training ended") == (not was_killed), told
    assert "Traceback" not in told


def test_a_checkpoint_is_put_together_for_longer_than_an_exchange_may_take(folder: Path) -> None:
    """The others wait for process 0, whose end is theirs; what is left undone is done later."""
    checkpoints = folder / "checkpoints"
    dying = {"culprit": 0, "moment": "putting together"}
    ends = start_all(folder, SIZE, steps=1, consolidate=1, **dying)
    for rank, end in enumerate(ends):
        assert_ended(end, rank == 0)
    newest = step_folder(checkpoints, 1)
    assert checkpoint.is_in_parts(newest)
    ends = start_all(folder, SIZE, steps=0, consolidate=12, limit=5)
    assert [code for code, _ in ends] == [0] * SIZE, ends
    checkpoint.save(folder / "whole", whole_state(1))
    assert contents(newest) == contents(folder / "whole")


def test_a_disk_that_is_full_when_a_checkpoint_is_put_together_ends_all_with_a_line(
    folder: Path,
) -> None:
    """The parts stay, nothing else does, and with more room the next start makes it whole."""
    newest = step_folder(folder / "checkpoints", 1)
    assert {code for code, _ in start_all(folder, SIZE, steps=1)} == {0}
    before = contents(newest)
    for room in (100, 1000):  # for the tensors there is none, or too little
        ends = start_all(folder, SIZE, steps=0, consolidate=0, room=room)
        assert [code for code, _ in ends] == [2] * SIZE, ends
        lines = [[line for line in told.splitlines() if "error:" in line] for _, told in ends]
        assert len({*map(tuple, lines)}) == 1, ends
        (line,) = lines[0]
        assert "its parts cannot be put together: File too large: free some space there" in line
        assert contents(newest) == before
    assert {code for code, _ in start_all(folder, SIZE, steps=0, consolidate=0)} == {0}
    checkpoint.save(folder / "whole", whole_state(1))
    assert contents(newest) == contents(folder / "whole")


@pytest.mark.parametrize("culprit", [0, 2])
def test_a_process_whose_disk_is_full_ends_all_with_its_line(folder: Path, culprit: int) -> None:
    ends = start_all(folder, SIZE, steps=2, culprit=culprit)
    lines = [[line for line in told.splitlines() if "error:" in line] for _, told in ends]
    assert [code for code, _ in ends] == [2] * SIZE, ends
    assert len({*map(tuple, lines)}) == 1, ends
    (line,) = lines[0]
    assert f"process {culprit} cannot write its part of a checkpoint" in line
    assert "File too large" in line
    checkpoints = folder / "checkpoints"
    assert [path.name for path in checkpoints.iterdir()] == ["step-000000001"]
    assert {code for code, _ in start_all(folder, SIZE, steps=1)} == {0}
    assert steps_of(checkpoints) == [1, 2]


def test_all_go_back_to_the_newest_checkpoint_that_is_whole(folder: Path) -> None:
    """Damaged, missing, of another step, of another number of processes, without a manifest."""
    checkpoints = folder / "checkpoints"
    assert {code for code, _ in start_all(folder, SIZE, steps=6)} == {0}
    at = {step: step_folder(checkpoints, step) for step in range(1, 7)}
    os.truncate(at[6] / part_file(1, SIZE), 20)
    (at[5] / part_file(3, SIZE)).unlink()
    shutil.copy(at[1] / part_file(0, SIZE), at[4])
    shutil.copy(at[1] / part_file(2, SIZE), at[3] / part_file(2, 8))
    (at[2] / PARTS).unlink()
    ends = start_all(folder, SIZE, steps=0)
    assert [code for code, _ in ends] == [0] * SIZE, ends
    for rank, (_, told) in enumerate(ends):
        assert f"process {rank} goes on at step 1" in told
    warnings = [line for line in ends[0][1].splitlines() if line.startswith("warning:")]
    assert len(warnings) == 5
    for words, line in zip(
        [
            f"{part_file(1, SIZE)} is changed, cut or of another checkpoint",
            f"{part_file(3, SIZE)} is missing",
            f"{part_file(0, SIZE)} is changed, cut or of another checkpoint",
            f"{part_file(2, 8)}: foreign, parts.json is of 4 processes",
            "parts.json is missing",
        ],
        warnings,
        strict=True,
    ):
        assert f"is damaged ({words}" in line
        assert "going back to step-000000001" in line
    (at[1] / part_file(0, SIZE)).unlink()
    ends = start_all(folder, SIZE, steps=0)
    assert [code for code, _ in ends] == [2] * SIZE, ends
    assert all("no whole checkpoint to resume from" in told for _, told in ends)
