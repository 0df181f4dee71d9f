"""`python -m repro doctor`: the whole checklist, which reads the whole environment."""

import json

from conftest import Project

WHAT = [
    "seeds set",
    "deterministic",
    "locked",
    "committed",
    "documented",
    "commit recorded",
    "config recorded",
    "RNG states saved",
    "hardware recorded",
    "reproduces",
    "environment as locked",
    "known nondeterminism",
    "archived",
    "stated for papers",
]


def test_a_recorded_verified_archived_project_passes_every_point(own: Project) -> None:
    assert own.module("repro", "verify").returncode == 0
    assert own.module("repro", "archive").returncode == 0
    done = own.make("--silent", "doctor", "ARGS=--json")
    points = json.loads(done.stdout)
    assert [point["what"] for point in points] == WHAT
    # What a paper would say of it is nobody's fault: the project has none.
    assert {point["state"] for point in points[:-1]} == {"pass"}, done.stdout
    assert points[-1]["state"] == "not checked"
    assert done.returncode == 0
