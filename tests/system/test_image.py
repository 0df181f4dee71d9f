"""The image, built and run with a real Docker engine (engine.py) as the project's Makefile does.

What is built is removed at the end: it takes 13 GB, which other tests need.
"""

import json
import os
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import HANGS, Project, last_line
from engine import BASE, Engine
from published import commands
from published import run as run_commands

STEPS = ("training.max_steps=12", "training.shards=2", "output.checkpoint_every=6")
SECRETS = (".env", "token.txt", "experiment/.netrc", "data/private.bin", "runs/old/metrics.jsonl")


def git(path: Path, *words: str) -> str:
    command = ["git", "-c", "user.name=A", "-c", "user.email=a@example.org", *words]
    return subprocess.run(command, cwd=path, check=True, capture_output=True, text=True).stdout


def make(engine: Engine, project: Project, *words: str) -> subprocess.CompletedProcess[str]:
    return project.make(*words, f"DOCKER={engine.client}", **engine.variables)


def build(engine: Engine, project: Project) -> subprocess.CompletedProcess[str]:
    arguments = f"--network host --progress plain --build-arg BASE_IMAGE={BASE}"
    done = make(engine, project, "image", f"BUILD_ARGS={arguments}")
    assert done.returncode == 0, done.stderr[-3000:]
    return done


@pytest.fixture(scope="module")
def built(
    engine: Engine, project: Project, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Project]:
    """A project in git, its image built; private files lie about in it."""
    own = project.copy(tmp_path_factory.mktemp("image") / project.path.name)
    git(own.path, "init", "--quiet")
    git(own.path, "add", ".")
    git(own.path, "commit", "--quiet", "-m", "all")
    for name in SECRETS:
        path = own.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("secret")
    (own.path / "experiment" / "model.py").chmod(0o600)  # of a checkout with umask 077
    (own.path / "configs").chmod(0o700)
    build(engine, own)
    yield own
    engine.forget(image(own))


def image(project: Project) -> str:
    found = re.search(r"^IMAGE \?= (\S+)$", (project.path / "Makefile").read_text(), re.M)
    assert found
    return found[1]


def inside(
    engine: Engine, project: Project, *command: str, user: str = "", before: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    """A command in the container as `make image-run` runs it; its runs folder is the project's."""
    for name in ("runs", "data"):
        (project.path / name).mkdir(exist_ok=True)
    owner = user or f"{os.getuid()}:{os.getgid()}"
    words = ["run", "--rm", "--init", "--network", "none", "--hostname", "localhost"]
    words += ["--read-only", "--tmpfs", "/tmp"]
    words += ["--shm-size", "8g", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"]
    words += ["--user", owner, "--volume", f"{project.path}/runs:/work/runs"]
    words += ["--volume", f"{project.path}/data:/work/data", *before]
    return engine.docker(*words, image(project), *command, timeout=HANGS)


def bits(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stdout + done.stderr
    (found,) = re.findall(r"^bits (\w{64})$", done.stdout, re.M)
    return str(found)


def test_the_container_gives_the_bits_of_outside(engine: Engine, built: Project) -> None:
    outside = bits(built.train(*STEPS, "run_dir=runs/outside"))
    done = make(engine, built, "image-run", f"ARGS={' '.join(STEPS)} run_dir=runs/a num_workers=2")
    assert bits(done) == outside
    spread = ("torchrun", "--nproc-per-node", "2", "-m")
    done = inside(engine, built, *spread, "experiment.train", *STEPS, "run_dir=runs/b")
    assert bits(done) == outside
    evaluate = ("experiment.evaluate", "--checkpoint", "runs/b/checkpoints/last")
    done = inside(engine, built, "python", "-m", *evaluate)
    assert done.returncode == 0, done.stderr
    context = json.loads((built.path / "runs/a/experiment_context.json").read_text())
    assert context["git"]["commit_hash"] == git(built.path, "rev-parse", "HEAD").strip()


def test_verify_in_the_container_says_identical(engine: Engine, built: Project) -> None:
    done = inside(engine, built, "python", "-m", "repro", "verify")
    assert last_line(done.stdout) == "IDENTICAL", done.stdout + done.stderr


def test_the_image_runs_as_an_ordinary_user_in_a_folder_of_theirs(
    engine: Engine, built: Project, tmp_path: Path
) -> None:
    own = Project(tmp_path, built.venv)
    (tmp_path / "Makefile").write_text((built.path / "Makefile").read_text())
    for name in ("runs", "data"):
        (tmp_path / name).mkdir()
        os.chown(tmp_path / name, 12345, 12345)
    train = ("python", "-m", "experiment.train", "training.max_steps=2", "run_dir=runs/own")
    done = inside(engine, own, *train, user="12345:12345")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "runs" / "own" / "metrics.jsonl").stat().st_uid == 12345
    # The image's own user, without any folder from outside.
    done = engine.docker("run", "--rm", image(built), "id", "-u")
    assert done.stdout.strip() not in ("", "0")


def test_docker_run_says_what_goes_with_the_container(
    engine: Engine, built: Project, tmp_path: Path
) -> None:
    train = ("python", "-m", "experiment.train", "training.max_steps=2", "run_dir=runs/a")
    words = ("run", "--rm", "--init", "--network", "none", "--hostname", "localhost")

    def run(*more: str) -> subprocess.CompletedProcess[str]:
        return engine.docker(*words, *more, image(built), *train, timeout=HANGS)

    lost = run()
    assert lost.returncode == 0, lost.stderr
    first, *_, last = lost.stdout.splitlines()
    for line in (first, last):
        assert line.startswith("warning: /work/runs")
        assert "kept only with a mount or a named volume" in line
    assert "without its commit" not in lost.stdout
    assert "without its commit" in run("--env", "REPRO_GIT_COMMIT=").stdout
    name = f"repro-test-{os.getpid()}"
    try:
        assert "warning" not in run("--volume", f"{name}:/work/runs").stdout
    finally:
        engine.docker("volume", "rm", "--force", name)
    tmp_path.chmod(0o755)
    os.chown(tmp_path, 12345, 12345)
    refused = run("--volume", f"{tmp_path}:/work/runs")
    assert refused.returncode == 2
    (line,) = refused.stderr.strip().splitlines()
    assert line.endswith("start it with --user 12345:12345")


def test_docker_stop_leaves_a_checkpoint(engine: Engine, built: Project) -> None:
    name = f"repro-test-{os.getpid()}"
    train = ("python", "-m", "experiment.train", "run_dir=runs/stopped", "training.epochs=500")
    before = ("--detach", "--name", name)
    done = inside(engine, built, *train, before=before)
    assert done.returncode == 0, done.stderr
    run = built.path / "runs" / "stopped"
    deadline = time.monotonic() + HANGS
    while not (run / "metrics.jsonl").is_file() or not (run / "metrics.jsonl").stat().st_size:
        assert time.monotonic() < deadline, engine.docker("logs", name).stderr
        time.sleep(0.2)
    waiting = subprocess.Popen(
        [engine.client, "wait", name],
        env={**os.environ, **engine.variables},
        stdout=subprocess.PIPE,
        text=True,
    )
    time.sleep(0.5)
    assert engine.docker("stop", "--time", "60", name).returncode == 0
    output, _ = waiting.communicate(timeout=HANGS)
    assert output.strip() == "75"
    assert list((run / "checkpoints").glob("step-*"))


def test_without_a_temporary_folder_it_ends_in_one_line(engine: Engine, built: Project) -> None:
    words = ("run", "--rm", "--init", "--network", "none", "--read-only", image(built))
    done = engine.docker(*words, "python", "-m", "experiment.train", "num_workers=2", timeout=HANGS)
    assert done.returncode == 2
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("error: ")
    assert "--tmpfs /tmp" in line


@pytest.mark.parametrize(
    "command",
    [("bash", "-c", "exit 0"), ("make", "help"), ("python", "-m", "repro", "doctor", "--quick")],
)
def test_other_commands_run(engine: Engine, built: Project, command: tuple[str, ...]) -> None:
    done = inside(engine, built, *command)
    assert done.returncode == 0, done.stderr


def test_the_image_holds_what_it_needs_and_nothing_else(engine: Engine, built: Project) -> None:
    script = "cd /work && find . -type f | sort && ls -A runs data; command -v gcc cc g++ git"
    done = engine.docker("run", "--rm", "--user", "0", image(built), "bash", "-c", script)
    for name in SECRETS:
        assert name not in done.stdout
    assert ".git/" not in done.stdout
    programs = [line for line in done.stdout.splitlines() if line.startswith("/")]
    assert programs == []
    found = engine.docker("image", "inspect", image(built)).stdout
    (config,) = json.loads(found)
    assert config["Config"]["Labels"]["org.opencontainers.image.revision"]
    assert not any("created" in label for label in config["Config"]["Labels"])
    script = "find / -xdev -path '*/pip/http*' -o -path /root/.cache/pip | head; pip check"
    done = engine.docker("run", "--rm", "--user", "0", image(built), "bash", "-c", script)
    assert done.stdout.strip() == "No broken requirements found.", done.stdout


def test_the_code_is_one_layer_that_every_user_may_read(engine: Engine, built: Project) -> None:
    """Also of a checkout that only its owner may read; nobody but root may write there."""
    script = "find /work ! -readable; find /work -writable | sort; stat -c %a-%n runs data configs"
    words = ("run", "--rm", "--user", "12345:12345", "--network", "none", image(built))
    done = engine.docker(*words, "bash", "-c", script)
    writable = ["/work/data", "/work/runs"]
    assert done.stdout.split() == [*writable, "1777-runs", "1777-data", "755-configs"]
    words = ("history", "--no-trunc", "--format", "{{.CreatedBy}}", image(built))
    made_by = engine.docker(*words).stdout.splitlines()
    assert len([line for line in made_by if re.match(r"COPY .*\. \. ", line)]) == 1
    assert not any("chmod" in line for line in made_by if line.startswith("RUN"))


def test_a_change_of_the_code_installs_nothing_anew(engine: Engine, built: Project) -> None:
    with (built.path / "experiment" / "model.py").open("a") as file:
        file.write("\n# changed\n")
    log = build(engine, built).stderr
    git(built.path, "checkout", "--quiet", "experiment/model.py")
    steps = re.findall(r"^#(\d+) \[dependencies.*RUN", log, re.M)
    assert steps
    assert all(re.search(rf"^#{step} CACHED", log, re.M) for step in steps), log[-3000:]


@pytest.mark.usefixtures("built")
def test_they_do_by_the_path_of_docker(
    published: tuple[Project, dict[str, str]], engine: Engine, tmp_path: Path
) -> None:
    """REPRODUCE.md taken at its word: its commands for Docker, with the packages of `built`.

    No base can be downloaded here: a stand-in is named by the variables of `make image`.
    """
    project, variables = published
    blocks = commands(project)
    (docker,) = (block for block in blocks if block[0].startswith("make image"))
    variables = {**variables, **engine.variables, "DOCKER": engine.client}
    variables["BUILD_ARGS"] = f"--network host --build-arg BASE_IMAGE={BASE}"
    start = blocks[0][:2]
    assert start[1] == "cd clean-room"
    assert not os.environ.get("BUILD_ARGS")
    output = run_commands(tmp_path, [*start, *docker], **variables)
    engine.forget(image(project))
    assert output.endswith("\nIDENTICAL\n"), output[-2000:]


def test_importing_torch_compiles_nothing_inside(engine: Engine, built: Project) -> None:
    """Compiled files are in the image, and Python uses them; without, it takes twice as long."""
    done = inside(engine, built, "python", "-v", "-c", "import torch")
    assert done.returncode == 0, done.stderr[-2000:]
    compiled = re.findall(r"(?m)^# code object from '?(\S*site-packages\S*\.py)'?$", done.stderr)
    used = re.findall(r"(?m)^# code object from '?(\S*site-packages\S*\.pyc)'?$", done.stderr)
    assert compiled == []
    assert len(used) > 500


@pytest.mark.long
def test_the_devcontainer_lints_tests_and_reproduces(
    engine: Engine, project: Project, tmp_path: Path
) -> None:
    """As devcontainer.json says: its stage, its user, its arguments; here without a network."""
    own = project.copy(tmp_path / project.path.name)
    said = json.loads((own.path / ".devcontainer" / "devcontainer.json").read_text())
    name, stage = f"{image(own)}-development", said["build"]["target"]
    assert (own.path / ".devcontainer" / said["build"]["dockerfile"]).resolve().is_file()
    words = ["build", "--target", stage, "--network", "host"]
    words += ["--build-arg", f"BASE_IMAGE={BASE}", "--tag", name, str(own.path)]
    done = engine.docker(*words)
    assert done.returncode == 0, done.stderr[-3000:]
    # It changes the user's number to that of the files' owner; here the files change theirs.
    done = engine.docker("run", "--rm", "--user", said["remoteUser"], name, "id", "-u")
    number = int(done.stdout)
    assert number
    for path in (own.path, *own.path.rglob("*")):
        os.chown(path, number, number, follow_symlinks=False)
    commands = "git init --quiet && make lint lock-check test reproduce"
    words = ["run", "--rm", *said["runArgs"], "--network", "none", "--user", said["remoteUser"]]
    words += ["--volume", f"{own.path}:/work", "--workdir", "/work", name, "bash", "-c", commands]
    done = engine.docker(*words)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr
    assert last_line(done.stdout) == "IDENTICAL"
    assert engine.docker("image", "rm", name).returncode == 0
