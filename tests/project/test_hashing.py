"""How often a command hashes each file of data and of code: once, by all of its processes."""

import json
import os
import time
from pathlib import Path

import pytest
from conftest import CLAIMS, Project, commit, faults, generate
from hash_counts import Counts, counted, training
from repro.core.hashing import sha256_json
from repro.data.file_systems import untrusted_kind

PREPARED = "data/digits/prepared/data.safetensors"
CACHE = "data/digits/.digests.json"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project in a repository, with its data, older than the tick of a file system."""
    project = generate(tmp_path_factory.mktemp("hashing"))
    (project.path / "configs" / "claims.yaml").write_text(CLAIMS)
    done = project.run("git", "init", "--quiet")
    assert done.returncode == 0, done.stderr
    commit(project)
    done = project.module("experiment.prepare")
    assert done.returncode == 0, done.stderr
    time.sleep(2.1)
    return project


def once(counts: Counts) -> bool:
    """Whether each file of code was hashed once."""
    return "repro/core/hashing.py" in counts.code and {*counts.code.values()} == {1}


def test_data_that_are_prepared_are_hashed_once(own_project: Project, tmp_path: Path) -> None:
    counts, done = counted(own_project, tmp_path, *training(1))
    assert done.returncode == 0, done.stderr
    assert [*counts.data.values()] == [1]
    assert once(counts)


@pytest.mark.parametrize("processes", [1, 2])
def test_all_processes_of_a_training_hash_each_file_once(
    trained: Project, tmp_path: Path, processes: int
) -> None:
    (trained.path / CACHE).unlink(missing_ok=True)
    counts, done = counted(trained, tmp_path, *training(processes))
    assert done.returncode == 0, done.stderr
    assert counts.data == {PREPARED: 1}
    assert once(counts)
    if kind := untrusted_kind(trained.path):
        assert f"is on {kind}, where a change need not show" in done.stdout
        return
    counts, done = counted(trained, tmp_path, *training(processes))
    assert done.returncode == 0, done.stderr
    assert counts.data == {}  # by the cache
    assert once(counts)


def forge(project: Project, digest: str) -> None:
    """Let the cache say that the file of data, as it is now, has that digest."""
    path = project.path / CACHE
    state = (project.path / PREPARED).stat()
    now = [state.st_mtime_ns, state.st_ctime_ns, time.time_ns()]
    rows = [[state.st_dev, state.st_ino, state.st_size, *now, digest]]
    content = {"boot": json.loads(path.read_text())["boot"], "files": rows}
    path.write_text(json.dumps({**content, "sha256": sha256_json(content)}))


def change(project: Project) -> bytes:
    """Change a bit of the data, and give the file its old time back; what it was."""
    path = project.path / PREPARED
    whole, before = path.read_bytes(), path.stat()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    return whole


def test_record_and_verify_read_each_file_once_and_trust_no_cache(
    trained: Project, tmp_path: Path
) -> None:
    """They start a command three times, which reads all data and all code."""
    if untrusted_kind(trained.path):
        pytest.skip("without a cache there is none to be trusted")
    for name in ("record", "verify"):
        assert trained.train("training.max_steps=1").returncode == 0
        counts, done = counted(trained, tmp_path, "python", "-m", "repro", name)
        assert done.returncode == 0, done.stderr
        assert counts.data == {PREPARED: 1}
        assert once(counts)
        if name == "record":
            commit(trained)
    manifest = json.loads((trained.path / "data/digits/manifest.json").read_text())
    whole = change(trained)
    time.sleep(2.1)
    forge(trained, manifest["files"]["data.safetensors"])
    assert trained.train("training.max_steps=1").returncode == 0  # so it was forged well
    done = trained.run("python", "-m", "repro", "verify")
    assert done.returncode == 2
    assert f"{PREPARED}: changed, says" in done.stderr
    (trained.path / PREPARED).write_bytes(whole)


def test_a_training_sees_a_change_with_its_time_restored(trained: Project) -> None:
    for _ in range(2):
        assert trained.train("training.max_steps=1").returncode == 0
    whole = change(trained)
    (line,) = faults(trained.train("training.max_steps=1"))
    assert f"{PREPARED}: changed, says" in line
    (trained.path / PREPARED).write_bytes(whole)
    assert trained.train("training.max_steps=1").returncode == 0
