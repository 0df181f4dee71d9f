"""./verify.sh as a reviewer starts it: in a container with Python and nothing else of ours.

The base stands in for a reviewer's machine (engine.py); sh is Debian's dash. The packages come from
the index that pip knows there, once; the second start has no network.
"""

import os
import subprocess
from pathlib import Path

import pytest
from conftest import HANGS, Project, last_line, open_to_all
from engine import BASE, Engine

IMAGE = "repro-stand-in-reviewer"
DOCKERFILE = f"""
FROM {BASE}
RUN apt-get update && apt-get install --yes --no-install-recommends python3 python3-venv
"""
REVIEWER = 12345  # who has no name and no home there


@pytest.fixture(scope="module")
def reviewer(engine: Engine) -> Engine:
    """An engine that has a machine with Python, and without make and git."""
    built = engine.docker("build", "--network", "host", "--tag", IMAGE, "-", input=DOCKERFILE)
    assert built.returncode == 0, built.stderr[-3000:]
    words = ("run", "--rm", IMAGE, "sh", "-c", "command -v make git; readlink /bin/sh")
    assert engine.docker(*words).stdout.split() == ["dash"]
    return engine


def start(
    engine: Engine, archive: Path, scratch: Path, network: str, *words: str
) -> subprocess.CompletedProcess[str]:
    """Start verify.sh in a folder that cannot be written, as a user who may write to one folder."""
    place = "/review/an archive"
    options = ["--rm", "--init", "--network", network, "--hostname", "localhost", "--read-only"]
    options += ["--user", f"{REVIEWER}:{REVIEWER}", "--shm-size", "8g", "--env", "TMPDIR=/scratch"]
    options += ["--volume", f"{archive}:{place}:ro", "--volume", f"{scratch}:/scratch"]
    return engine.docker("run", *options, IMAGE, "sh", f"{place}/verify.sh", *words, timeout=HANGS)


def test_without_make_and_git_in_a_read_only_folder_it_gives_identical(
    reviewer: Engine, recorded: Project, tmp_path: Path
) -> None:
    packed = tmp_path / "archive.zip"
    done = recorded.module("repro", "archive", "--output", str(packed))
    assert done.returncode == 0, done.stderr
    subprocess.run(["unzip", "-q", packed, "-d", tmp_path / "a path"], check=True)
    (archive,) = (tmp_path / "a path").iterdir()
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    os.chown(scratch, REVIEWER, REVIEWER)
    open_to_all(scratch)

    done = start(reviewer, archive, scratch, "none", "--quick")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "no package index was reached: the network is needed once" in line

    done = start(reviewer, archive, scratch, "host", "--quick", "--markdown")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith(
        "**PREFIX AGREES (3 of 3 steps; the value was not evaluated)**: A short training\n"
    )
    assert "once:\n     up to 3 GB to download, 7 GB of disk, 5 to 15 minutes;\n" in done.stderr
    assert "IDENTICAL" not in done.stdout + done.stderr

    done = start(reviewer, archive, scratch, "none", "--clean")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "if it is up to date;\n" in done.stdout
    assert last_line(done.stdout) == "IDENTICAL"
    assert list(scratch.glob("verify-*")) == []
