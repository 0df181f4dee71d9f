"""Which of how many processes this is, as the environment tells it, and how they meet."""

import os
import socket
import subprocess
import sys
import time
from datetime import timedelta

import pytest
import torch
from conftest import HANGS, TEMPLATE, free_port
from repro.core.errors import UserError
from repro.core.launch import Launch, is_first, is_one_of_several, launched
from repro.training import joining
from repro.training.devices import _own_gpu
from repro.training.lost_processes import OthersEnded, others_alive

PLACE = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}
TWO = {"WORLD_SIZE": "2", **PLACE}


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"RANK": "", "WORLD_SIZE": "", "LOCAL_RANK": " "},
        {"RANK": "0"},
        {"WORLD_SIZE": "1"},
        {"RANK": "0", "WORLD_SIZE": "1", "MASTER_PORT": "none"},
        {"LOCAL_RANK": "0"},
        PLACE,
        # Of launchers that the kit does not read: a job has them, and its one process is alone.
        {"SLURM_PROCID": "3", "SLURM_NTASKS": "4", "SLURM_LOCALID": "1"},
        {"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "2", "PMI_RANK": "1"},
    ],
)
def test_one_process_alone(environ: dict[str, str]) -> None:
    assert launched(environ)[:2] == (0, 1)
    assert is_first(environ)
    assert not is_one_of_several(environ)


def test_two_processes_as_torchrun_starts_them() -> None:
    environ = {**TWO, "RANK": "1", "LOCAL_RANK": "1"}
    assert launched(environ) == Launch(1, 2, 1)
    assert launched({**TWO, "RANK": "0"}) == Launch(0, 2, None)
    assert not is_first(environ)
    assert is_one_of_several(environ)


@pytest.mark.parametrize(
    ("environ", "named"),
    [
        ({"RANK": "3"}, "RANK=3 is set without WORLD_SIZE"),
        ({"RANK": "1", "WORLD_SIZE": ""}, "RANK=1 is set without WORLD_SIZE"),
        ({"LOCAL_RANK": "1"}, "LOCAL_RANK=1 is set without WORLD_SIZE"),
        ({"WORLD_SIZE": "2"}, "WORLD_SIZE=2 is set without RANK"),
        ({**TWO, "RANK": " "}, "WORLD_SIZE=2 is set without RANK"),
        ({"RANK": "0", "WORLD_SIZE": "0"}, "RANK=0 is not below WORLD_SIZE=0"),
        ({**TWO, "RANK": "2"}, "RANK=2 is not below WORLD_SIZE=2"),
        ({**TWO, "RANK": "-1"}, "RANK=-1 is set, expected a whole number"),
        ({**TWO, "RANK": "1.0"}, "RANK=1.0 is set, expected a whole number"),
        ({**TWO, "RANK": "٣"}, "RANK=٣ is set, expected a whole number"),
        ({"RANK": "0", "WORLD_SIZE": "9" * 5000}, "is set, expected a whole number"),
        ({"LOCAL_RANK": "x"}, "LOCAL_RANK=x is set, expected a whole number"),
        ({"RANK": "0", "WORLD_SIZE": "2"}, "without MASTER_ADDR and MASTER_PORT"),
        ({**TWO, "RANK": "0", "MASTER_ADDR": ""}, "without MASTER_ADDR"),
        ({**TWO, "RANK": "0", "MASTER_PORT": "x"}, "MASTER_PORT=x is set"),
        ({**TWO, "RANK": "0", "MASTER_PORT": "0"}, "MASTER_PORT=0 is set"),
        ({**TWO, "RANK": "0", "MASTER_PORT": "70000"}, "MASTER_PORT=70000 is set"),
    ],
)
def test_what_can_be_no_process_is_one_line(environ: dict[str, str], named: str) -> None:
    with pytest.raises(UserError) as told:
        launched(environ)
    (line,) = told.value.lines
    assert named in line
    assert "unset RANK WORLD_SIZE LOCAL_RANK MASTER_ADDR MASTER_PORT" in line
    assert is_first(environ)  # it says so itself, and waits for nobody
    assert not is_one_of_several(environ)


def test_each_process_has_a_gpu_of_its_own() -> None:
    assert _own_gpu(Launch(0, 1, None), 2) == 0
    assert _own_gpu(Launch(3, 4, 1), 2) == 1
    with pytest.raises(UserError, match="LOCAL_RANK is not set"):
        _own_gpu(Launch(1, 2, None), 2)
    with pytest.raises(UserError, match="LOCAL_RANK=2, but there are 2 GPUs here"):
        _own_gpu(Launch(2, 4, 2), 2)


@pytest.mark.parametrize("rank", [0, 1])
def test_a_process_that_nobody_joins_says_so_and_ends(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], rank: int
) -> None:
    port = str(free_port())
    for name, value in {**TWO, "MASTER_PORT": port, "RANK": str(rank)}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv(joining.CARD, raising=False)
    monkeypatch.setattr(joining, "PATIENCE", timedelta(seconds=2))
    monkeypatch.setattr(joining, "SECONDS_IN_SILENCE", 0.1)
    started = time.monotonic()
    with pytest.raises(UserError) as told:
        joining.join(Launch(rank, 2, rank), "gloo")
    assert time.monotonic() - started < HANGS  # by itself torch takes 30 minutes
    (line,) = told.value.lines
    others = f"the other processes of WORLD_SIZE=2 at MASTER_ADDR=127.0.0.1 MASTER_PORT={port}"
    assert line.startswith(f"process {rank} did not meet {others}")
    assert "unset RANK WORLD_SIZE" in line
    assert capfd.readouterr().err.splitlines()[0] == f"process {rank} waits for {others}"


def test_a_network_card_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    card = socket.if_nameindex()[0][1]
    for name, value in {**TWO, "RANK": "0", joining.CARD: f"{card},nope9"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError) as told:
        joining.join(Launch(0, 2, 0), "gloo")
    (line,) = told.value.lines
    assert f"this machine has no card nope9 (it has {card}" in line
    assert line.endswith("unset GLOO_SOCKET_IFNAME")
    assert joining._faults_of_cards("") == joining._faults_of_cards(card) == []


@pytest.mark.parametrize("kind", [torch.OutOfMemoryError, torch.AcceleratorError])
def test_a_fault_of_the_own_gpu_is_not_told_as_one_of_another_process(kind: type) -> None:
    with pytest.raises(kind, match="mine"), others_alive():
        raise kind("mine")
    with pytest.raises(OthersEnded, match="reset"), others_alive():
        raise RuntimeError("connection reset by peer")


def test_hosts_that_do_not_meet_beside_their_gpus_are_one_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in TWO.items():
        monkeypatch.setenv(name, value)

    def failing(**_: object) -> None:
        raise RuntimeError("no such host")

    monkeypatch.setattr(joining.dist, "new_group", failing)
    with pytest.raises(UserError, match=r"^process 1 did not meet .*no such host.*: start all"):
        joining.group_of_hosts(Launch(1, 2, 1))
    monkeypatch.setenv(joining.CARD, "nope9")
    with pytest.raises(UserError, match="no card nope9"):
        joining.join(Launch(0, 2, 0), "nccl")


LEAVING = """
import atexit, sys, threading, time
from concurrent.futures import ThreadPoolExecutor
from repro.core.command import run_command

pool = ThreadPoolExecutor(1)  # of the whole program: its worker waits for work until Python ends
pool.submit(print, "pool").result()

class Library:
    def __del__(self):
        print("taken apart")

library = Library()
def command():
    print("command")
    done.set()
    return 7


def beside():
    done.wait()
    time.sleep(0.1)  # the program comes to its end
    print("thread")


library.itself = library  # until Python ends
atexit.register(print, "at exit")
done = threading.Event()
threading.Thread(target=beside).start()
sys.exit(run_command(command))
"""


@pytest.mark.parametrize(
    ("several", "lines"),
    [
        ({}, ["pool", "command", "thread", "at exit", "taken apart"]),
        ({**TWO, "RANK": "1"}, ["pool", "command", "thread", "at exit"]),
    ],
)
def test_one_of_several_processes_takes_nothing_apart_at_its_end(
    several: dict[str, str], lines: list[str]
) -> None:
    """A thread of gloo's aborts a process that does; all else is done as by a lone process."""
    environ = {**os.environ, "PYTHONPATH": str(TEMPLATE), **several}
    done = subprocess.run(
        [sys.executable, "-c", LEAVING], env=environ, capture_output=True, text=True, timeout=HANGS
    )
    assert (done.returncode, done.stdout.split("\n")) == (7, [*lines, ""]), done.stderr
