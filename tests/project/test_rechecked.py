"""`training.recheck_every` with the real commands, in one process and in two."""

import json
import socket
from pathlib import Path

import pytest
from conftest import Project, faults

SETTINGS = (
    *("training.max_steps=6", "training.shards=2", "output.checkpoint_every=2", "model.width=8"),
    *("output.log_every=1", "threads=1"),
)
# Faulty hardware in process 1 (of one: 0): its second computation of step 4 differs in one value.
PERTURBED = """

class Perturbed(nn.Module):
    calls = 0

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or int(os.environ.get("LOCAL_RANK", "0")) != {rank}:
            return x
        Perturbed.calls += 1
        if Perturbed.calls != {call}:
            return x
        changed = x.detach().clone()
        changed.view(torch.int32).view(-1)[0] ^= 1
        return x + (changed - x.detach())
"""


def contents(run: Path) -> dict[str, bytes]:
    """All that a run holds but its command, its settings and what tells of its surroundings."""
    found = {}
    for path in sorted(run.rglob("*")):
        name = str(path.relative_to(run))
        if path.is_file() and not name.startswith(("command", "config", "context", "environment")):
            found[name] = path.read_bytes()
    return found


@pytest.mark.parametrize("processes", [1, 2])
def test_steps_that_are_computed_twice_change_no_file(project: Project, processes: int) -> None:
    runs = {}
    for every in ("null", "1", "2"):
        name = f"rechecked-{processes}-{every}"
        done = project.processes(
            processes,
            "experiment.train",
            f"run_dir=runs/{name}",
            f"training.recheck_every={every}",
            *SETTINGS,
        )
        assert done.returncode == 0, done.stderr
        runs[every] = contents(project.path / "runs" / name)
    assert len(runs["null"]) > 10
    assert runs["1"] == runs["null"]
    assert runs["2"] == runs["null"]


@pytest.mark.parametrize("processes", [1, 2])
def test_a_fault_is_found_before_the_optimizer_and_named(
    own_project: Project, processes: int
) -> None:
    """Steps 2 and 4 are computed twice, in two shards: of one process, or of two."""
    shards = 2 // processes
    call = (1 + 2 + 1 + 1) * shards + 1
    model = own_project.path / "experiment/model.py"
    text = model.read_text().replace("import math\n", "", 1)
    perturbed = PERTURBED.format(rank=processes - 1, call=call)
    model.write_text(f"import os\n{text}{perturbed}")
    old = "    return nn.Sequential(*features, *head)\n"
    own_project.edit("experiment/model.py", old, f"    head.insert(1, Perturbed())\n{old}")
    settings = ("run_dir=runs/one", "training.recheck_every=2", *SETTINGS)
    done = own_project.processes(processes, "experiment.train", *settings)
    told = [line for line in done.stderr.splitlines() if line.startswith("error: step")]
    (line,) = told
    where = f"step 4: process {processes - 1} on {socket.gethostname()} computed"
    assert line.startswith(f"error: {where}")
    assert "(Perturbed). The hardware is faulty" in line
    if processes == 1:
        assert faults(done) == [line]
    run = own_project.path / "runs/one"
    steps = [json.loads(entry)["step"] for entry in (run / "trace.jsonl").open()]
    assert max(steps) == 3
    assert sorted(path.name for path in (run / "checkpoints").glob("step-*")) == ["step-000000002"]
    first, second = "runs/one/step-4-first.json", "runs/one/step-4-second.json"
    assert f"python -m repro diff {run / 'step-4-first.json'}" in line
    compared = own_project.module("repro", "diff", first, second)
    assert compared.returncode == 0, compared.stderr  # the fault did not come again
    assert "IDENTICAL" in compared.stdout
