"""A real Slurm cluster on loopback: two nodes on this machine, from Debian's packages.

Keys, sockets, ports, state and logs are its own, in a folder that the caller gives. Needs root.
Jobs of the partition `urgent` take the place of those in the others, which are warned, and requeued
when their grace is over: 60 seconds in `all`, 5 in `hasty`.
"""

import os
import random
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from conftest import HANGS, clean_environ, free_port

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch")
NODES = ("one", "two")

# cred_expire: how long a requeued job waits before it starts again (120 s unless set).
# config_overrides: the nodes have as many CPUs as the tests need, whatever this machine has.
CONFIG = """
ClusterName=test
FirstJobId={first}
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser=root
SlurmdUser=root
AuthInfo=socket={folder}/munge.socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/%n.log
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
SchedulerParameters=bf_interval=1,sched_interval=1
KillWait=5
NodeName=one NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=4 State=UNKNOWN
NodeName=two NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=4 State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES PriorityTier=1 GraceTime=60
PartitionName=hasty Nodes=ALL PriorityTier=1 GraceTime=5
PartitionName=urgent Nodes=ALL PriorityTier=2
"""


class NoCluster(Exception):
    """Why there is none."""


@dataclass(frozen=True)
class Cluster:
    """Slurm's commands, led to this cluster."""

    folder: Path

    def call(self, *words: object, cwd: Path | None = None, **variables: str) -> str:
        """Run a command of Slurm's that must succeed; its output."""
        done = subprocess.run(
            [str(word) for word in words],
            cwd=cwd,
            env=clean_environ(SLURM_CONF=str(self.folder / "slurm.conf"), **variables),
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, (words, done.stdout, done.stderr)
        return done.stdout

    def job(self, number: str) -> dict[str, str]:
        """What Slurm knows of a job: JobState, ExitCode, Restarts and more."""
        words = self.call("scontrol", "--oneliner", "show", "job", number).split()
        return dict(word.split("=", 1) for word in words if "=" in word)

    def wait(self, number: str, *states: str, seconds: float = HANGS) -> dict[str, str]:
        """Until a job is in one of these states."""
        deadline = time.monotonic() + seconds
        while (job := self.job(number))["JobState"] not in states:
            assert time.monotonic() < deadline, f"job {number} hangs: {job}, not {states}"
            time.sleep(0.1)
        return job


@contextmanager
def running_cluster(folder: Path) -> Iterator[Cluster]:
    """A cluster whose nodes are idle; NoCluster says why there is none."""
    if os.geteuid() != 0 or not all(map(shutil.which, PROGRAMS)):
        raise NoCluster("needs root and Debian's slurmctld, slurmd, slurm-client and munge")
    (folder / "munge.key").write_bytes(os.urandom(64))
    (folder / "munge.key").chmod(0o400)
    (folder / "state").mkdir()
    host = socket.gethostname().split(".")[0]
    ports = [free_port() for _ in range(1 + len(NODES))]
    # A job's number is that of its torchrun's port: clusters of two copies of the tests differ.
    text = CONFIG.format(folder=folder, host=host, ports=ports, first=random.randrange(1, 9000))
    (folder / "slurm.conf").write_text(text)
    cluster = Cluster(folder)
    munged = ["munged", "--foreground", "--force", f"--key-file={folder / 'munge.key'}"]
    munged += [f"--{name}-file={folder / ('munge.' + name)}" for name in ("log", "pid", "seed")]
    munged += [f"--socket={folder / 'munge.socket'}"]
    daemons = [munged, ["slurmctld", "-D"], *(["slurmd", "-D", "-N", node] for node in NODES)]
    with ExitStack() as stack, (folder / "output.log").open("w") as log:
        for command in daemons:
            daemon = subprocess.Popen(
                command,
                env=clean_environ(SLURM_CONF=str(folder / "slurm.conf")),
                stdout=log,
                stderr=log,
            )
            stack.callback(daemon.wait)
            stack.callback(daemon.terminate)
        _wait_until_idle(cluster)
        try:
            yield cluster
        finally:
            cluster.call("scancel", "--user=root")
            _wait_until_idle(cluster)


def _wait_until_idle(cluster: Cluster) -> None:
    deadline = time.monotonic() + HANGS
    while time.monotonic() < deadline:
        try:
            if set(cluster.call("sinfo", "--noheader", "--format=%T").split()) == {"idle"}:
                return
        except AssertionError:
            pass  # the controller does not answer yet
        time.sleep(0.2)
    raise AssertionError(f"the cluster is not idle: {cluster.folder}")
