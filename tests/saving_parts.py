"""Take up the newest checkpoint in parts, and save some more; on the way die, or have no room.

Each process gets a plan as JSON: `steps` to save; `culprit`, the rank of one that is killed at
`moment` of the last of them, or has no room then if no moment is given; `consolidate`: how many
seconds more it takes to make the newest whole at the end; `room`: how many bytes a file may have
then; `limit`: the seconds after which an exchange is given up then.
"""

import json
import os
import resource
import signal
import sys
import time
import warnings
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from part_states import assert_equal, cut, whole_state
from repro.core.command import run_command
from repro.core.layout import step_folder, step_of
from repro.training import checkpoint, durable, patience
from repro.training.processes import Processes
from repro.training.scale import parts
from repro.training.scale.sharded import ShardedEngine
from torch.distributed.distributed_c10d import _set_pg_timeout

FOLDER = Path("checkpoints")
MOMENTS: dict[str, tuple[Any, str]] = {
    "before its file": (parts, "write_tensors"),
    "in its file": (durable, "flush_to_disk"),
    "after its file": (parts, "_write"),
    "after all know": (parts, "merged"),
    "before the rename": (durable, "put_in_place"),
    "putting together": (parts, "_write_whole"),
}


def die(*arguments: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def fail(plan: dict[str, Any]) -> None:
    """Prepare what happens to the culprit."""
    if "moment" in plan:
        module, name = MOMENTS[plan["moment"]]
        call = getattr(module, name)
        is_after = plan["moment"] == "after its file"
        setattr(module, name, lambda *arguments: die(is_after and call(*arguments)))
    else:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.RLIM_INFINITY))


def main() -> int:
    plan = json.loads(sys.argv[1])
    processes = Processes(int(os.environ["WORLD_SIZE"]), torch.device("cpu"))
    start = take_up(processes)
    for step in range(start + 1, start + 1 + plan["steps"]):
        if processes.rank == plan.get("culprit") and step == start + plan["steps"]:
            fail(plan)
        state = cut(whole_state(step), processes.rank, processes.size)
        try:
            parts.save(step_folder(FOLDER, step), state, processes)
        finally:  # what it prints goes to a file, too
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
    if "consolidate" in plan:
        newest = step_folder(FOLDER, start + plan["steps"])
        room = plan.get("room", resource.RLIM_INFINITY)
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, resource.RLIM_INFINITY))
        try:
            put_together(processes, newest, plan["consolidate"], plan.get("limit"))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
    processes.close()
    return 0


def put_together(processes: Processes, folder: Path, seconds: float, limit: float | None) -> None:
    """As the engine does it when a training has ended, but slowly."""
    consolidate = parts.consolidate

    def slowly(folder: Path) -> None:
        time.sleep(seconds)
        consolidate(folder)

    parts.consolidate = slowly
    patience._SECONDS = seconds / 20
    engine = ShardedEngine(processes)
    processes.wait()
    if limit:  # now that all are there: on a busy machine they come one after the other
        with warnings.catch_warnings(action="ignore"):
            _set_pg_timeout(timedelta(seconds=limit), dist.group.WORLD)
    engine.finish([folder] if processes.rank == 0 else [])


def take_up(processes: Processes) -> int:
    """Load what process 0 finds, and compare it with what was saved; return its step."""

    def find() -> str:
        if processes.rank or not FOLDER.is_dir() or not any(FOLDER.glob("step-*")):
            return "none"
        return str(checkpoint.newest_whole(FOLDER.resolve()))

    found = processes.texts(processes.together(find))[0]
    if found == "none":
        return 0
    folder, rank, size = Path(found), processes.rank, processes.size
    state = processes.together(lambda: parts.load(folder, rank, size))
    step = step_of(folder)
    is_whole = not checkpoint.is_in_parts(folder)
    assert_equal(state, whole_state(step) if is_whole else cut(whole_state(step), rank, size))
    print(f"process {rank} goes on at step {step}", flush=True)
    return step


if __name__ == "__main__":
    sys.exit(run_command(main))
