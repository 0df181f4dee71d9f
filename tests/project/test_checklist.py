"""`python -m repro doctor`: the checklist on a recorded project, with one fault after the other."""

import json
import re

from conftest import Project

WHEN = ("before", "during", "after")
# The checklist without the points that take long: only those that are named.
PROGRAM = """
import sys
from pathlib import Path
from repro.results import checklist
checklist.QUESTIONS[:] = [each for each in checklist.QUESTIONS if each[1] in sys.argv[1:]]
sys.exit(checklist.checklist(Path.cwd()))
"""


def answer(project: Project, *points: str) -> list[str]:
    """The state and the words of these points of the checklist, a line each."""
    done = project.run("python", "-c", PROGRAM, *points)
    lines = re.findall(r"(?m)^  (pass|fail|not checked) +[\w ]+(: .*)$", done.stdout)
    assert len(lines) == len(points), done.stdout + done.stderr
    return ["".join(line) for line in lines]


def test_a_failed_point_is_a_line_and_exit_code_1(own: Project) -> None:
    (own.path / "new.txt").write_text("")
    done = own.run("python", "-c", PROGRAM, "committed", "config recorded", "reproduces")
    before, failed, during, _, after, unknown, counts = done.stdout.splitlines()
    assert (before, during, after) == tuple(f"{x} the training" for x in WHEN)
    assert re.match("  fail         committed: .*new.txt is not committed: git commit", failed)
    assert unknown == "  not checked  reproduces: there is no verdict: make reproduce"
    assert counts == "1 pass, 1 fail, 1 not checked"
    assert done.returncode == 1, done.stderr


def test_a_fault_before_training_is_named(own: Project) -> None:
    own.edit("configs/config.yaml", "\ndeterminism: strict", "\ndeterminism: warn")
    with (own.path / "requirements.in").open("a") as file:
        file.write("planted\n")
    first, second, third, fourth = answer(own, "deterministic", "locked", "committed", "documented")
    assert first == "fail: short has warn: set determinism=strict"
    assert re.match("fail: .*planted is not in requirements.lock: run make lock", second)
    assert third.endswith("configs/config.yaml is not committed and 1 more: git commit")
    assert re.match("fail: code: configs/config.yaml changed and 1 more: make record", fourth)
    own.edit("configs/config.yaml", "\ndeterminism: warn", "\ndeterminism: maybe")
    (line,) = answer(own, "deterministic")
    assert line.startswith("fail: determinism")


def test_what_a_run_does_not_record_is_named(own: Project) -> None:
    points = ("commit recorded", "config recorded", "RNG states saved", "hardware recorded")
    lines = answer(own, *points)
    assert [line.partition(": ")[0] for line in lines] == ["pass"] * 4
    (run,) = own.path.glob("runs/record/short/*/seed-42")
    (run / "config_used.yaml").unlink()
    (run / "experiment_context.json").write_text("{")
    path = run / "checkpoints" / "step-000000003" / "state.json"
    state = json.loads(path.read_text())
    path.write_text(json.dumps({key: state[key] for key in state if key != "generators"}))
    lines = answer(own, *points)
    assert [line.partition(": ")[0] for line in lines] == ["fail"] * 4
    assert all(line.endswith(": train again") for line in lines)
    run.rename(own.path / "gone")
    assert answer(own, *points) == ["not checked: there is no run: make train"] * 4


def test_what_is_missing_after_training_is_named(own: Project) -> None:
    lines = answer(own, "reproduces", "known nondeterminism", "archived")
    assert lines[0] == "not checked: there is no verdict: make reproduce"
    assert lines[1] == "pass: nothing unseeded in experiment/"
    assert (
        lines[2]
        == "not checked: there is no archive of this commit: make record, then make archive"
    )
    folder = own.path / "runs" / "verify" / "short_seed42"
    folder.mkdir(parents=True)
    verdict = {"claim": "short", "seed": 42, "verdict": "IDENTICAL", "why": "x"}
    verdict["conditions_digest"] = "of others"
    (folder / "verdict.json").write_text(json.dumps(verdict))
    assert "of other conditions: make reproduce" in answer(own, "reproduces")[0]
    (folder / "verdict.json").write_text(json.dumps({**verdict, "verdict": "DIFFERENT"}))
    assert answer(own, "reproduces")[0].startswith("fail: DIFFERENT")
    with (own.path / "experiment" / "model.py").open("a") as file:
        file.write("\n\nimport random\n\nSTART = random.random()\n")
    assert re.match(
        r"fail: experiment/model.py:\d+ .*random", answer(own, "known nondeterminism")[0]
    )
    head = own.run("git", "rev-parse", "HEAD").stdout[:12]
    (own.path / f"{own.path.name}-{head}.zip").write_bytes(b"PK")
    assert "is damaged: make archive" in answer(own, "archived")[0]
