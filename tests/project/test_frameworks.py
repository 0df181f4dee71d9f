"""docs/examples: a LightningModule and a Hugging Face Trainer in a session, by the real packages.

They take long for their packages are installed first, into .build/frameworks.
"""

import json
import shutil
from pathlib import Path

import pytest
from conftest import ROOT, Project, call_trainer, commit, faults, git, last_line

FRAMEWORKS = ROOT / ".build" / "frameworks"
EXAMPLES = ROOT / "docs" / "examples"
BODIES = Path(__file__).parent.parent / "data" / "frameworks"
CLAIM = """
- name: mine
  text: Test accuracy
  arguments: [training.epochs=2]
  metric: accuracy
  seeds: [1, 2]
"""

pytestmark = pytest.mark.long


@pytest.fixture(params=["lightning", "transformers"])
def framed(request: pytest.FixtureRequest, own_project: Project) -> Project:
    """A project whose trainer is the framework's, by the example."""
    name = request.param
    experiment = own_project.path / "experiment"
    shutil.copy(EXAMPLES / f"{name}_session.py", experiment)
    shutil.copy(BODIES / f"{name}_trainer.py", experiment / "trainer.py")
    call_trainer(own_project)
    own_project.edit("pyproject.toml", 'prepare = "experiment.prepare"\n', "")
    (own_project.path / "configs" / "claims.yaml").write_text(CLAIM)
    shutil.rmtree(own_project.path / "results")
    git(own_project, "init", "--quiet")
    commit(own_project)
    return Project(own_project.path, FRAMEWORKS)


def train(project: Project, name: str, *settings: str) -> dict[str, bytes]:
    done = project.train(f"run_dir=runs/{name}", "training.epochs=2", *settings)
    assert done.returncode == 0, done.stdout + done.stderr
    run = project.path / "runs" / name
    last = (run / "checkpoints" / "last").resolve()
    paths = [run / "metrics.jsonl", run / "trace.jsonl", *sorted(last.iterdir())]
    return {path.name: path.read_bytes() for path in paths}


def test_a_framework_trains_in_a_session(framed: Project) -> None:
    """Workers, a stop and a resume, replay, audit, other settings, record and verify."""
    one = train(framed, "one")
    assert train(framed, "workers", "num_workers=2") == one
    train(framed, "stopped", "training.max_steps=13")
    assert train(framed, "stopped", "resume=auto") == one
    done = framed.train("run_dir=runs/one", "training.epochs=2", "resume=auto")
    assert "nothing is left to train" in done.stdout
    again = ("run_dir=runs/one", "training.epochs=2", "resume=auto", "determinism=warn")
    assert faults(framed.train(*again))[-1].endswith("determinism is warn, recorded strict")
    done = framed.module("repro", "trace-step", "runs/one", "--step", "30")
    assert done.returncode == 0, done.stderr
    assert json.loads((framed.path / "runs/one/step-30.json").read_text())["parted"] is None
    done = framed.module("repro", "audit", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout[done.stdout.index("{") :])["evaluated"]
    done = framed.module("repro", "record", "--allow-dirty")
    assert done.returncode == 0, done.stdout + done.stderr
    done = framed.module("repro", "verify")
    assert last_line(done.stdout) == "IDENTICAL", done.stdout + done.stderr
