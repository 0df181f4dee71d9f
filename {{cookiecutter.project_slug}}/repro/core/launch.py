"""What a launcher such as torchrun tells a process in the environment: which of how many it is.

Some of these variables may be left in a shell. Promises that a process which cannot be one of
several is refused: it would wait for others that never come, or write nothing. A launcher may start
its processes again after a failure: what it tells of that is here, too, and how to end it.
"""

from __future__ import annotations  # `make image-digest` runs with older Pythons, too

import os
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from repro.core.errors import UserError, refuse

_NUMBERS = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
_TORCHRUN = {"torchrun", "torch.distributed.run"}  # words of its command
_MAX_RESTARTS = "TORCHELASTIC_MAX_RESTARTS"
_ADDRESS = ("MASTER_ADDR", "MASTER_PORT")
_REMEDY = f"torchrun sets all of them; for one process unset {' '.join((*_NUMBERS, *_ADDRESS))}"


class Launch(NamedTuple):
    """Which of how many processes this is. `local_rank`: its number on this machine, if told."""

    rank: int
    size: int
    local_rank: int | None


def launched(environ: Mapping[str, str] = os.environ) -> Launch:
    """Read which process this is; one alone where nothing says otherwise. UserError for nonsense.

    A variable that is empty counts as not set.
    """
    told = {name: environ.get(name, "").strip() for name in (*_NUMBERS, *_ADDRESS)}
    refuse(
        [
            f"{name}={told[name]} is set, expected a whole number from 0 on: {_REMEDY}"
            for name in _NUMBERS
            if told[name] and not _is_number(told[name])
        ]
    )
    numbers = {name: int(told[name]) for name in _NUMBERS if told[name]}
    rank = numbers.get("RANK", 0)
    size = numbers.get("WORLD_SIZE", 1)
    if fault := _fault(numbers, rank, size) or (_fault_of_address(told) if size > 1 else ""):
        raise UserError(f"{fault}: {_REMEDY}")
    return Launch(rank, size, numbers.get("LOCAL_RANK"))


def is_first(environ: Mapping[str, str] = os.environ) -> bool:
    """Tell whether this is the process that speaks for all; so is one that is told nonsense."""
    try:
        return launched(environ).rank == 0
    except UserError:
        return True


def is_one_of_several(environ: Mapping[str, str] = os.environ) -> bool:
    """Tell whether other processes belong to this one."""
    try:
        return launched(environ).size > 1
    except UserError:
        return False


def starts_before(environ: Mapping[str, str] = os.environ) -> tuple[int, int]:
    """Return how often torchrun, and how often Slurm, has started this training again by itself."""
    torchrun = _number(environ, "TORCHELASTIC_RESTART_COUNT")
    return torchrun, _number(environ, "SLURM_RESTART_COUNT")


def may_start_again(environ: Mapping[str, str] = os.environ) -> bool:
    """Tell whether a launcher may start this training again if it fails."""
    return _number(environ, _MAX_RESTARTS) > 0 or bool(environ.get("SLURM_JOB_ID"))


def stop_restarts(wait: Callable[[], None], environ: Mapping[str, str] = os.environ) -> None:
    """Let torchrun start nothing again; all its processes call this, and then end.

    It would start them again after any exit code but 0, which stands for a whole training. Where
    its own process is not found, it starts them again, and they end once more. `wait`: waits until
    all processes are here.
    """
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # torchrun passes it on to its processes
    wait()
    if not _number(environ, _MAX_RESTARTS):
        return
    try:
        command = Path(f"/proc/{os.getppid()}/cmdline").read_text(errors="replace")
    except OSError:
        return
    is_torchrun = not _TORCHRUN.isdisjoint(Path(word).name for word in command.split("\0"))
    if is_torchrun and environ.get("LOCAL_RANK", "").strip() == "0":
        os.kill(os.getppid(), signal.SIGTERM)


def _number(environ: Mapping[str, str], name: str) -> int:
    text = environ.get(name, "").strip()
    return int(text) if _is_number(text) else 0


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) < 8


def _fault(numbers: Mapping[str, int], rank: int, size: int) -> str:
    """Say what is wrong with the numbers; nothing if one process or several can have them."""
    for name in ("RANK", "LOCAL_RANK"):
        if numbers.get(name) and "WORLD_SIZE" not in numbers:
            return f"{name}={numbers[name]} is set without WORLD_SIZE"
    if size > 1 and "RANK" not in numbers:
        return f"WORLD_SIZE={size} is set without RANK"
    if rank >= size:
        return f"RANK={rank} is not below WORLD_SIZE={size}"
    return ""


def _fault_of_address(told: Mapping[str, str]) -> str:
    """Say what is wrong with the address at which several processes meet."""
    size = told["WORLD_SIZE"]
    if missing := [name for name in _ADDRESS if not told[name]]:
        return f"WORLD_SIZE={size} is set without {' and '.join(missing)}"
    port = told["MASTER_PORT"]
    if not _is_number(port) or not 0 < int(port) < 2**16:
        return f"MASTER_PORT={port} is set, expected a number from 1 to 65535"
    return ""
