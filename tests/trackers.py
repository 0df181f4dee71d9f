"""Projects with trackers, and what each tracker's own reader says of a run."""

import inspect
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import HANGS, Project, clean_environ, last_line

TRACKERS = ("tensorboard", "mlflow", "wandb")


STEPS = 65  # three epochs and a bit


SETTINGS = (f"training.max_steps={STEPS}", "output.log_every=1", "tracker.wait=600")


def bits(run: Path) -> dict[str, bytes]:
    """What must not depend on a tracker, byte for byte.

    But for the digests of the code, which the tests change to plant secrets in it.
    """
    last = run / "checkpoints" / "last"
    state = json.loads((last / "state.json").read_text())
    del state["on_disk"]
    paths = [run / "metrics.jsonl", *last.glob("*.safetensors")]
    return {"state": json.dumps(state).encode(), **{path.name: path.read_bytes() for path in paths}}


def train_untracked(project: Project) -> dict[str, bytes]:
    """A run in a project without a tracker."""
    done = project.train("run_dir=runs/untracked", *SETTINGS)
    assert done.returncode == 0, done.stderr
    return bits(project.path / "runs" / "untracked")


def start(project: Project, *settings: str, **variables: str) -> subprocess.Popen[str]:
    """A training in the background; its output is in the files out and err of the project."""
    with (project.path / "out").open("w") as out, (project.path / "err").open("w") as err:
        return subprocess.Popen(
            [project.venv / "bin" / "python", "-m", "experiment.train", *settings],
            cwd=project.path,
            env=clean_environ(**variables),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            text=True,
        )


def until(found: Callable[[], Any], seconds: float = HANGS) -> None:
    end = time.monotonic() + seconds
    while not found():
        assert time.monotonic() < end, (
            f"a training or its tracker hangs: {inspect.getsource(found)}"
        )
        time.sleep(0.02)


def steps_done(run: Path) -> int:
    path = run / "metrics.jsonl"
    return path.read_text().count("learning_rate") if path.is_file() else 0


def state(run: Path) -> dict[str, Any]:
    path = run / "tracker.json"
    return json.loads(path.read_text()) if path.is_file() else {"at": [0, False]}


def pause_when_tracked(training: subprocess.Popen[str], run: Path) -> None:
    """Stop a training on its way until its tracker has caught up: not all are that fast."""
    until(lambda: steps_done(run) >= 15)
    os.kill(training.pid, signal.SIGSTOP)
    until(lambda: state(run)["at"][0] >= 15)


def read(project: Project, program: str, *arguments: str) -> Any:
    """What a program prints as JSON that runs with the tracker's packages."""
    done = project.run("python", "-c", program, *arguments)
    assert done.returncode == 0, done.stderr
    return json.loads(last_line(done.stdout))


def expected_metrics(run: Path) -> dict[str, dict[int, float]]:
    """{"train/loss": {1: 2.3, ...}, ...} from metrics.jsonl."""
    expected: dict[str, dict[int, float]] = {}
    for line in (run / "metrics.jsonl").read_text().splitlines():
        entry = json.loads(line)
        step, part = entry.pop("step"), entry.pop("split", "train")
        for name, value in entry.items():
            expected.setdefault(f"{part}/{name}", {})[step] = value
    assert len(expected["train/loss"]) == STEPS
    assert len(expected["validation/accuracy"]) == 3
    return expected


def close(found: Any, expected: dict[str, dict[int, float]]) -> bool:
    """Whether a tracker has each step of each metric once; TensorBoard keeps 32 bits of a value."""
    pairs = {name: dict(values) for name, values in found.items()}
    once = all(len(pairs[name]) == len(values) for name, values in found.items())
    return (
        once
        and pairs.keys() == expected.keys()
        and all(pairs[name] == pytest.approx(expected[name], rel=1e-6) for name in expected)
    )


def files_to_show(project: Project) -> set[str]:
    """What has to be at the tracker beside metrics and settings."""
    code = [
        p for top in ("experiment", "repro", "configs") for p in (project.path / top).rglob("*")
    ]
    code = [p for p in code if p.suffix in (".py", ".yaml")]
    names = {f"code/{path.relative_to(project.path)}" for path in code}
    assert "code/experiment/task.py" in names
    names |= {"code/requirements.lock", "code/environment.yml", "config_used.yaml", "command.txt"}
    names |= {"experiment_context.json", "uncommitted_changes.diff"}
    names |= {"metrics.json", "metrics-last.json"}
    return names | {"figures/confusion_matrix.png", "figures/learning_curves.svg"}


CHECKPOINTS = {
    f"checkpoints/{name}/{file}"
    for name in ("best", "last")
    for file in ("tensors.safetensors", "state.json", "SHA256SUMS")
}


READ_MLFLOW = """
import json, sys, warnings
from mlflow import MlflowClient
client = MlflowClient(sys.argv[1])
def files(run, folder=None):
    for item in client.list_artifacts(run, folder):
        yield from files(run, item.path) if item.is_dir else [item.path]
found = []
for run in client.search_runs([e.experiment_id for e in client.search_experiments()]):
    i = run.info.run_id
    history = {k: [(m.step, m.value) for m in client.get_metric_history(i, k)]
               for k in run.data.metrics}
    found.append({"status": run.info.status, "user": run.info.user_id, "tags": run.data.tags,
                  "params": run.data.params, "metrics": history, "files": sorted(files(i))})
print(json.dumps(found))
"""
