"""slurm/train.sbatch on a real Slurm cluster of two nodes on this machine (cluster.py)."""

import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from background import contents, steps_of
from cluster import Cluster, NoCluster, running_cluster
from conftest import HANGS, VENV, Project, clean_environ, free_port, generate, or_skip

# No checkpoint but those that a signal asks for, and the last one. Two shards: two processes.
SETTINGS = ("model.width=8", "training.shards=2", "output.log_every=1")
SETTINGS = (*SETTINGS, "output.checkpoint_every=1000", "training.max_steps=160")
FOUR = ("seed=3", *SETTINGS, "training.shards=4")
MODES = {"shards": FOUR}
MODES |= {mode: (*FOUR, f"training.parallel={mode}") for mode in ("ddp", "fsdp")}
ON_FOUR = ("--nodes=2", "--exclusive", "--")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with or_skip(running_cluster(tmp_path_factory.mktemp("cluster")), NoCluster) as found:
        yield found


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Project:
    many = generate(tmp_path_factory.mktemp("many"), "scale=many")
    return many.copy(tmp_path_factory.mktemp("study") / many.path.name)


@pytest.fixture(scope="module")
def uninterrupted(study: Project) -> dict[str, bytes]:
    """The files of one process without Slurm, seed 3."""
    done = study.train("run_dir=runs/uninterrupted", "seed=3", *SETTINGS)
    assert done.returncode == 0, done.stderr
    return last_state(study.path / "runs/uninterrupted")


def last_state(run: Path) -> dict[str, bytes]:
    """Metrics, trace and the last checkpoint: what must be the same after an interruption."""
    step = sorted((run / "checkpoints").glob("step-*"))[-1].name
    return {k: v for k, v in contents(run).items() if "step-" not in k or step in k}


def submit(cluster: Cluster, project: Project, *words: str, **variables: str) -> str:
    """Submit slurm/train.sbatch; the words before `--` are sbatch's."""
    options, settings = words[: words.index("--")], words[words.index("--") + 1 :]
    command = ["sbatch", "--parsable", *options, "slurm/train.sbatch", *settings]
    return cluster.call(*command, cwd=project.path, VENV=str(VENV), **variables).strip()


def wait_for_steps(cluster: Cluster, project: Project, job: str, run: Path) -> None:
    """Until a job has trained for two steps."""
    while steps_of(run) < 2:
        assert cluster.job(job)["JobState"] in ("PENDING", "RUNNING"), log_of(project, job)
        time.sleep(0.02)


def preempt(cluster: Cluster) -> None:
    """Run a job that needs all nodes at once."""
    urgent = ("--partition=urgent", "--nodes=2", "--exclusive", "--output=/dev/null")
    job = cluster.call("sbatch", "--parsable", *urgent, "--wrap=true").strip()
    cluster.wait(job, "COMPLETED")


def log_of(project: Project, job: str) -> str:
    return (project.path / f"slurm-{job}.out").read_text()


def given_way(cluster: Cluster, study: Project, job: str) -> tuple[Path, str]:
    """Preempt a job on two nodes, which is queued again and ends well: its run and its log."""
    run = study.path / "runs/slurm" / job
    wait_for_steps(cluster, study, job, run)
    preempt(cluster)
    found = cluster.wait(job, "COMPLETED", "FAILED")
    log = log_of(study, job)
    assert (found["JobState"], found["Restarts"], found["NumNodes"]) == ("COMPLETED", "1", "2"), log
    return run, log


def test_a_job_on_two_nodes_that_gives_way_goes_on_with_the_bits_of_one_process(
    cluster: Cluster, study: Project, uninterrupted: dict[str, bytes]
) -> None:
    """Slurm preempts it: it warns by USR1, as it does before a time limit."""
    job = submit(cluster, study, "--nodes=2", "--exclusive", "--", "seed=3", *SETTINGS)
    run, log = given_way(cluster, study, job)
    # Both starts are in the log.
    saved = re.search(r"SIGTERM: saved after step (\d+)", log)
    assert saved, log
    assert f"resuming after step {saved[1]}\n" in log
    assert 2 <= int(saved[1]) < 160
    assert last_state(run) == uninterrupted
    assert not (run / "interrupted").exists()


def whole(study: Project, mode: str) -> dict[str, bytes]:
    """The files of four processes without Slurm, which nothing has stopped."""
    run = study.path / "runs" / f"whole-{mode}"
    if not run.exists():
        number = () if mode == "shards" else ("training.processes=4",)
        settings = (f"run_dir={run}", *MODES[mode], *number)
        done = study.processes(4, "experiment.train", *settings)
        assert done.returncode == 0, done.stderr
    return last_state(run)


@pytest.mark.parametrize("mode", MODES)
def test_four_processes_on_two_nodes_that_give_way_go_on_with_the_same_bits(
    cluster: Cluster, study: Project, mode: str
) -> None:
    """Those of ddp are told their number, on which its bits depend."""
    job = submit(cluster, study, *ON_FOUR, *MODES[mode], PROCESSES_PER_NODE="2")
    run, log = given_way(cluster, study, job)
    assert re.search(r"resuming after step \d+\n", log), log
    found, expected = last_state(run), whole(study, mode)
    assert [*found] == [*expected]
    # The header of a trace tells how many processes a node has: of ddp that is a condition.
    lines = [files.pop("trace.jsonl").splitlines() for files in (found, expected)]
    assert lines[0][1:] == lines[1][1:]
    assert (lines[0][0] == lines[1][0]) == (mode == "shards")
    assert found == expected
    assert "processes: 4" in (run / "config_used.yaml").read_text() or mode == "shards"
    assert not [*run.glob(".*.json"), *run.glob("interrupted")]


def processes_of(job: str, node: int) -> list[int]:
    """All that Slurm runs of a job on a node, by number; not its own daemon there."""
    wanted = {f"SLURM_JOB_ID={job}".encode(), f"SLURM_NODEID={node}".encode()}
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if wanted < {*(place / "environ").read_bytes().split(b"\0")}:
                found.append(int(place.name))
    return found


@pytest.mark.parametrize("mode", MODES)
def test_a_node_that_dies_ends_the_job_in_a_line_and_a_new_one_goes_on(
    cluster: Cluster, study: Project, mode: str
) -> None:
    """All of the job on the second node is killed at once. The others wait for a minute at most."""
    settings = (*MODES[mode], "output.checkpoint_every=5", "output.keep_checkpoints=99")
    job = submit(cluster, study, *ON_FOUR, *settings, PROCESSES_PER_NODE="2")
    run = study.path / "runs/slurm" / job
    while not (run / "checkpoints/step-000000005").exists():
        assert cluster.job(job)["JobState"] in ("PENDING", "RUNNING"), log_of(study, job)
        time.sleep(0.02)
    there = processes_of(job, 1)
    assert len(there) >= 3, there  # torchrun and its two
    for process in there:
        with suppress(ProcessLookupError):  # those that torchrun took along
            os.kill(process, signal.SIGKILL)
    found = cluster.wait(job, "COMPLETED", "FAILED")
    log = log_of(study, job)
    assert (found["JobState"], found["Restarts"]) == ("FAILED", "0"), log
    assert "error: another process of this training ended" in log
    assert not (run / "interrupted").exists()
    new = submit(
        cluster, study, *ON_FOUR, *settings, f"run_dir=runs/slurm/{job}", PROCESSES_PER_NODE="2"
    )
    found = cluster.wait(new, "COMPLETED", "FAILED")
    log = log_of(study, new)
    assert found["JobState"] == "COMPLETED", log
    assert re.search(r"resuming after step \d+\n", log), log
    expected = whole(study, mode)
    weights = f"checkpoints/step-{160:09d}/tensors.safetensors"
    for name in ("metrics.jsonl", weights):
        assert last_state(run)[name] == expected[name]


def test_a_job_that_is_preempted_before_its_first_step_starts_again(
    cluster: Cluster, study: Project
) -> None:
    """There is nothing to save; Slurm requeues it."""
    job = submit(cluster, study, "--partition=hasty", "--", *SETTINGS, "training.max_steps=2")
    while f"{job}.0 " not in cluster.call("squeue", "--steps", "--noheader"):
        assert cluster.job(job)["JobState"] in ("PENDING", "RUNNING"), log_of(study, job)
    preempt(cluster)
    found = cluster.wait(job, "COMPLETED", "FAILED")
    log = log_of(study, job)
    assert (found["JobState"], found["Restarts"]) == ("COMPLETED", "1"), log
    assert "resuming" not in log


def test_each_seed_of_an_array_has_its_run_and_is_requeued_alone(
    cluster: Cluster, study: Project, uninterrupted: dict[str, bytes]
) -> None:
    """Slurm gives the last task of an array the id of the whole array."""
    array = submit(cluster, study, "--array=0,3", "--", *SETTINGS, "run_dir=runs/study")
    runs = {seed: study.path / f"runs/study/seed{seed}" for seed in (0, 3)}
    wait_for_steps(cluster, study, f"{array}_3", runs[3])
    cluster.call("scancel", "--batch", "--signal=USR1", f"{array}_3")
    for seed, restarts in ((0, "0"), (3, "1")):
        found = cluster.wait(f"{array}_{seed}", "COMPLETED", "FAILED")
        log = log_of(study, f"{array}_{seed}")
        assert (found["JobState"], found["Restarts"]) == ("COMPLETED", restarts), log
        assert ("resuming after step" in log) == (seed == 3)
        assert f"\nseed: {seed}\n" in (runs[seed] / "config_used.yaml").read_text()
    assert last_state(runs[3]) == uninterrupted
    assert last_state(runs[0]) != uninterrupted


def test_a_job_that_fails_is_reported_failed_and_settings_are_only_text(
    cluster: Cluster, study: Project
) -> None:
    """torchrun turns the exit code 2 into 1."""
    settings = ("training.epochs=many", "name=$(touch evaluated); *")
    one = submit(cluster, study, "--", *settings)
    two = submit(cluster, study, "--", *settings, PROCESSES_PER_NODE="2")
    for job, code in ((one, "2:0"), (two, "1:0")):
        found = cluster.wait(job, "COMPLETED", "FAILED")
        assert (found["JobState"], found["ExitCode"]) == ("FAILED", code)
        log = log_of(study, job)
        lines = [line for line in log.splitlines() if line.startswith("error: ")]
        assert any("training.epochs=many" in line for line in lines), log
        assert any("name=$(touch evaluated); *" in line for line in lines), log
        assert not (study.path / "runs/slurm" / job).exists()
    assert not (study.path / "evaluated").exists()


def test_a_job_from_another_folder_is_told_where_to_go(
    cluster: Cluster, study: Project, tmp_path: Path
) -> None:
    script = study.path / "slurm/train.sbatch"
    job = cluster.call("sbatch", "--parsable", script, cwd=tmp_path).strip()
    found = cluster.wait(job, "COMPLETED", "FAILED")
    assert (found["JobState"], found["ExitCode"]) == ("FAILED", "2:0")
    (line,) = (tmp_path / f"slurm-{job}.out").read_text().splitlines()
    assert line.startswith(f"error: no .venv/bin/python in {tmp_path}: submit from the project")
    assert not (tmp_path / "runs").exists()


def test_a_cancelled_job_saves_stays_cancelled_and_a_new_one_goes_on(
    cluster: Cluster, study: Project, uninterrupted: dict[str, bytes]
) -> None:
    job = submit(cluster, study, "--", "seed=3", *SETTINGS)
    run = study.path / "runs/slurm" / job
    wait_for_steps(cluster, study, job, run)
    cluster.call("scancel", job)
    found = cluster.wait(job, "CANCELLED", "COMPLETED", "FAILED", "PENDING")
    assert (found["JobState"], found["Restarts"]) == ("CANCELLED", "0"), log_of(study, job)
    assert (run / "interrupted").is_file()
    # The mark of that interruption requeues no job that fails.
    other = submit(cluster, study, "--", "seed=4", *SETTINGS, f"run_dir=runs/slurm/{job}")
    found = cluster.wait(other, "FAILED")
    assert (found["JobState"], found["Restarts"]) == ("FAILED", "0"), log_of(study, other)
    assert "was trained with other settings" in log_of(study, other)
    settings = ("seed=3", *SETTINGS, f"run_dir=runs/slurm/{job}")
    new = submit(cluster, study, "--", *settings, PROCESSES_PER_NODE="2")
    assert cluster.wait(new, "COMPLETED", "FAILED")["JobState"] == "COMPLETED"
    assert "resuming after step" in log_of(study, new)
    assert last_state(run) == uninterrupted
    assert cluster.job(job)["JobState"] == "CANCELLED"


def test_two_torchrun_agents_give_the_bits_of_one_process(
    study: Project, uninterrupted: dict[str, bytes]
) -> None:
    """As on two machines, without Slurm; each agent has one process."""
    agents = two_agents(study, 1, "run_dir=runs/agents", "seed=3", *SETTINGS)
    for process in agents:
        _, error = process.communicate(timeout=HANGS)
        assert process.returncode == 0, error
    assert last_state(study.path / "runs/agents") == uninterrupted


def two_agents(study: Project, each: int, *settings: str) -> list[subprocess.Popen[bytes]]:
    port = free_port()
    agent = [str(VENV / "bin/python"), "-m", "torch.distributed.run", "--nnodes=2"]
    agent += [f"--nproc-per-node={each}", "--rdzv-backend=c10d", "--rdzv-id=two"]
    agent += [f"--rdzv-endpoint=127.0.0.1:{port}", "--local-addr=127.0.0.1", "--max-restarts=3"]
    agent += ["-m", "experiment.train", *settings]
    return [
        subprocess.Popen(agent, cwd=study.path, env=clean_environ(), stderr=subprocess.PIPE)
        for _ in range(2)
    ]


def test_agents_that_start_again_give_the_bits_of_an_uninterrupted_training(study: Project) -> None:
    """The agent whose process was killed starts its own again, and the other one follows."""
    run = study.path / "runs/again"
    settings = (*MODES["shards"], "output.checkpoint_every=10", "resume=auto", f"run_dir={run}")
    agents = two_agents(study, 2, *settings)
    while not (run / "checkpoints/step-000000010").exists():
        assert all(agent.poll() is None for agent in agents)
        time.sleep(0.02)
    of_one = Path(f"/proc/{agents[1].pid}/task/{agents[1].pid}/children").read_text().split()
    os.kill(int(of_one[0]), signal.SIGKILL)
    for process in agents:
        _, error = process.communicate(timeout=HANGS)
        assert process.returncode == 0, error
    expected = whole(study, "shards")
    found = last_state(run)
    weights = f"checkpoints/step-{160:09d}/tensors.safetensors"
    for name in ("metrics.jsonl", "trace.jsonl", weights):
        assert found[name] == expected[name]
    assert (run / "command.txt").read_text().count("\n") == 2
