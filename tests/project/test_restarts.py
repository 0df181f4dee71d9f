"""Trainings that torchrun or Slurm starts again by itself: real torchrun, real signals."""

import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from background import contents, kill, wait_for_steps
from conftest import HANGS, VENV, Project, clean_environ, faults, free_port, generate

PROCESSES = 4
SMALL = ("model.width=8", "threads=1", "output.log_every=1", "output.checkpoint_every=4")
MODES = {
    "shards": ("training.shards=4",),
    "ddp": ("training.shards=4", "training.parallel=ddp", "training.processes=4"),
    "fsdp": ("training.shards=4", "training.parallel=fsdp", "training.processes=4"),
}
# What a torchrun on one machine is started with; both keep a store for all of its starts.
STANDALONE = ("--standalone", "--local-addr=127.0.0.1")
FAILS = """    def train_step(self, step):
        if step.number == 7:
            raise ValueError("no sample 1234")
        return super().train_step(step)

    def loss("""


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return generate(tmp_path_factory.mktemp("many"), "scale=many")


@contextmanager
def torchrun(project: Project, run: str, *settings: str) -> Iterator[subprocess.Popen[str]]:
    """Train in runs/<run> with four processes, which torchrun may start again three times."""
    place = STANDALONE
    if run.startswith("static"):
        place = ("--master-addr=127.0.0.1", f"--master-port={free_port()}")
    agent = ["-m", "torch.distributed.run", f"--nproc-per-node={PROCESSES}", "--max-restarts=3"]
    command = ["experiment.train", f"run_dir=runs/{run}", "resume=auto", *SMALL, *settings]
    process = subprocess.Popen(
        [str(VENV / "bin/python"), *agent, *place, "-m", *command],
        cwd=project.path,
        env=clean_environ(OMP_NUM_THREADS="1"),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            kill(process)


def children_of(process: subprocess.Popen[str]) -> list[int]:
    return [*map(int, Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split())]


def starts(run: Path) -> int:
    """How often a training in this folder has begun: each time leaves a line."""
    return len((run / "command.txt").read_text().splitlines())


@pytest.mark.parametrize(("mode", "child"), [("shards", 2), ("ddp", 0), ("fsdp", 1)])
def test_a_killed_process_is_started_again_with_the_bits_of_an_uninterrupted_training(
    many: Project, mode: str, child: int
) -> None:
    settings = (*MODES[mode], "training.max_steps=50", "output.keep_checkpoints=99")
    whole = many.path / "runs" / mode
    done = many.processes(PROCESSES, "experiment.train", f"run_dir={whole}", *SMALL, *settings)
    assert done.returncode == 0, done.stderr
    name = f"{mode}-killed" if child else f"static-{mode}"
    run = many.path / "runs" / name
    with torchrun(many, name, *settings) as process:
        wait_for_steps(run, 6, process)
        os.kill(children_of(process)[child], signal.SIGKILL)
        log, _ = process.communicate(timeout=HANGS)
    assert process.returncode == 0, log
    assert re.search(r"\nresuming after step [1-9]\d*\n", log), log
    assert starts(run) == 2
    assert contents(run) == contents(whole)
    assert not [*run.glob(".*.json")]


@pytest.mark.parametrize("mode", ["ddp", "fsdp"])
def test_a_checkpoint_after_an_evaluation_changes_no_step(many: Project, mode: str) -> None:
    """Otherwise whoever goes on from it has other bits than the training that went on by itself."""
    metrics = []
    for every in (1, 1000):
        run = f"runs/{mode}-every-{every}"
        settings = (*SMALL, *MODES[mode], "evaluation.every=1", "training.max_steps=14")
        every_one = ("optimizer.learning_rate=0.05", f"output.checkpoint_every={every}")
        done = many.processes(4, "experiment.train", f"run_dir={run}", *settings, *every_one)
        assert done.returncode == 0, done.stderr
        metrics.append((many.path / run / "metrics.jsonl").read_bytes())
    lines = map(json.loads, metrics[0].splitlines())
    found = [line["accuracy"] for line in lines if "split" in line]
    assert found != sorted({*found})  # some were not the best, so no checkpoint was due
    assert metrics[0] == metrics[1]


@pytest.mark.parametrize("mode", ["shards", "fsdp"])
def test_sigterm_to_one_process_ends_all_after_the_same_step_without_another_start(
    many: Project, mode: str
) -> None:
    run = many.path / "runs" / f"{mode}-asked"
    with torchrun(many, run.name, *MODES[mode], "training.max_steps=4000") as process:
        wait_for_steps(run, 6, process)
        os.kill(children_of(process)[1], signal.SIGTERM)
        log, _ = process.communicate(timeout=HANGS)
    assert process.returncode == 1, log  # torchrun's code for whatever is no whole training
    saved = re.findall(r"SIGTERM: saved after step (\d+): ", log)
    assert len(saved) == 1, log
    assert (run / "interrupted").read_text().startswith(f"SIGTERM after step {saved[0]}: ")
    newest = max(path.name for path in (run / "checkpoints").glob("step-*"))
    assert newest == f"step-{int(saved[0]):09d}"
    assert starts(run) == 1
    assert "has ended this training" not in log
    assert not [*run.glob(".*.json")]


def test_a_step_that_fails_in_two_starts_ends_the_job_with_a_line(many: Project) -> None:
    project = many.copy(many.path.parent / "fails")
    project.edit("experiment/task.py", "    def loss(", FAILS)
    with torchrun(project, "fails", *MODES["shards"]) as process:
        log, _ = process.communicate(timeout=HANGS)
    assert process.returncode == 1, log
    (line,) = [line for line in log.splitlines() if "in two starts" in line]
    assert "step 7 failed in two starts, one after the other (no sample 1234)" in line
    assert starts(project.path / "runs/fails") == 2


def test_a_restart_that_finds_the_marker_of_an_asked_for_end_does_not_train(many: Project) -> None:
    settings = ("run_dir=runs/found", "resume=auto", *SMALL, *MODES["shards"])
    done = many.processes(4, "experiment.train", *settings, "training.max_steps=4")
    assert done.returncode == 0, done.stderr
    run = many.path / "runs" / "found"
    (run / "interrupted").write_text("SIGTERM after step 4: go on with resume=auto\n")
    # The agents of several nodes count by themselves: one process that was told of it is enough.
    done = many.processes(4, "experiment.train", *settings, TORCHELASTIC_RESTART_COUNT="1")
    assert done.returncode == 75, done.stderr
    (line,) = done.stdout.splitlines()
    assert line.startswith("SIGTERM has ended this training, so torchrun does not start it again: ")
    assert line.endswith("step-000000004")
    assert starts(run) == 1
    done = many.processes(4, "experiment.train", *settings, "training.max_steps=6")
    assert "resuming after step 4\n" in done.stdout, done.stderr
    assert not (run / "interrupted").exists()


@pytest.fixture
def failing(own_project: Project) -> Project:
    own_project.edit("experiment/task.py", "    def loss(", FAILS)
    return own_project


IN_SLURM = {"SLURM_JOB_ID": "1"}
REQUEUED = {**IN_SLURM, "SLURM_RESTART_COUNT": "1"}


def train(project: Project, *settings: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Go on in runs/one; step 7 fails."""
    return project.train("run_dir=runs/one", "resume=auto", *SMALL, *settings, **variables)


def test_a_requeued_job_is_not_tried_a_third_time_but_by_hand_it_is(failing: Project) -> None:
    for variables in (IN_SLURM, REQUEUED):
        assert "ValueError: no sample 1234" in train(failing, **variables).stderr
    (line,) = faults(train(failing, **REQUEUED))
    assert ": step 7 failed in two starts, one after the other (no sample 1234): it is not" in line
    (again,) = faults(train(failing, **REQUEUED))  # and so does whoever requeues it once more
    assert again == line
    # A new job, and no job at all, begin a new count; the second one keeps none.
    for variables in (IN_SLURM, REQUEUED, {}):
        assert "ValueError: no sample 1234" in train(failing, **variables).stderr
    assert not [*(failing.path / "runs/one").glob(".*.json")]
    failing.edit("experiment/task.py", "step.number == 7", "step.number == 1007")
    done = train(failing, "resume_changed_code=true", "training.max_steps=9", **REQUEUED)
    assert done.returncode == 0, done.stderr
    assert not [*(failing.path / "runs/one").glob(".*.json")]


def test_kills_at_different_steps_and_asked_for_ends_stop_no_job(failing: Project) -> None:
    """What is counted is that a step fails again, whoever was killed before it."""
    train(failing, **IN_SLURM)
    attempts, failure = (
        failing.path / f"runs/one/.{name}.json" for name in ("attempts", "failure")
    )
    assert json.loads(attempts.read_text()) == {"reached": 6, "before": None}
    assert json.loads(failure.read_text()) == {"reached": 6, "why": "no sample 1234"}
    attempts.write_text(json.dumps({"reached": 5, "before": 6}))  # as a kill leaves it
    failure.unlink()
    assert "ValueError: no sample 1234" in train(failing, **REQUEUED).stderr
    assert json.loads(attempts.read_text())["before"] == 5
    done = train(failing, "training.max_steps=6", **REQUEUED)  # an end in good order
    assert done.returncode == 0, done.stderr
    assert not attempts.exists()
    assert not failure.exists()
    assert "ValueError: no sample 1234" in train(failing, **REQUEUED).stderr
    assert json.loads(attempts.read_text())["before"] is None
