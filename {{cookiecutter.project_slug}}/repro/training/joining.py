"""Let the processes of a training find each other: in bounded time, and every failure is a line.

torchrun starts them again after a failure, and keeps the store in which they tell their addresses:
what the ended ones left in it is not taken for that of the new ones.
"""

import os
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch.distributed as dist
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from repro.core.errors import UserError, reason_of, refuse
from repro.core.launch import Launch
from repro.core.streams import say
from repro.core.text import listed

# torchrun starts them together. By itself torch waits 30 minutes for a process that never comes.
PATIENCE = timedelta(seconds=60)
SECONDS_IN_SILENCE = 10
EXCHANGE = timedelta(minutes=30)  # that one of them may work longer than the others, as torch says
CARD = "GLOO_SOCKET_IFNAME"


def join(launch: Launch, backend: str) -> None:
    """Connect this process with the others; UserError if they do not meet within PATIENCE."""
    refuse(_faults_of_cards(os.environ.get(CARD, "")))
    with _naming_faults(launch):
        if launch.rank:
            _wait_for_the_first()
        store, _, _ = next(rendezvous("env://", timeout=PATIENCE))
        store.set_timeout(PATIENCE)
        store = _of_this_start(store, launch)
        store.set_timeout(EXCHANGE)
        dist.init_process_group(
            backend, store=store, rank=launch.rank, world_size=launch.size, timeout=EXCHANGE
        )


def group_of_hosts(launch: Launch) -> Any:
    """Connect the hosts of processes whose GPUs are connected: what hosts know goes this way."""
    with _naming_faults(launch):
        return dist.new_group(backend="gloo", timeout=EXCHANGE)


@contextmanager
def _naming_faults(launch: Launch) -> Iterator[None]:
    """Say whom this process waits for, and turn what fails meanwhile into one line."""
    place = f"MASTER_ADDR={os.environ['MASTER_ADDR']} MASTER_PORT={os.environ['MASTER_PORT']}"
    others = f"the other processes of WORLD_SIZE={launch.size} at {place}"
    try:
        with _said_after(SECONDS_IN_SILENCE, f"process {launch.rank} waits for {others}"):
            yield
    except (RuntimeError, ValueError, OSError) as error:
        reason = reason_of(error, 160)
        raise UserError(
            f"process {launch.rank} did not meet {others} ({reason}): start all of them with "
            "torchrun, or unset RANK WORLD_SIZE for one process"
        ) from error


def _of_this_start(store: Store, launch: Launch) -> Store:
    """Return a part of the store that nothing has written to, the same in all processes.

    Its name is a word of process 0, made anew in each start. Process 0 gives it as the answer to
    the word of each other one, which is as new, until all have said that they know it. Agents on
    several nodes count restarts differently, so TORCHELASTIC_RESTART_COUNT cannot be the name.
    """
    word = secrets.token_hex(8)
    if launch.rank:
        store.set(f"word/{launch.rank}", word)
        name = store.get(f"answer/{word}").decode()
        store.set(f"{name}/known/{launch.rank}", "")
        return PrefixStore(name, store)
    until = time.monotonic() + PATIENCE.total_seconds()
    missing = [*range(1, launch.size)]
    while missing := [rank for rank in missing if not store.check([f"{word}/known/{rank}"])]:
        if time.monotonic() > until:
            raise TimeoutError(f"nothing heard of process {listed([*map(str, missing)], 8)}")
        for rank in missing:
            if store.check([f"word/{rank}"]):  # it may be that of an ended one, which costs nothing
                store.set(f"answer/{store.get(f'word/{rank}').decode()}", word)
        time.sleep(0.02)
    return PrefixStore(word, store)


def _faults_of_cards(names: str) -> list[str]:
    """Return a line for each network card that is named and that this machine does not have."""
    cards = [name for _, name in socket.if_nameindex()]
    return [
        f"{CARD}={names}: this machine has no card {name} (it has {', '.join(cards)}): unset {CARD}"
        for name in filter(None, names.split(","))
        if name not in cards
    ]


def _wait_for_the_first() -> None:
    """Wait until process 0 answers; OSError if it does not within PATIENCE.

    torch itself would try for longer than it is told, print C++, and leave Ctrl-C unanswered.
    """
    place = (os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]))
    until = time.monotonic() + PATIENCE.total_seconds()
    while True:
        try:
            socket.create_connection(place, timeout=5).close()
            return
        except OSError:
            if time.monotonic() > until:
                raise
        time.sleep(0.2)


@contextmanager
def _said_after(seconds: float, line: str) -> Iterator[None]:
    """Say a line if the block takes longer than that."""
    timer = threading.Timer(seconds, say, [line])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
