"""Trackers, with the real packages: what they show, and that no training notices them.

What was logged is read back with each tracker's own reader. The projects run in an environment that
has the packages of all trackers; everything else is tested in one that has none of them.
"""

import os
import re
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from conftest import HANGS, Project, faults, last_line
from trackers import (
    CHECKPOINTS,
    READ_MLFLOW,
    SETTINGS,
    STEPS,
    TRACKERS,
    bits,
    close,
    expected_metrics,
    files_to_show,
    pause_when_tracked,
    read,
    start,
    state,
    steps_done,
    until,
)

SECRETS = {"DB_PASSWORD": "planted-variable", "SLURM_JWT": "planted-job", "HF_TOKEN": "planted-hf"}
SECRETS |= {"WANDB_API_KEY": f"planted-{'k' * 40}", "MLFLOW_TRACKING_TOKEN": "planted-token"}


def plant(project: Project) -> None:
    """Secrets in the code, in files among it, in git, in what is not committed and its names."""
    (project.path / "configs" / "key.pem").write_text("planted-key\n")
    with (project.path / "experiment" / "model.py").open("a") as file:
        file.write('\nHF_TOKEN = "planted-literal"  # planted-variable\n')
    if project.path.parent.name.startswith("tensorboard"):  # an adapter that shows all that it sees
        adapter, old = "repro/tracking/tensorboard.py", "        rows = ["
        new = "        import os\n\n        params = {**params, 'environ': dict(os.environ)}\n"
        project.edit(adapter, old, new + old)
    author = ["-c", "user.name=A", "-c", "user.email=a@example.org"]
    git = ["git", *author]
    subprocess.run(["git", "init", "-q", "-b", "main"], cwd=project.path, check=True)
    origin = "https://me:planted-remote@example.org/me/study"
    subprocess.run(["git", "remote", "add", "origin", origin], cwd=project.path, check=True)
    subprocess.run(["git", "add", "-A"], cwd=project.path, check=True)
    subprocess.run([*git, "commit", "-qm", "x"], cwd=project.path, check=True)
    note = "password: planted-uncommitted\nother:\n  token: |\n    planted-next-line\n"
    (project.path / "note.yaml").write_text(note)
    # A token as the name of a file: of no code, for such a one is refused.
    (project.path / ("gh" + "p_" + "planted" * 6)).write_text("x\n")


@pytest.fixture(scope="module")
def tracked(projects: dict[str, Project]) -> dict[str, Project]:
    """runs/a of each project: killed on the way, resumed, evaluated; with secrets all around."""
    for project in projects.values():
        planted = project.copy(project.path.with_name("planted"))
        plant(planted)
        settings = ("run_dir=runs/a", *SETTINGS, "output.checkpoint_every=10")
        run = planted.path / "runs" / "a"
        process = start(planted, *settings, **SECRETS)
        pause_when_tracked(process, run)
        process.kill()
        process.wait()
        assert steps_done(run) < STEPS
        done = planted.train(*settings, "resume=auto", **SECRETS)
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        assert "resuming after step" in done.stdout
        done = planted.module("experiment.evaluate", **SECRETS)
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
    return {name: Project(p.path.with_name("planted"), p.venv) for name, p in projects.items()}


def commit_of(project: Project) -> str:
    command = ["git", "rev-parse", "HEAD"]
    return subprocess.check_output(command, cwd=project.path, text=True).strip()


@pytest.mark.parametrize("tracker", TRACKERS)
def test_a_tracked_run_that_was_killed_has_the_bits_of_an_untracked_one(
    tracked: dict[str, Project], untracked: dict[str, bytes], tracker: str
) -> None:
    assert bits(tracked[tracker].path / "runs" / "a") == untracked


@pytest.mark.parametrize("tracker", TRACKERS)
def test_no_secret_reaches_a_tracker(tracked: dict[str, Project], tracker: str) -> None:
    project = tracked[tracker]
    assert b"planted-literal" in (project.path / "experiment" / "model.py").read_bytes()
    model = (project.path / "runs" / "a" / "code" / "experiment" / "model.py").read_text()
    assert model.endswith('HF_TOKEN = "***"  # ***\n')
    written = [*(project.path / "runs").rglob("*"), *(project.path / "data").rglob("*")]
    files = [path for path in written if path.is_file()]
    assert len(files) > 20
    for path in files:
        assert re.findall(rb"planted[-p]\w+", path.read_bytes()) == [], path


def test_tensorboard_shows_the_run(tracked: dict[str, Project]) -> None:
    project = tracked["tensorboard"]
    program = (
        "import json, sys\n"
        "from tensorboard.backend.event_processing.event_accumulator import EventAccumulator\n"
        "found = EventAccumulator(sys.argv[1], size_guidance={'scalars': 0, 'tensors': 0})\n"
        "found.Reload(); tags = found.Tags()\n"
        "text = lambda tag: found.Tensors(tag)[-1].tensor_proto.string_val[0].decode()\n"
        "print(json.dumps({'metrics': {tag: [(e.step, e.value) for e in found.Scalars(tag)]"
        " for tag in tags['scalars']}, 'texts': {t: text(t) for t in tags['tensors']},"
        " 'images': [(i.width, tag) for tag in tags['images'] for i in found.Images(tag)]}))"
    )
    run = project.path / "runs" / "a"
    found = read(project, program, str(run / "tensorboard"))
    assert close(found["metrics"], expected_metrics(run))
    assert "| training.batch_size | 64 |" in found["texts"]["params"]
    assert commit_of(project) in found["texts"]["params"]
    assert '"PATH":' in found["texts"]["params"]  # see `plant`: no secret was among the variables
    widths = {tag: width for width, tag in found["images"]}
    curves = "figures/learning_curves.svg"  # TensorBoard shows no SVG; their numbers are scalars
    shown = {*found["texts"], *widths}
    assert shown >= files_to_show(project) - {curves}
    assert curves not in shown
    assert widths["figures/confusion_matrix.png"] == 825
    text = found["texts"]["code/experiment/task.py"]
    task = (project.path / "experiment" / "task.py").read_text()
    assert re.sub("(?m)^    ", "", text) == task


def test_mlflow_shows_the_run(tracked: dict[str, Project]) -> None:
    project = tracked["mlflow"]
    (found,) = read(project, READ_MLFLOW, "sqlite:///runs/mlflow.db")  # one run, not two
    run = project.path / "runs" / "a"
    assert found["status"] == "FINISHED"
    assert close(found["metrics"], expected_metrics(run))
    assert found["params"].items() >= {"training.batch_size": "64", "seed": "42"}.items()
    assert found["params"]["context.commit_hash"] == commit_of(project)
    assert (found["params"]["context.is_dirty"], found["params"]["context.branch"]) == (
        "true",
        "main",
    )
    assert {*found["files"]} >= files_to_show(project) | CHECKPOINTS
    assert found["user"] in ("", "unknown")
    assert found["tags"].keys() == {"mlflow.runName", "repro.id"}  # no user, no source, no git


# Records in the log format of LevelDB, read with W&B's own classes (its reader of whole files is
# part of a program in Go).
READ_WANDB = """
import json, struct, sys
from pathlib import Path
from wandb.proto import wandb_internal_pb2 as pb
data, at, whole, found = Path(sys.argv[1]).read_bytes(), 7, b"", []
assert data[:4] == b":W&B"
while at + 7 < len(data):
    if 32768 - at % 32768 < 7:  # no place for a header: the rest of the block is empty
        at += 32768 - at % 32768
        continue
    _, length, part = struct.unpack("<IHB", data[at : at + 7])
    whole += data[at + 7 : at + 7 + length]
    at += 7 + length
    if part in (1, 4):  # the whole of a record, or its last part
        record = pb.Record()
        record.ParseFromString(whole)
        whole = b""
        items = {i.key or "/".join(i.nested_key): json.loads(i.value_json)
                 for i in [*record.history.item, *record.config.update]}
        found.append({"kind": record.WhichOneof("record_type"), "step": record.history.step.num,
                      "run": record.run.run_id, "items": items, "text": str(record),
                      "files": [f.path for f in record.files.files]})
print(json.dumps(found))
"""


def test_wandb_shows_the_run(tracked: dict[str, Project]) -> None:
    """Two parts, for it was killed once, of one run; `wandb sync` puts them together."""
    project = tracked["wandb"]
    run = project.path / "runs" / "a"
    paths = sorted((run / "wandb").glob("offline-run-*/*.wandb"))
    assert len(paths) == 3  # the training, its second part, the evaluation
    metrics: dict[str, list[tuple[int, float]]] = {}
    config: dict[str, Any] = {}
    files: set[str] = set()
    for path in paths:
        for record in read(project, READ_WANDB, str(path)):
            kind, items = record["kind"], record["items"]
            # As a word: a short name may be a part of W&B's own random ids.
            assert not re.search(rf"\b{re.escape(os.uname().nodename)}\b", record["text"])
            assert kind not in ("stats", "output", "output_raw", "environment"), kind
            if kind == "run":
                assert record["run"] == state(run)["id"]
            if kind == "config":
                config.update(items)
            files.update(record["files"])
            for name in items if kind == "history" else ():
                if not name.startswith("_"):
                    metrics.setdefault(name, []).append((record["step"], items[name]))
    assert close(metrics, expected_metrics(run))
    assert config["training.batch_size"] == 64
    assert config["context.commit_hash"] == commit_of(project)
    assert files >= files_to_show(project) | CHECKPOINTS
    for name in files_to_show(project) | CHECKPOINTS:
        assert list((run / "wandb").glob(f"offline-run-*/files/{name}")), name
    assert not [name for name in files if name.startswith(("requirements", "wandb-metadata"))]


@pytest.mark.parametrize(
    "tracker",
    [TRACKERS[0], *(pytest.param(t, marks=pytest.mark.long) for t in TRACKERS[1:])],
)
def test_a_fresh_project_with_any_tracker_is_identical(
    projects: dict[str, Project], tracker: str
) -> None:
    done = projects[tracker].module("repro", "verify", "--prefix", "20")
    assert done.returncode == 0, done.stdout + done.stderr
    assert last_line(done.stdout) == "IDENTICAL"
    assert not list((projects[tracker].path / "runs").rglob("tracker.json"))  # nobody's server


@contextmanager
def silent_server() -> Iterator[tuple[str, Callable[[], object]]]:
    """Accepts every connection and never answers; a function waits for the first one."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(100)
        server.settimeout(HANGS)
        yield f"http://127.0.0.1:{server.getsockname()[1]}", server.accept


@pytest.mark.parametrize("tracker", ["mlflow", "wandb"])
def test_a_server_that_never_answers_ends_with_one_line(
    projects: dict[str, Project], untracked: dict[str, bytes], tracker: str
) -> None:
    project, run = projects[tracker], projects[tracker].path / "runs" / "silent"
    with silent_server() as (uri, asked):
        settings = ("run_dir=runs/silent", *SETTINGS[:-1], "tracker.wait=2", f"tracker.uri={uri}")
        training = start(project, *settings, WANDB_API_KEY="0" * 40)
        until(lambda: steps_done(run) >= 15)
        os.kill(training.pid, signal.SIGSTOP)  # a slow machine has no tracker yet
        connection = asked()
        os.kill(training.pid, signal.SIGCONT)
        assert training.wait(HANGS) == 0  # `make bench` says how much longer than tracker.wait
    del connection  # it was open until now
    (line,) = (project.path / "err").read_text().splitlines()
    assert line.startswith(f"warning: {tracker}: ")
    assert bits(run) == untracked


def test_a_tracker_that_fails_at_once_is_one_line(projects: dict[str, Project]) -> None:
    project = projects["tensorboard"]
    short = "training.max_steps=2"
    done = project.train("run_dir=runs/failed", short, "tracker.uri=http://localhost")
    assert done.returncode == 0
    (line,) = done.stderr.splitlines()
    assert "TensorBoard knows no server" in line
    done = project.module("repro.tracking", "configs")
    assert "no tracked run" in faults(done)[0]


def test_a_trackers_process_that_is_killed_is_one_line(
    projects: dict[str, Project], untracked: dict[str, bytes]
) -> None:
    project = projects["tensorboard"]
    training = start(project, "run_dir=runs/alone", *SETTINGS)
    run = project.path / "runs" / "alone"
    pause_when_tracked(training, run)
    children = Path(f"/proc/{training.pid}/task/{training.pid}/children").read_text().split()
    assert len(children) == 1
    os.kill(int(children[0]), signal.SIGKILL)
    os.kill(training.pid, signal.SIGCONT)
    assert training.wait(HANGS) == 0
    (line,) = (project.path / "err").read_text().splitlines()
    assert "the tracker's process was killed" in line
    assert bits(run) == untracked
    assert state(run)["at"][0] < STEPS
    done = project.module("repro.tracking", "runs/alone")
    assert (done.returncode, done.stderr) == (0, "")
    assert state(run)["at"] == [STEPS, False]
    (run / "tracker.json").write_text("{")
    assert "is damaged" in faults(project.module("repro.tracking", str(run)))[0]


def test_a_warning_to_all_processes_leaves_the_tracker_to_send_the_rest(
    projects: dict[str, Project],
) -> None:
    project = projects["tensorboard"]
    training = start(project, "run_dir=runs/warned", *SETTINGS, "training.max_steps=400")
    run = project.path / "runs" / "warned"
    pause_when_tracked(training, run)
    children = Path(f"/proc/{training.pid}/task/{training.pid}/children").read_text().split()
    for pid in (*map(int, children), training.pid):
        os.kill(pid, signal.SIGTERM)
    os.kill(training.pid, signal.SIGCONT)
    assert training.wait(HANGS) == 75
    assert (project.path / "err").read_text() == ""
    assert 0 < steps_done(run) < 400
    assert state(run)["at"][0] == steps_done(run)


def test_a_tracker_does_not_wait_for_data_workers(projects: dict[str, Project]) -> None:
    """They hold the pipe to it, too: while one of them lives, the tracker sees no end."""
    project = projects["tensorboard"]
    done = project.train("run_dir=runs/workers", *SETTINGS, "num_workers=2")
    assert (done.returncode, done.stderr) == (0, "")


def test_without_a_tracker_at_run_time_there_is_none(projects: dict[str, Project]) -> None:
    project = projects["wandb"]
    done = project.train("run_dir=runs/none", "tracker=none", "training.max_steps=2")
    assert (done.returncode, done.stderr) == (0, "")
    assert {path.name for path in (project.path / "runs" / "none").iterdir()} == {
        ".lock",
        "checkpoints",
        "command.txt",
        "config_used.yaml",
        "data.json",
        "experiment_context.json",
        "metrics.jsonl",
        "trace.jsonl",
    }
    other = project.train("tracker=mlflow")
    assert "configs/tracker/ has default, none, wandb" in faults(other)[0]


def test_of_several_processes_the_first_one_tracks(projects: dict[str, Project]) -> None:
    project = projects["tensorboard"]
    settings = ("training.shards=2", "run_dir=runs/two", "training.max_steps=3")
    done = project.processes(2, "experiment.train", *settings)
    assert done.returncode == 0, done.stderr
    assert len(list((project.path / "runs" / "two" / "tensorboard").iterdir())) == 1
