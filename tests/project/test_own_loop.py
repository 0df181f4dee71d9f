"""docs/own-loop.md: a loop of the author's own gets all that the template's loop has."""

import json
import re
import shutil
from pathlib import Path
from zipfile import ZipFile

import pytest
from conftest import ROOT, Project, call_trainer, commit, faults, git, last_line
from forks import forking_environment

PAGE = (ROOT / "docs" / "own-loop.md").read_text()
(LOOP,) = re.findall(r"(?ms)^```python\n(.*?)^```\n", PAGE)
GONE = ("task", "data", "images", "model", "metrics", "samples", "sources", "prepare")
CLAIM = """
- name: mine
  text: Test accuracy of my network
  arguments: [training.epochs=2]
  metric: accuracy
  checkpoint: best
  seeds: [1, 2]
"""


@pytest.fixture(scope="module")
def looped(project: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project with the page's loop, as the page says; no test changes it."""
    found = project.copy(tmp_path_factory.mktemp("looped") / project.path.name)
    for name in GONE:
        (found.path / "experiment" / f"{name}.py").unlink()
    (found.path / "experiment" / "trainer.py").write_text(LOOP)
    call_trainer(found)
    for line in ('prepare = "experiment.prepare"', 'task = "experiment.task:Classifier"'):
        found.edit("pyproject.toml", f"{line}\n", "")
    found.edit("pyproject.toml", 'data = "experiment.data"\n', "")
    (found.path / "configs" / "claims.yaml").write_text(CLAIM)
    git(found, "init", "--quiet")
    commit(found)
    return found


@pytest.fixture
def own_loop(looped: Project, tmp_path: Path) -> Project:
    """A fresh copy to change."""
    return looped.copy(tmp_path / looped.path.name)


def train(project: Project, name: str, *settings: str, processes: int = 1) -> dict[str, bytes]:
    """Train two epochs; the bytes of the run's last checkpoint, metrics and trace."""
    words = ("experiment.train", f"run_dir=runs/{name}", "training.epochs=2", *settings)
    done = project.processes(processes, *words)
    assert done.returncode == 0, done.stdout + done.stderr
    run = project.path / "runs" / name
    last = (run / "checkpoints" / "last").resolve()
    paths = [run / "metrics.jsonl", run / "trace.jsonl", *sorted(last.iterdir())]
    return {path.name: path.read_bytes() for path in paths}


def test_the_example_is_short_and_passes_the_projects_lint(
    own_loop: Project, mypy_cache: str
) -> None:
    assert len(LOOP.splitlines()) <= 70
    done = own_loop.make("lint", MYPY_CACHE_DIR=mypy_cache)
    assert done.returncode == 0, done.stdout + done.stderr


def test_workers_processes_and_a_stop_do_not_change_the_bits(looped: Project) -> None:
    one = train(looped, "one")
    assert train(looped, "workers", "num_workers=2") == one
    train(looped, "stopped", "training.max_steps=13")
    assert train(looped, "stopped", "resume=auto") == one
    shards = train(looped, "shards", "training.shards=4")
    assert train(looped, "two", "training.shards=4", processes=2) == shards
    done = looped.module("repro", "diff", "runs/one", "runs/stopped")
    assert (done.returncode, "IDENTICAL" in done.stdout) == (0, True)
    done = looped.module("repro", "diff", "runs/one", "runs/shards")
    assert (done.returncode, "training.shards" in done.stdout) == (1, True)


def test_other_settings_and_other_data_are_refused(own_loop: Project) -> None:
    train(own_loop, "one", "training.max_steps=3")
    again = ("run_dir=runs/one", "training.epochs=2", "resume=auto")
    lines = faults(own_loop.train(*again, "determinism=warn"))
    assert lines[-1] == "error: config: determinism is warn, recorded strict"
    own_loop.edit("experiment/trainer.py", '"digits of scikit-learn"', '"other digits"')
    asked = "resume_changed_code=true"
    *_, data, code = faults(own_loop.train(*again))
    assert data.startswith("error: data: not the files that it was")
    assert f"other code (experiment/trainer.py changed): put it back, or {asked}" in code
    assert faults(own_loop.train(*again, asked))[-1] == data


RANDOM = """GENERATOR = torch.Generator().manual_seed(uuid4().int % 2**31)


def train("""


def test_a_replay_names_the_operation_and_the_line(own_loop: Project) -> None:
    own_loop.edit("experiment/trainer.py", "def train(", RANDOM)
    own_loop.edit("experiment/trainer.py", "from typing", "from uuid import uuid4\nfrom typing")
    plain = "        logits = model(batch[0])\n"
    noise = "1 + torch.empty(1).uniform_(0, 0.01, generator=GENERATOR)"
    own_loop.edit("experiment/trainer.py", plain, plain[:-1] + f" * ({noise})\n")
    for name in "ab":
        train(own_loop, name, "training.max_steps=4")
    done = own_loop.module("repro", "diff", "runs/a", "runs/b", "--replay", "--json")
    assert done.returncode == 1, done.stderr
    found = json.loads(done.stdout)
    text = (own_loop.path / "experiment" / "trainer.py").read_text().splitlines()
    (line,) = [number for number, words in enumerate(text, 1) if "uniform_" in words]
    assert found["operation"]["b"]["source"] == f"experiment/trainer.py:{line}"
    assert "uniform" in found["operation"]["b"]["name"]


def test_an_audit_looks_at_a_step_and_at_the_validation(own_loop: Project) -> None:
    done = own_loop.module("repro", "audit", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(done.stdout)
    assert (told["operations"], told["sums"], told["evaluated"]) == ([], [], True)
    own_loop.edit("experiment/trainer.py", 'reduction="sum"', 'reduction="mean"')
    done = own_loop.module("repro", "audit", "--json")
    assert done.returncode == 1
    assert [difference["of"] for difference in json.loads(done.stdout)["sums"]] == ["sum"]


def test_results_are_recorded_verified_compared_and_archived(own_loop: Project) -> None:
    shutil.rmtree(own_loop.path / "results")
    done = own_loop.module("repro", "record", "--allow-dirty")
    assert done.returncode == 0, done.stdout + done.stderr
    commit(own_loop)
    done = own_loop.module("repro", "verify")
    assert (done.returncode, last_line(done.stdout)) == (0, "IDENTICAL"), done.stdout + done.stderr
    done = own_loop.module("repro", "verify", "--segments", "1", "--steps", "3")
    assert (done.returncode, last_line(done.stdout)) == (0, "IDENTICAL"), done.stdout + done.stderr
    text = (own_loop.path / "REPRODUCE.md").read_text()
    assert "`python -m experiment.train training.epochs=2 seed=SEED`" in text
    (data,) = re.findall("<!-- repro:data -->\n(.*)\n<!-- /repro:data -->", text)
    assert data.startswith("- `mine`: **digits of scikit-learn**; 1797 samples; condition `data`")
    done = own_loop.module("repro", "compare", "runs/record/mine")
    assert done.returncode == 0, done.stderr
    done = own_loop.module("repro", "archive", "--output", "mine.zip")
    assert done.returncode == 0, done.stderr
    with ZipFile(own_loop.path / "mine.zip") as packed:
        names = packed.namelist()
    assert sum(name.endswith("/data.json") for name in names) == 2


def test_seeds_that_stop_early_at_other_steps_are_recorded_and_verified(own_loop: Project) -> None:
    done_call = "        step.done(loss=mean, gradient_norm=norm)\n"
    stop = "        if step.number == 5 + session.config.seed:\n            session.stop()\n"
    own_loop.edit("experiment/trainer.py", done_call, done_call + stop)
    own_loop.edit("configs/claims.yaml", "  checkpoint: best\n", "")
    shutil.rmtree(own_loop.path / "results")
    done = own_loop.module("repro", "record", "--allow-dirty")
    assert done.returncode == 0, done.stdout + done.stderr
    recorded = json.loads((own_loop.path / "results/expected_metrics.json").read_text())
    claim = recorded["claims"]["mine"]
    assert (claim["steps"], claim["steps_by_seed"]) == (7, {"1": 6, "2": 7})
    commit(own_loop)
    for arguments in (("--seed", "1"), ("--seed", "2"), ("--prefix", "3")):
        done = own_loop.module("repro", "verify", *arguments)
        assert last_line(done.stdout) == "IDENTICAL", done.stdout + done.stderr
    run = next(own_loop.path.glob("runs/record/mine/*/seed-2"))
    done = own_loop.module("experiment.evaluate", "--checkpoint", str(run / "checkpoints/last"))
    assert "equal to the recorded accuracy and bits of mine" in done.stdout


def test_the_projects_own_tests_pass(looped: Project, tmp_path: Path) -> None:
    done = Project(looped.path, forking_environment(tmp_path / "venv")).make("test")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "skipped" not in last_line(done.stdout)


def test_a_loop_that_breaks_is_told_how_to_end(own_loop: Project) -> None:
    done_call = "        step.done(loss=mean, gradient_norm=norm)\n"
    own_loop.edit("experiment/trainer.py", done_call, f"{done_call}        break\n")
    (line,) = faults(own_loop.train("run_dir=runs/broken"))
    assert line.startswith("error: the loop ended after step 1, before its last one: to end a")
    text = (own_loop.path / "experiment" / "trainer.py").read_text()
    stop = "        if step.number == 5:\n            session.stop()\n"
    early = text.replace("        break\n", stop)
    (own_loop.path / "experiment" / "trainer.py").write_text(early)
    done = own_loop.train("run_dir=runs/early")
    assert done.returncode == 0, done.stderr
    assert "step 5/400  loss" in done.stdout
    again = own_loop.train("run_dir=runs/early", "resume=auto")
    assert "has done 5 steps: nothing is left to train" in again.stdout
    last = "runs/early/checkpoints/last"
    assert own_loop.module("experiment.evaluate", "--checkpoint", last).returncode == 0
    done = own_loop.module("repro", "compare", "runs/early", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["groups"][0]["runs"][0]["step"] == 5
