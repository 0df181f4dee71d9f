"""Several processes whose numbers are read late: the CPU is taken for a GPU."""

import json
from pathlib import Path

import pytest
from conftest import Project

LATE = '    __import__("repro.training.pending").training.pending.LATE_ON.add("cpu")\n'


def contents(run: Path) -> dict[str, bytes | list[object]]:
    """What was logged, traced and saved; the trace's header tells of the code."""
    last = run / "checkpoints" / "last"
    lines = map(json.loads, (run / "trace.jsonl").read_text().splitlines())
    return {
        "trace": [line for line in lines if "header" not in line],
        "metrics": (run / "metrics.jsonl").read_bytes(),
        "weights": (last / "tensors.safetensors").read_bytes(),
    }


@pytest.mark.parametrize("processes", [1, 2])
def test_processes_whose_numbers_are_read_late_have_the_bits_of_those_that_wait(
    own_project: Project, processes: int
) -> None:
    settings = ["training.shards=2", "training.max_steps=12", "output.log_every=1"]
    settings += ["output.checkpoint_every=5", "training.batch_size=64"]
    name = "experiment.train"
    done = own_project.processes(1, name, "run_dir=runs/at-once", *settings)
    assert done.returncode == 0, done.stderr
    own_project.edit(
        "experiment/train.py", "    train_task(session)\n", f"{LATE}    train_task(session)\n"
    )
    done = own_project.processes(processes, name, "run_dir=runs/late", *settings)
    assert done.returncode == 0, done.stderr
    runs = own_project.path / "runs"
    assert contents(runs / "late") == contents(runs / "at-once")
