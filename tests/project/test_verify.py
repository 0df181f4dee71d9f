"""Recording a claim and verifying it, whole and in parts, with planted faults."""

import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from conftest import Project, commit, faults, last_line, record_claims
from repro.results.claims import stale
from repro.results.document import blocks, outdated
from repro.results.recording import parse_recording

CLAIMS = """
- name: tiny
  text: A few steps | of nothing
  shows: Table 1
  arguments:
    [training.epochs=2, model.width=4, output.checkpoint_every=5, output.keep_checkpoints=9]
  metric: accuracy
  seeds: [3, 4, 5]
"""
RESTLESS = """

class Restless(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        import os

        return x * (1 + int.from_bytes(os.urandom(2)) * 1e-6)
"""
RESULTS = Path("results/expected_metrics.json")


def repro(project: Project, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return project.module("repro", *words, **variables)


def verdict(project: Project) -> dict[str, Any]:
    """The only one; the next command starts without it."""
    (path,) = project.path.glob("runs/verify/*/verdict.json")
    found: dict[str, Any] = json.loads(path.read_text())
    shutil.rmtree(project.path / "runs" / "verify")
    return found


def data_block(project: Project, results: dict[str, Any]) -> str:
    """What REPRODUCE.md would tell of the data of these results."""
    recording = parse_recording(results)
    assert recording is not None
    return blocks(project.path, recording)["data"]


@pytest.fixture(scope="module")
def recorded(project: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project in git that has recorded a small claim of its own, and its runs."""
    own = project.copy(tmp_path_factory.mktemp("recorded") / "p")
    text = (own.path / "REPRODUCE.md").read_text()
    (own.path / "REPRODUCE.md").write_text(text + "\nMy own words stay.\n")
    figures = own.path / "results" / "figures" / "tiny"
    figures.mkdir()
    for name in ("learning_curves_seeds.png", "mine.png"):  # an older kit's, and the author's
        (figures / name).write_bytes(b"PNG")
    said = record_claims(own, CLAIMS)
    assert "recording tiny, seed 4; 2 to do, about 0:0" in said
    return own


@pytest.fixture
def copy(recorded: Project, tmp_path: Path) -> Project:
    """The same, runs and all, to change."""
    shutil.copytree(recorded.path, tmp_path / "p", symlinks=True)
    return Project(tmp_path / "p", recorded.venv)


def test_record_writes_what_a_reviewer_needs(recorded: Project) -> None:
    results = json.loads((recorded.path / RESULTS).read_text())
    assert (len(results["commit"]), results["dirty"]) == (40, False)
    claim = results["claims"]["tiny"]
    values = [*claim["values"].values()]
    assert claim["interval"][0] <= claim["mean"] <= claim["interval"][1]
    assert claim["mean"] == pytest.approx(sum(values) / 3)
    assert {*claim["bits"]["cpu x86-64-v3 portable"]} == {"3", "4", "5"}
    assert claim["cost"]["seconds_per_seed"] > 0
    text = (recorded.path / "REPRODUCE.md").read_text()
    for words in ("(Table 1)", "of nothing", results["commit"], "My own words stay."):
        assert words in text
    assert "digits_baseline" not in text
    lines = (recorded.path / "results/trace/tiny_seed-3.jsonl").read_text().splitlines()
    assert len(lines) == claim["steps"] + 1  # and what was before the first
    figures = {path.name for path in (recorded.path / "results/figures/tiny").iterdir()}
    curves = {"learning_curves.svg", "learning_curves_seeds.svg"}
    assert figures == curves | {"confusion_matrix.png", "mine.png"}


def test_the_document_tells_which_data_and_how_to_get_them(recorded: Project) -> None:
    (line,) = re.findall("(?m)^- `tiny`: .*", (recorded.path / "REPRODUCE.md").read_text())
    command = re.findall("`(python -m experiment.prepare [^`]*)`", line)[0]
    assert recorded.module(*shlex.split(command)[2:]).returncode == 0
    assert "prepares **digits**; 1797 samples; from scikit-learn's wheel" in line
    source = (recorded.path / "experiment" / "sources.py").read_text()
    raw = re.findall('expected = "(.*)"', source)[0]
    assert f"SHA-256 of the raw data `{raw}`; condition" in line
    results = json.loads((recorded.path / RESULTS).read_text())
    claim = results["claims"]["tiny"]
    now = claim["conditions"]["data"]
    claim["dataset"]["raw_sha256"] = raw  # an author's, of one file
    assert line in data_block(recorded, results)
    claim["dataset"] = {"dataset": "image_folder", "samples": 34}
    told = f"prepares **image_folder**; 34 samples; condition `data`: `{now}`"
    assert told in data_block(recorded, results)
    del claim["dataset"]  # recorded by an older kit
    assert "prepares **the data**; condition" in data_block(recorded, results)


def test_record_needs_committed_code_unless_told(copy: Project) -> None:
    before = (copy.path / RESULTS).read_text()
    done = repro(copy, "record")  # results/ and REPRODUCE.md have changed, and do not count
    assert done.returncode == 0, done.stderr
    assert "nothing is left to train" in done.stdout
    assert "results/figures/digits_baseline is of no claim" in done.stdout
    again = json.loads((copy.path / RESULTS).read_text())
    first = json.loads(before)
    for results in (first, again):  # it may differ: the highest of the command's processes
        del results["claims"]["tiny"]["cost"]["peak_memory_mib"]
    assert again == first
    (copy.path / "experiment" / "new.py").write_text("x = 1\n")
    (line,) = faults(repro(copy, "record"))
    assert "experiment/new.py" in line
    claims = copy.path / "configs" / "claims.yaml"
    claims.write_text(CLAIMS.replace("[3, 4, 5]", "[3]").replace("epochs=2", "epochs=1"))
    done = repro(copy, "record", "--allow-dirty")
    assert done.returncode == 0, done.stderr
    assert "Recorded with uncommitted changes" in (copy.path / "REPRODUCE.md").read_text()


def test_record_needs_the_locked_packages(copy: Project) -> None:
    lock = copy.path / "requirements.lock"
    lock.write_text(re.sub(r"(?m)^pillow==\S+", "pillow==1.2.3", lock.read_text()))
    commit(copy)
    (line,) = faults(repro(copy, "record"))
    assert line.startswith("error: not as locked: pillow ")
    assert "(lock: 1.2.3)" in line


def test_a_claim_names_no_place_of_this_machine(copy: Project) -> None:
    copy.edit(
        "configs/claims.yaml", "[training.epochs=2,", "[data_dir=/home/me/data, training.epochs=2,"
    )
    commit(copy)
    (line,) = faults(repro(copy, "record"))
    assert "claim tiny: data_dir=/home/me/data is of this machine" in line


def test_a_metric_may_be_a_whole_number_and_has_to_be_finite(copy: Project) -> None:
    """Also without figures, and with fewer steps than the schedule has."""
    claim = "[training.max_steps=2, training.epochs=2,"
    copy.edit("configs/claims.yaml", "[training.epochs=2,", claim)
    copy.edit("configs/claims.yaml", "metric: accuracy", "metric: samples")
    copy.edit("configs/claims.yaml", "seeds: [3, 4, 5]", "seeds: [3]")
    task = "experiment/task.py"
    draw = 'draw_confusion(folder / "confusion_matrix.png", confusion, self.classes)'
    copy.edit(task, draw, "return")
    commit(copy)
    done = repro(copy, "record")
    assert done.returncode == 0, done.stderr
    recorded = json.loads((copy.path / RESULTS).read_text())["claims"]["tiny"]
    assert (recorded["values"], recorded["steps"]) == ({"3": 359.0}, 2)
    copy.edit(task, '"samples": int(confusion.sum())', '"samples": float("nan")')
    commit(copy)
    (line,) = faults(repro(copy, "record"))
    assert "claim tiny, seed 3: expected samples, a finite number" in line


# A command of an author's own, which writes metrics by itself.
OWN_COMMAND = """    import json

    code = run_command(lambda: evaluate_command(ROOT, __doc__))
    for path in (ROOT / "runs" / "record").rglob("metrics*.json"):
        metrics = json.loads(path.read_text())
        metrics.pop("steps", None)
        path.write_text(json.dumps(metrics))
    sys.exit(code)
"""


def test_metrics_without_what_others_compare_are_one_line(copy: Project) -> None:
    command = "    sys.exit(run_command(lambda: evaluate_command(ROOT, __doc__)))\n"
    copy.edit("experiment/evaluate.py", command, OWN_COMMAND)
    line = faults(repro(copy, "record", "--allow-dirty"))[-1]
    assert "metrics.json lacks steps: see experiment.evaluate" in line


def test_a_recording_that_was_stopped_goes_on(copy: Project) -> None:
    (run,) = copy.path.glob("runs/record/tiny/*/seed-4")
    newest = max((run / "checkpoints").glob("step-*"))
    for path in (newest, run / "checkpoints" / "last", run / "cost.json"):
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    shutil.rmtree(run.with_name("seed-5"))
    before = json.loads((copy.path / RESULTS).read_text())["claims"]["tiny"]
    done = repro(copy, "record")
    assert "resuming after step" in done.stdout
    assert json.loads((copy.path / RESULTS).read_text())["claims"]["tiny"]["bits"] == before["bits"]


def test_the_whole_the_first_steps_and_stretches_are_identical(copy: Project) -> None:
    before = json.loads((copy.path / RESULTS).read_text())["claims"]["tiny"]
    done = repro(copy, "verify", "--seed", "4")
    assert (done.returncode, last_line(done.stdout)) == (0, "IDENTICAL"), done.stdout
    found = verdict(copy)
    assert (found["verdict"], found["what"], found["seed"]) == ("IDENTICAL", "whole", 4)
    assert found["bits"] == found["recorded_bits"]
    done = repro(copy, "verify", "--segments", "3", "--steps", "20", "--require", "identical")
    assert (done.returncode, last_line(done.stdout)) == (0, "IDENTICAL"), done.stdout + done.stderr
    found = verdict(copy)
    assert len(found["steps"]) == 3
    assert all(last == min(first + 19, before["steps"]) for first, last in found["steps"])
    different = {n for first, last in found["steps"] for n in range(first, last + 1)}
    # Three stretches of half the training overlap, wherever they are.
    assert found["why"].startswith(f"{len(different)} of {before['steps']} ")
    assert len(different) < sum(last - first + 1 for first, last in found["steps"])
    # In a clone there are no runs: the published trace of the first seed will do for its beginning.
    shutil.rmtree(copy.path / "runs")
    done = repro(copy, "verify", "--prefix", "7")
    assert (done.returncode, last_line(done.stdout)) == (0, "IDENTICAL"), done.stdout
    assert verdict(copy)["steps"] == [[1, 7]]
    (line,) = faults(repro(copy, "verify", "--segments", "2"))
    assert "archive" in line
    (line,) = faults(repro(copy, "verify", "--steps", "7"))
    assert "expected --segments K --steps N" in line
    (line,) = faults(repro(copy, "verify", "--prefix", "7", "--seed", "4"))
    assert "first seed" in line
    (line,) = faults(repro(copy, "verify", "--prefix", "none"))
    assert "whole number" in line


def test_what_does_not_repeat_itself_is_different_at_its_step(
    recorded: Project, tmp_path: Path
) -> None:
    """The model draws from a generator that nothing seeds; the recorded code did so as well."""
    own = recorded.copy(tmp_path / "p")
    model = own.path / "experiment" / "model.py"
    text = model.read_text() + RESTLESS
    model.write_text(
        text.replace("nn.Linear(size, classes)]", "nn.Linear(size, classes), Restless()]")
    )
    claims = own.path / "configs" / "claims.yaml"
    claims.write_text(CLAIMS.replace("[3, 4, 5]", "[3]"))
    assert repro(own, "record", "--allow-dirty").returncode == 0
    for what in ((), ("--prefix", "8"), ("--segments", "1")):
        done = repro(own, "verify", *what)
        assert (done.returncode, last_line(done.stdout)) == (1, "DIFFERENT"), done.stderr
        found = verdict(own)
        assert f"they part at step {found['steps'][0][0]}: loss" in done.stdout
        assert found["why"] in done.stdout


def test_a_flipped_bit_in_a_checkpoint_is_noticed(copy: Project) -> None:
    (run,) = copy.path.glob("runs/record/tiny/*/seed-3")
    *others, middle, last = sorted(run.glob("checkpoints/step-*"))

    def flip(folder: Path) -> None:
        """The lowest bit of a weight (README of github.com/huggingface/safetensors: format)."""
        data = bytearray((folder / "tensors.safetensors").read_bytes())
        start = 8 + int.from_bytes(data[:8], "little")
        tensors = json.loads(data[8:start])
        (weights,) = (value for name, value in tensors.items() if name.endswith("model.0.weight"))
        data[start + weights["data_offsets"][1] - 4] ^= 1
        (folder / "tensors.safetensors").write_bytes(data)

    flip(last)
    (line,) = faults(repro(copy, "verify", "--segments", "1"))
    assert "changed or cut" in line
    flip(last)
    # With its sums made to fit it is the trace that tells.
    flip(middle)
    words = "sha256sum state.json tensors.safetensors > SHA256SUMS"
    subprocess.run(words, shell=True, cwd=middle, check=True)
    for folder in others:
        shutil.rmtree(folder)
    done = repro(copy, "verify", "--segments", "2", "--steps", "1")
    assert (done.returncode, last_line(done.stdout)) == (1, "DIFFERENT"), done.stdout + done.stderr
    assert "they part at step 36" in done.stdout


def test_stale_results_are_named_everywhere(recorded: Project, tmp_path: Path) -> None:
    own = recorded.copy(tmp_path / "p")
    changes = [
        ("configs/config.yaml", "threads: 1 ", "threads: 2 ", "config: threads is 2, recorded 1"),
        ("configs/config.yaml", "determinism: strict", "determinism: warn", "config: determinism"),
        ("experiment/model.py", "nn.ReLU()", "nn.SiLU()", "code: experiment/model.py changed"),
        ("configs/optimizer/adamw.yaml", "rate: 0.003", "rate: 0.004", "config: optimizer.lear"),
    ]
    for file, old, new, _ in changes:
        own.edit(file, old, new)
    done = repro(own, "verify")
    assert done.returncode == 1
    assert last_line(done.stdout) == "DIFFERENT"
    assert [named for *_, named in changes if named not in done.stdout] == []
    assert "make record" in done.stdout
    assert verdict(own)["differences"]
    done = own.run("python", "-m", "pytest", "-q", "--co", "-m", "gpu")
    assert re.search(r"REPRODUCE\.md is not of this code .*: make record", done.stdout)


def test_edited_claims_and_documents_are_stale(recorded: Project, tmp_path: Path) -> None:
    own = recorded.copy(tmp_path / "p")
    claims, text = own.path / "configs" / "claims.yaml", own.path / "REPRODUCE.md"
    assert [*stale(own.path, quick=True), *outdated(own.path)] == []
    claims.write_text(CLAIMS.replace("[3, 4, 5]", "[3, 4]").replace("Table 1", "Table 2"))
    assert stale(own.path, quick=True) == [
        "claim: shows of tiny changed",
        "claim: seeds of tiny changed",
    ]
    claims.write_text(CLAIMS.replace("tiny", "other"))
    assert "claim: tiny is no claim any more" in stale(own.path, quick=True)
    text.write_text(text.read_text().replace("(Table 1)", "(Table 3)"))
    assert "REPRODUCE.md does not say what" in outdated(own.path)[0]
    (own.path / "mine.py").write_text("x = 1\n")
    assert "code: mine.py is new" in stale(own.path, quick=True)


def test_a_comment_beside_the_data_changes_code_and_no_data(copy: Project) -> None:
    source = copy.path / "experiment" / "sources.py"
    source.write_text(source.read_text() + "# the same data\n")
    done = repro(copy, "verify")
    assert re.findall(r"(?m)^  (\w+: .*)", done.stdout) == ["code: experiment/sources.py changed"]


def test_a_recorded_trace_with_a_hole_is_no_evidence(copy: Project) -> None:
    shutil.rmtree(copy.path / "runs")
    trace = copy.path / "results" / "trace" / "tiny_seed-3.jsonl"
    lines = trace.read_text().splitlines(keepends=True)
    trace.write_text("".join(lines[:3] + lines[4:]))
    (line,) = faults(repro(copy, "verify", "--prefix", "5"))
    assert "lacks step 3" in line


def test_code_that_changes_while_it_is_recorded_is_refused(copy: Project) -> None:
    (run,) = copy.path.glob("runs/record/tiny/*/seed-4")
    path = run / "experiment_context.json"
    context = json.loads(path.read_text())
    context["conditions"]["code"]["experiment/model.py"] = "0" * 64
    path.write_text(json.dumps(context))
    (line,) = faults(repro(copy, "record"))
    assert "other code or settings (code: experiment/model.py changed): delete it" in line


def test_a_package_from_outside_is_named(recorded: Project, tmp_path: Path) -> None:
    own = recorded.copy(tmp_path / "p")
    leak = tmp_path / "leak"
    (leak / "harmless").mkdir(parents=True)
    done = repro(own, "verify", "--prefix", "1", PYTHONPATH=str(leak))
    assert last_line(done.stdout) == "IDENTICAL", done.stdout
    verdict(own)
    (numpy,) = recorded.venv.glob("lib/python*/site-packages/numpy")
    (leak / "numpy").symlink_to(numpy)
    done = repro(own, "verify", PYTHONPATH=str(leak))
    assert (done.returncode, last_line(done.stdout)) == (1, "DIFFERENT"), done.stdout + done.stderr
    assert "is imported before the environment, and has numpy" in done.stdout
    assert verdict(own)["verdict"] == "DIFFERENT"
