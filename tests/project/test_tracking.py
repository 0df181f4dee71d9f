"""Trackers, with the real packages: what they show, and that no training notices them.

What was logged is read back with each tracker's own reader. The projects run in an environment that
has the packages of all trackers; everything else is tested in one that has none of them.
"""

import json
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from conftest import Project, clean_environ, faults, generate, last_line

TRACKERS = ("tensorboard", "mlflow", "wandb")
STEPS = 65  # three epochs and a bit
SETTINGS = (f"training.max_steps={STEPS}", "output.log_every=1", "tracker.wait=20")
SECRETS = {"DB_PASSWORD": "planted-variable", "SLURM_JWT": "planted-job", "HF_TOKEN": "planted-hf"}
SECRETS |= {"WANDB_API_KEY": f"planted-{'k' * 40}", "MLFLOW_TRACKING_TOKEN": "planted-token"}


def bits(run: Path) -> dict[str, bytes]:
    """What must not depend on a tracker, byte for byte."""
    last = run / "checkpoints" / "last"
    return {path.name: path.read_bytes() for path in [run / "metrics.jsonl", *last.iterdir()]}


@pytest.fixture(scope="module")
def untracked(project: Project) -> dict[str, bytes]:
    """A run in a project without a tracker."""
    done = project.train("run_dir=runs/untracked", *SETTINGS)
    assert done.returncode == 0, done.stderr
    return bits(project.path / "runs" / "untracked")


@pytest.fixture(scope="module")
def projects(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Project]:
    return {t: generate(tmp_path_factory.mktemp(t), f"tracker={t}") for t in TRACKERS}


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


def until(found: Callable[[], Any], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not found():
        assert time.monotonic() < end, "waited too long"
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


def plant(project: Project) -> None:
    """Secrets in the code, in the config by name, in git, in what is not committed."""
    project.edit("experiment/config.py", "    uri: Path", "    api_key: str = ''\n    uri: Path")
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
    (project.path / "note.yaml").write_text("password: planted-uncommitted\n")


@pytest.fixture(scope="module")
def tracked(projects: dict[str, Project]) -> dict[str, Project]:
    """runs/a of each project: killed on the way, resumed, evaluated; with secrets all around."""
    for project in projects.values():
        planted = project.copy(project.path.with_name("planted"))
        plant(planted)
        settings = ("run_dir=runs/a", *SETTINGS, "+tracker.api_key=planted-config")
        settings = (*settings, "output.checkpoint_every=10")
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
        done = planted.run("python", "-m", "experiment.evaluate", **SECRETS)
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
    return {name: Project(p.path.with_name("planted"), p.venv) for name, p in projects.items()}


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
    assert "code/experiment/trainer.py" in names
    names |= {"code/requirements.lock", "code/environment.yml", "config_used.yaml", "command.txt"}
    names |= {"experiment_context.json", "uncommitted_changes.diff", "metrics.json"}
    return names | {"figures/confusion_matrix.png", "figures/learning_curves.png"}


CHECKPOINTS = {
    f"checkpoints/{name}/{file}"
    for name in ("best", "last")
    for file in ("tensors.safetensors", "state.json", "SHA256SUMS")
}


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
    files = [path for path in (project.path / "runs").rglob("*") if path.is_file()]
    assert len(files) > 20
    for path in files:
        assert re.findall(rb"planted-\w+", path.read_bytes()) == [], path


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
    assert {*found["texts"], *widths} >= files_to_show(project)
    assert widths["figures/confusion_matrix.png"] == 825
    shown = found["texts"]["code/experiment/trainer.py"]
    trainer = (project.path / "experiment" / "trainer.py").read_text()
    assert re.sub("(?m)^    ", "", shown) == trainer


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
            assert os.uname().nodename not in record["text"]
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
    done = projects[tracker].make("reproduce")
    assert done.returncode == 0, done.stdout + done.stderr
    assert last_line(done.stdout) == "IDENTICAL"
    assert not list((projects[tracker].path / "runs").rglob("tracker.json"))  # nobody's server


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextmanager
def mlflow_server(project: Project, folder: Path, port: int) -> Iterator[Callable[[int], None]]:
    """A real server with SQLite on loopback; yields what sends it a signal."""
    environ = clean_environ(MLFLOW_DISABLE_TELEMETRY="true")
    environ["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"  # takes seconds to start
    command = [project.venv / "bin" / "mlflow", "server", "--host", "127.0.0.1", "--workers", "1"]
    command += ["--port", str(port), "--backend-store-uri", f"sqlite:///{folder}/server.db"]
    command += ["--artifacts-destination", str(folder / "artifacts")]
    with (folder / "log").open("a") as log:
        server = subprocess.Popen(
            command, cwd=folder, env=environ, stdout=log, stderr=log, start_new_session=True
        )

    def send(number: int) -> None:
        os.killpg(server.pid, number)

    def answers() -> bool:
        assert server.poll() is None, (folder / "log").read_text()
        with socket.socket() as client:
            return client.connect_ex(("127.0.0.1", port)) == 0

    try:
        until(answers)
        yield send
    finally:
        send(signal.SIGKILL)
        server.wait()


def test_an_mlflow_server_that_dies_and_comes_back_has_everything(
    projects: dict[str, Project], untracked: dict[str, bytes], tmp_path: Path
) -> None:
    project, port = projects["mlflow"], free_port()
    settings = (*SETTINGS, "tracker.wait=4")
    run, uri = project.path / "runs" / "server", f"http://127.0.0.1:{port}"
    with mlflow_server(project, tmp_path, port):
        training = start(project, "run_dir=runs/server", *settings, f"tracker.uri={uri}")
        pause_when_tracked(training, run)
    os.kill(training.pid, signal.SIGCONT)
    until(lambda: steps_done(run) >= 45)
    os.kill(training.pid, signal.SIGSTOP)  # not to be at its end before the server is back
    until(lambda: "warning" in (project.path / "err").read_text())
    with mlflow_server(project, tmp_path, port) as hold:
        os.kill(training.pid, signal.SIGCONT)
        assert training.wait(60) == 0
        (line,) = (project.path / "err").read_text().splitlines()
        assert line.startswith("warning: mlflow: ")
        (found,) = read(project, READ_MLFLOW, uri)
        assert (found["status"], bits(run)) == ("FINISHED", untracked)
        assert close(found["metrics"], expected_metrics(run))
        assert {*found["files"]} >= CHECKPOINTS
        hold(signal.SIGSTOP)
        evaluate = ("python", "-m", "experiment.evaluate", "--checkpoint")
        done = project.run(*evaluate, str(run / "checkpoints" / "last"))
        assert done.returncode == 0
        (line,) = done.stderr.splitlines()
        assert line.startswith("warning: mlflow: ")
        hold(signal.SIGCONT)
        done = project.run("python", "-m", "repro.tracking", "runs/server")
        assert (done.returncode, done.stderr) == (0, "")
        (found,) = read(project, READ_MLFLOW, uri)
        assert "figures/confusion_matrix.png" in found["files"]


@contextmanager
def silent_server() -> Iterator[str]:
    """Accepts every connection and never answers."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(100)
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.alone
@pytest.mark.parametrize("tracker", ["mlflow", "wandb"])
def test_a_server_that_never_answers_costs_its_wait_and_one_line(
    projects: dict[str, Project], untracked: dict[str, bytes], tracker: str
) -> None:
    project, run = projects[tracker], projects[tracker].path / "runs" / "silent"
    with silent_server() as uri:
        settings = ("run_dir=runs/silent", *SETTINGS[:-1], "tracker.wait=2", f"tracker.uri={uri}")
        training = start(project, *settings, WANDB_API_KEY="0" * 40)
        until(lambda: steps_done(run) == STEPS)
        done = time.monotonic()
        assert training.wait(30) == 0
        assert time.monotonic() - done < 2 + 3  # the last checkpoint is written in between
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
    done = project.run("python", "-m", "repro.tracking", "configs")
    assert "no tracked run" in faults(done)[0]


def test_a_trackers_process_that_is_killed_is_one_line(
    projects: dict[str, Project], untracked: dict[str, bytes]
) -> None:
    project = projects["tensorboard"]
    training = start(project, "run_dir=runs/alone", *SETTINGS)
    run = project.path / "runs" / "alone"
    until(lambda: state(run)["at"][0] > 0)
    children = Path(f"/proc/{training.pid}/task/{training.pid}/children").read_text().split()
    assert len(children) == 1
    os.kill(int(children[0]), signal.SIGKILL)
    assert training.wait(60) == 0
    (line,) = (project.path / "err").read_text().splitlines()
    assert "the tracker's process was killed" in line
    assert bits(run) == untracked
    assert state(run)["at"][0] < STEPS
    done = project.run("python", "-m", "repro.tracking", "runs/alone")
    assert (done.returncode, done.stderr) == (0, "")
    assert state(run)["at"] == [STEPS, False]
    (run / "tracker.json").write_text("{")
    assert "is damaged" in faults(project.run("python", "-m", "repro.tracking", str(run)))[0]


def test_a_warning_to_all_processes_leaves_the_tracker_to_send_the_rest(
    projects: dict[str, Project],
) -> None:
    project = projects["tensorboard"]
    training = start(project, "run_dir=runs/warned", *SETTINGS, "training.max_steps=400")
    run = project.path / "runs" / "warned"
    until(lambda: state(run)["at"][0] > 0)
    children = Path(f"/proc/{training.pid}/task/{training.pid}/children").read_text().split()
    for pid in (*map(int, children), training.pid):
        os.kill(pid, signal.SIGTERM)
    assert training.wait(60) == 75
    assert (project.path / "err").read_text() == ""
    assert 0 < steps_done(run) < 400
    assert state(run)["at"][0] == steps_done(run)


def test_without_a_tracker_at_run_time_there_is_none(projects: dict[str, Project]) -> None:
    project = projects["wandb"]
    done = project.train("run_dir=runs/none", "tracker=none", "training.max_steps=2")
    assert (done.returncode, done.stderr) == (0, "")
    assert {path.name for path in (project.path / "runs" / "none").iterdir()} == {
        ".lock",
        "checkpoints",
        "command.txt",
        "config_used.yaml",
        "experiment_context.json",
        "metrics.jsonl",
        "trace.jsonl",
    }
    other = project.train("tracker=mlflow")
    assert "configs/tracker/ has none, wandb" in faults(other)[0]


def test_of_several_processes_the_first_one_tracks(projects: dict[str, Project]) -> None:
    project = projects["tensorboard"]
    words = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port"]
    words += [str(free_port()), "-m", "experiment.train", "training.shards=2", "run_dir=runs/two"]
    done = project.run("python", *words, "training.max_steps=3", OMP_NUM_THREADS="1")
    assert done.returncode == 0, done.stderr
    assert len(list((project.path / "runs" / "two" / "tensorboard").iterdir())) == 1
