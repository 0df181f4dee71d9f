"""Claims of the best checkpoint: recorded, verified, compared, archived, with planted faults."""

import json
import re
import shutil
import zipfile
from pathlib import Path
from typing import Any

import pytest
from conftest import Project, commit, faults, last_line, record_claims
from repro.results.claims import stale
from repro.results.document import outdated

# One validation, after step 20; of the checkpoints only the newest and the best one are kept.
CLAIMS = """
- name: early
  text: The best checkpoint of a short training
  arguments: [training.max_steps=25, model.width=4, output.keep_checkpoints=1]
  metric: accuracy
  seeds: [3]
  checkpoint: best
"""
RESULTS = Path("results/expected_metrics.json")
CLASS = "cpu x86-64-v3 portable"


@pytest.fixture(scope="module")
def recorded_best(project: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project in git that has recorded a claim of the best checkpoint; no test changes it."""
    own = project.copy(tmp_path_factory.mktemp("best") / "p")
    record_claims(own, CLAIMS)
    commit(own)
    return own


@pytest.fixture
def copy(recorded_best: Project, tmp_path: Path) -> Project:
    """The same, runs and all, to change."""
    shutil.copytree(recorded_best.path, tmp_path / "p", symlinks=True)
    return Project(tmp_path / "p", recorded_best.venv)


def run_of(project: Project) -> Path:
    (run,) = project.path.glob("runs/record/early/*/seed-3")
    return run


def metrics(run: Path, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / name).read_text())
    return found


def recorded_claim(project: Project) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((project.path / RESULTS).read_text())["claims"]["early"]
    return found


def write_claim(project: Project, claim: dict[str, Any]) -> None:
    recording = json.loads((project.path / RESULTS).read_text())
    recording["claims"]["early"] = claim
    (project.path / RESULTS).write_text(json.dumps(recording))


def remove_links(run: Path) -> None:
    """As in an archive."""
    for name in ("last", "best"):
        (run / "checkpoints" / name).unlink()


def verify(project: Project, *words: str) -> tuple[str, str]:
    """The verdict, and why."""
    done = project.module("repro", "verify", *words)
    assert done.returncode in (0, 1), done.stdout + done.stderr
    (path,) = project.path.glob("runs/verify/*/verdict.json")
    found = json.loads(path.read_text())
    shutil.rmtree(project.path / "runs" / "verify")
    assert found["verdict"] == last_line(done.stdout)
    assert found["checkpoint"] == "best"
    return found["verdict"], found["why"]


def test_a_recording_has_the_last_bits_and_the_best_checkpoint(recorded_best: Project) -> None:
    run = run_of(recorded_best)
    claim = recorded_claim(recorded_best)
    last = metrics(run, "metrics-last.json")
    best = metrics(run, "metrics-best.json")
    assert (last["step"], best["step"]) == (25, 20)
    assert last["bits"] != best["bits"]
    assert claim["checkpoint"] == "best"
    assert claim["bits"] == {CLASS: {"3": last["bits"]}}
    assert claim["best"] == {CLASS: {"3": {"step": 20, "bits": best["bits"]}}}
    assert claim["values"] == {"3": best["accuracy"]}
    assert (run / "metrics.json").read_bytes() == (run / "metrics-best.json").read_bytes()
    for name in ("confusion_matrix.png", "learning_curves.svg"):
        published = recorded_best.path / "results" / "figures" / "early" / name
        assert published.read_bytes() == (run / "figures-best" / name).read_bytes()
    text = (recorded_best.path / "REPRODUCE.md").read_text()
    assert "accuracy of the best checkpoint" in text
    assert f"`{best['bits']}` (best, step 20)" in text
    assert [*stale(recorded_best.path, quick=True), *outdated(recorded_best.path)] == []


def test_other_commands_know_which_checkpoint_the_numbers_are_of(recorded_best: Project) -> None:
    run = run_of(recorded_best)
    done = recorded_best.module("repro", "compare", str(run), str(run), "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["source"] == "test"
    accuracy = found["groups"][0]["metrics"]["accuracy"]["mean"]
    assert accuracy == metrics(run, "metrics-best.json")["accuracy"]


def test_a_best_claim_comes_out_again_and_needs_no_links(copy: Project) -> None:
    before = recorded_claim(copy)
    run = run_of(copy)
    remove_links(run)
    verdict, why = verify(copy)
    assert (verdict, why) == (
        "IDENTICAL",
        "weights, last and best, and the value have the recorded bits",
    )
    assert verify(copy, "--segments", "1", "--steps", "1")[0] == "IDENTICAL"
    for name in ("metrics.json", "metrics-last.json", "metrics-best.json"):
        (run / name).unlink()
    done = copy.module("repro", "record", "--allow-dirty")
    assert done.returncode == 0, done.stderr
    assert "nothing is left to train" in done.stdout
    again = recorded_claim(copy)
    for claim in (before, again):
        del claim["cost"]
    assert again == before


def test_another_best_checkpoint_is_different_and_named(copy: Project) -> None:
    whole = recorded_claim(copy)
    step = json.loads(json.dumps(whole))
    step["best"][CLASS]["3"]["step"] = 24
    write_claim(copy, step)
    named = "the best checkpoint is of step 20, recorded 24"
    assert verify(copy, "--segments", "1", "--steps", "1") == ("DIFFERENT", named)
    bits = json.loads(json.dumps(whole))
    bits["best"][CLASS]["3"]["bits"] = "0" * 64
    write_claim(copy, bits)
    named = "the best checkpoint has other bits under the same conditions"
    assert verify(copy) == ("DIFFERENT", named)
    value = json.loads(json.dumps(whole))
    value["values"]["3"] += 0.001
    write_claim(copy, value)
    verdict, why = verify(copy, "--segments", "1", "--steps", "1")
    assert verdict == "DIFFERENT"
    assert why.startswith("metrics-best.json of the recorded run has accuracy ")
    verdict, why = verify(copy)
    assert (verdict, "another value" in why) == ("DIFFERENT", True)


def test_evaluation_compares_each_checkpoint_with_its_own(copy: Project) -> None:
    run = run_of(copy)

    def evaluate(name: str) -> tuple[int, str]:
        checkpoint = str(run / "checkpoints" / name)
        done = copy.module("experiment.evaluate", "--checkpoint", checkpoint)
        return done.returncode, last_line(done.stdout)

    best, last = "step-000000020", "step-000000025"
    assert evaluate(best) == (0, "equal to the recorded accuracy and bits of early")
    assert evaluate(last) == (0, "equal to the recorded bits of the last checkpoint of early")
    claim = recorded_claim(copy)
    claim["best"][CLASS]["3"]["step"] = 24
    write_claim(copy, claim)
    named = "DIFFERENT from early: the best checkpoint is of step 20, recorded 24"
    assert evaluate(best) == (1, named)
    claim["best"][CLASS]["3"]["step"] = 20
    claim["values"]["3"] += 0.001
    claim["bits"][CLASS]["3"] = "0" * 64
    write_claim(copy, claim)
    code, line = evaluate(best)
    assert (code, line.partition(":")[0]) == (1, "DIFFERENT from early")
    assert evaluate(last) == (
        1,
        f"DIFFERENT from early: bits {'0' * 64} of the last checkpoint",
    )


def test_without_a_best_checkpoint_a_line_says_what_to_do(copy: Project) -> None:
    run = run_of(copy)
    shutil.rmtree(run / "checkpoints" / "step-000000020")
    line = faults(copy.module("repro", "record"))[-1]
    assert "claim early, seed 3: the best checkpoint is that of step 20" in line
    assert f"delete {run} and train again" in line
    (line,) = faults(copy.module("repro", "verify", "--segments", "1", "--steps", "1"))
    assert "claim early, seed 3: the best checkpoint is that of step 20" in line
    (line,) = faults(copy.module("repro", "archive", "--allow-dirty"))
    assert f"has no best checkpoint: delete {run}, then make record" in line
    copy.edit("configs/claims.yaml", "max_steps=25", "max_steps=2")  # no validation
    (line,) = faults(copy.module("repro", "record", "--allow-dirty"))
    assert "claim early, seed 3: " in line
    assert "or no validation gave a number for that" in line


def test_another_choice_is_another_claim(copy: Project) -> None:
    copy.edit("configs/claims.yaml", "checkpoint: best", "checkpoint: last")
    assert stale(copy.path, quick=True) == ["claim: checkpoint of early changed"]
    done = copy.module("repro", "verify")
    assert (done.returncode, last_line(done.stdout)) == (1, "DIFFERENT")
    assert "  claim: checkpoint is last, recorded best" in done.stdout.splitlines()


def test_a_best_claim_verifies_in_its_archive(copy: Project, tmp_path: Path) -> None:
    done = copy.module("repro", "archive")
    assert done.returncode == 0, done.stderr
    (path,) = copy.path.glob("*.zip")
    with zipfile.ZipFile(path) as archive:
        archive.extractall(tmp_path / "unpacked")
    (folder,) = (tmp_path / "unpacked").iterdir()
    unpacked = Project(folder, copy.venv)
    run = run_of(unpacked)
    checkpoints = {path.name for path in (run / "checkpoints").iterdir()}
    assert checkpoints == {"step-000000020", "step-000000025"}
    assert {path.name for path in run.glob("metrics*.json")} == {
        "metrics.json",
        "metrics-best.json",
        "metrics-last.json",
    }
    crate = (folder / "ro-crate-metadata.json").read_text()
    assert re.search(r"accuracy of the best checkpoint 0\.\d+", crate)
    assert verify(unpacked, "--segments", "1", "--steps", "1")[0] == "IDENTICAL"
    assert verify(unpacked)[0] == "IDENTICAL"
