"""A real Docker engine for the tests of the image, and a base that stands in for the registry's.

The engine that answers is taken; where none does and this is root, Debian's own is started with its
data below .build/engine and stopped at the end. The base image stays there, as an environment does.
It is a minimal Debian that debootstrap makes, because no registry can be counted on; it trusts the
certificates that this machine trusts. Tests that run side by side share the engine; the last one
stops it.
"""

import fcntl
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from conftest import HANGS, ROOT, clean_environ

HOME = ROOT / ".build" / "engine"
BASE = "repro-stand-in-base:bookworm"
SOCKET = HOME / "docker.sock"
NEEDED = 16  # GB of disk
OWN = {"DOCKER_HOST": f"unix://{SOCKET}"}


@dataclass(frozen=True)
class Engine:
    """A client that can build, and the variables that lead it to its engine."""

    client: str
    variables: dict[str, str]

    def docker(self, *words: str, **options: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(  # type: ignore[call-overload, no-any-return]
            [self.client, *words],
            env=clean_environ(**self.variables),
            capture_output=True,
            text=True,
            **options,
        )

    def forget(self, *images: str) -> None:
        """Remove images that a test built, and what the tests' own engine kept of the builds.

        Another engine is somebody's: what that kept stays.
        """
        self.docker("image", "rm", "--force", *images)
        if self.variables.items() >= OWN.items():
            self.docker("image", "prune", "--force")  # those whose names newer ones took
            self.docker("builder", "prune", "--all", "--force")


class NoEngine(Exception):
    """Why there is none."""


@contextmanager
def running_engine() -> Iterator[Engine]:
    """An engine with the base image in it; NoEngine says why there is none."""
    HOME.mkdir(parents=True, exist_ok=True)
    with (HOME / "users").open("a") as users:
        with _one_at_a_time():
            engine = _find({}) or _find(OWN) or _start()
            fcntl.flock(users, fcntl.LOCK_SH)
            if engine.docker("image", "inspect", BASE).returncode:
                _import_base(engine)
        try:
            yield engine
        finally:
            with _one_at_a_time(), suppress(BlockingIOError):
                fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)  # not while others use it
                if engine.variables.items() >= OWN.items():
                    _stop()


@contextmanager
def _one_at_a_time() -> Iterator[None]:
    """Of all processes that start or stop the engine."""
    with (HOME / "lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _start() -> Engine:
    if not shutil.which("dockerd") or os.geteuid() != 0:
        raise NoEngine("no Docker engine answers, and none can be started (docker.io, root)")
    free = shutil.disk_usage(HOME).free / 1e9
    if free < NEEDED:
        raise NoEngine(
            f"{free:.0f} GB are free in {HOME}, and its images need {NEEDED} for a while"
        )
    for left in (HOME / "pid", SOCKET):
        left.unlink(missing_ok=True)
    with (HOME / "log").open("w") as log:
        started = subprocess.Popen(
            [
                "dockerd",
                "--bridge=none",
                "--iptables=false",
                "--ip6tables=false",
                f"--data-root={HOME / 'data'}",
                f"--exec-root={HOME / 'exec'}",
                f"--pidfile={HOME / 'pid'}",
                f"--host=unix://{SOCKET}",
            ],
            stdout=log,
            stderr=log,
            start_new_session=True,  # Ctrl-C is for the tests, which stop it
        )
    deadline = time.monotonic() + HANGS
    while (engine := _find(OWN)) is None:
        if started.poll() is not None or time.monotonic() > deadline:
            started.terminate()
            raise NoEngine(f"dockerd did not start: {HOME / 'log'}")
        time.sleep(0.5)
    return engine


def _stop() -> None:
    """Another process may have started it."""
    pid = int((HOME / "pid").read_text())
    os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + HANGS
    while SOCKET.exists() and time.monotonic() < deadline:  # it takes its socket away at the end
        time.sleep(0.1)


def _find(variables: dict[str, str]) -> Engine | None:
    """A client that builds with BuildKit, in an engine that answers."""
    variables = {**variables, "DOCKER_BUILDKIT": "1"}
    for folder in os.environ["PATH"].split(os.pathsep):
        client = Path(folder) / "docker"
        if not os.access(client, os.X_OK):
            continue
        engine = Engine(str(client), variables)
        built = engine.docker("build", "--quiet", "-", input="FROM scratch\nLABEL a=b\n")
        if built.returncode == 0:
            return engine
    return None


def _import_base(engine: Engine) -> None:
    root = HOME / "root"
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    done = subprocess.run(
        ["debootstrap", "--variant=minbase", "bookworm", root], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr
    trusted, share = Path("/etc/ssl/certs/ca-certificates.crt"), root / "usr/local/share"
    if trusted.is_file():
        shutil.copy(trusted, share / "machine.pem")
        (root / "etc/pip.conf").write_text("[global]\ncert = /usr/local/share/machine.pem\n")
    shutil.rmtree(root / "var/lib/apt/lists")
    with subprocess.Popen(["tar", "-C", root, "-c", "."], stdout=subprocess.PIPE) as archive:
        done = engine.docker("import", "-", BASE, stdin=archive.stdout)
    assert done.returncode == 0, done.stderr
    shutil.rmtree(root)
