"""What torchrun and Slurm tell of a start that they make by themselves; how processes meet."""

import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import TEMPLATE, clean_environ
from repro.core.launch import Launch, may_start_again, starts_before
from repro.core.layout import ATTEMPTS, FAILURE
from repro.runs.restarts import Restarts
from repro.training import joining
from repro.training.lost_processes import OthersEnded
from repro.training.processes import Processes
from torch.distributed import HashStore


def meet(store: HashStore, size: int) -> list[tuple[bool, str]]:
    """For each process: whether its part of the store held an address before, and process 0's."""

    def one(rank: int) -> tuple[bool, str]:
        part = joining._of_this_start(store, Launch(rank, size, None))
        part.set(f"ready/{rank}", "")
        part.wait([f"ready/{other}" for other in range(size)])
        old = part.check(["address"])
        part.set(f"looked/{rank}", "")
        part.wait([f"looked/{other}" for other in range(size)])
        if rank == 0:
            part.set("address", os.urandom(8).hex())
        return old, part.get("address").decode()

    with ThreadPoolExecutor(size) as pool:
        return [*pool.map(one, range(size))]


@pytest.mark.parametrize("size", [2, 5])
def test_processes_meet_in_a_store_that_earlier_starts_have_filled(size: int) -> None:
    store = HashStore()
    addresses = set()
    for _ in range(3):
        found = meet(store, size)
        assert not any(old for old, _ in found)
        assert len({address for _, address in found}) == 1
        addresses.add(found[0][1])
        store.set("word/1", "of a process that ended before the others came")
    assert len(addresses) == 3


def test_a_process_that_does_not_come_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joining, "PATIENCE", joining.PATIENCE / 100)
    with pytest.raises(OSError, match="nothing heard of process 1, 2"):
        joining._of_this_start(HashStore(), Launch(0, 3, None))


@pytest.mark.parametrize(
    ("environ", "before", "again"),
    [
        ({}, (0, 0), False),
        ({"TORCHELASTIC_RESTART_COUNT": "0", "TORCHELASTIC_MAX_RESTARTS": "0"}, (0, 0), False),
        ({"TORCHELASTIC_RESTART_COUNT": "2", "TORCHELASTIC_MAX_RESTARTS": "3"}, (2, 0), True),
        ({"SLURM_JOB_ID": "17"}, (0, 0), True),
        ({"SLURM_JOB_ID": "17", "SLURM_RESTART_COUNT": "1"}, (0, 1), True),
        ({"SLURM_RESTART_COUNT": "", "TORCHELASTIC_RESTART_COUNT": "many"}, (0, 0), False),
    ],
)
def test_who_starts_a_training_again(
    environ: dict[str, str], before: tuple[int, int], again: bool
) -> None:
    assert starts_before(environ) == before
    assert may_start_again(environ) == again


def test_the_error_of_a_process_that_fails_at_once_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Process 0, which removes what an earlier start has left, may not be as far yet."""
    for name in ("RANK", "WORLD_SIZE", "SLURM_JOB_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TORCHELASTIC_MAX_RESTARTS", "3")
    processes = Processes(1, torch.device("cpu"))
    config: Any = SimpleNamespace(run_dir=str(tmp_path))
    for number, before in enumerate((None, 4)):
        monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", str(number))
        restarts = Restarts(tmp_path, config, None, processes)
        restarts.begin(tmp_path)
        assert not [*tmp_path.iterdir()]
        restarts.attempt(4).end(ValueError("no sample 1234"))  # another process's
        own = restarts.attempt(4, tmp_path)
        own.__enter__()
        own.end(OthersEnded("it is gone"))
        assert json.loads((tmp_path / FAILURE).read_text())["why"] == "no sample 1234"
        assert json.loads((tmp_path / ATTEMPTS).read_text()) == {"reached": 4, "before": before}


PARENT = """
import subprocess, sys, time
code = "from repro.core.launch import stop_restarts; stop_restarts(int)"
subprocess.run([sys.executable, "-c", code])
time.sleep(2)
"""


@pytest.mark.parametrize(
    ("name", "local", "most", "ended"),
    [
        ("torchrun", "0", "3", True),
        ("torch.distributed.run", "0", "3", True),
        ("bash", "0", "3", False),  # not torchrun: it may be the user's shell
        ("torchrun", "1", "3", False),  # one of its processes is enough
        ("torchrun", "0", "0", False),  # it starts nothing again
    ],
)
def test_torchrun_is_ended_by_one_of_its_processes_and_nothing_else_is(
    tmp_path: Path, name: str, local: str, most: str, ended: bool
) -> None:
    (tmp_path / name).write_text(PARENT)
    environ = clean_environ(
        PYTHONPATH=str(TEMPLATE), LOCAL_RANK=local, TORCHELASTIC_MAX_RESTARTS=most
    )
    done = subprocess.run([sys.executable, tmp_path / name], env=environ, capture_output=True)
    assert done.returncode == (-signal.SIGTERM if ended else 0), done.stderr
