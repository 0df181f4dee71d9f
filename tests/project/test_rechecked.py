"""`training.recheck_every` with the real commands, in one process and in two."""

import json
import os
import socket
import time
from pathlib import Path

import pytest
from conftest import Project, faults, weights

SETTINGS = (
    *("training.max_steps=6", "training.shards=2", "output.checkpoint_every=2", "model.width=8"),
    "output.log_every=1",
)
# The last convolution of process RANK has another result in its second pass of step 4: the last bit.
PERTURBED = '''

class Perturbed(nn.Conv2d):
    """A convolution on faulty hardware."""

    calls = [0]

    def forward(self, x: Tensor) -> Tensor:
        output = super().forward(x)
        if self.training and os.environ.get("RANK", "0") == "{rank}":
            self.calls[0] += 1
            if self.calls[0] == {call}:
                changed = output.detach().clone()
                changed.view(-1)[0] += 1e-3
                output = output + (changed - output.detach())
        return output
'''
EVALUATIONS = ("run", "metrics.json")


def contents(run: Path) -> dict[str, bytes]:
    """All that a run holds but its settings and what tells of its surroundings."""
    found = {}
    for path in sorted(run.rglob("*")):
        name = str(path.relative_to(run))
        if path.is_file() and not name.startswith(("config", "context", "environment")):
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
