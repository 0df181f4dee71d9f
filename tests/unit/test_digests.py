"""Each file is hashed once, and a digest that is known stands for no file that has changed."""

import json
import mmap
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from conftest import HANGS, TEMPLATE
from repro.core import project, read_once
from repro.core.errors import UserError
from repro.core.hashing import sha256_bytes, sha256_json, sha256_of
from repro.core.read_once import reading_once, shared_memory
from repro.data import digests, known_digests
from repro.data.digests import digests_of
from repro.data.file_systems import untrusted_kind
from repro.data.known_digests import Cache, CommandMemory, FileState, Memory, memory_of_command
from repro.data.manifest import files_below, tree_digests
from repro.publishing.packed_data import tree

OLD, NEW = b"old bytes" * 1000, b"new bytes" * 1000
TICK = 0.1  # seconds, in the place of the two of the kit
TICK_OF_THE_KIT = known_digests.TICK


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a file that is older than a tick."""
    made = tmp_path / "files"
    made.mkdir()
    (made / "one").write_bytes(OLD)
    time.sleep(1.5 * TICK)
    return made


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known_digests, "TICK", int(TICK * 1e9))


@pytest.fixture
def trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The file system of the tests' folder is not the point of most tests."""
    monkeypatch.setattr(known_digests, "untrusted_kind", lambda path: "")


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that are hashed from now on."""
    names: list[str] = []

    def counted(file: Any) -> str:
        names.append(Path(file.name).name)
        return sha256_of(file)

    monkeypatch.setattr(digests, "sha256_of", counted)
    return names


def cached(folder: Path) -> dict[str, str]:
    """What the next training finds, with the cache of the one before."""
    return tree_digests(folder, Cache(folder.parent / ".digests.json"))


def with_its_time(path: Path, change: Callable[[], object]) -> None:
    """Change a file and give it back its time of modification."""
    before = path.stat()
    change()
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size
    assert path.stat().st_mtime_ns == before.st_mtime_ns


def mapped(path: Path, content: bytes) -> mmap.mmap:
    with path.open("r+b") as file:
        pages = mmap.mmap(file.fileno(), 0)
    pages[:] = content
    return pages


def replaced(path: Path) -> None:
    """Put another name of another file in its place, of the same size and time."""
    other, link = path.with_name(".other"), path.with_name(".link")
    other.write_bytes(NEW)
    os.utime(other, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))
    os.link(other, link)
    link.replace(path)


def copied_over(path: Path) -> None:
    other = path.with_name(".other")
    other.write_bytes(NEW)
    os.utime(other, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))
    subprocess.run(["cp", "-p", other, path], check=True)


CHANGES: dict[str, Callable[[Path], object]] = {
    "its mtime is restored": lambda path: with_its_time(path, lambda: path.write_bytes(NEW)),
    "another file is renamed to it by a hard link": replaced,
    "through mmap": lambda path: with_its_time(path, lambda: mapped(path, NEW).flush()),
    "cp -p over it": copied_over,
}


@pytest.mark.usefixtures("trusted")
def test_a_later_training_hashes_nothing_that_has_not_changed(
    folder: Path, hashed: list[str]
) -> None:
    first = cached(folder)
    assert first == {"one": sha256_bytes(OLD)}
    assert hashed == ["one"]
    assert cached(folder) == first
    (folder / "two").write_bytes(NEW)
    time.sleep(1.5 * TICK)
    assert cached(folder) == {"one": sha256_bytes(OLD), "two": sha256_bytes(NEW)}
    assert hashed == ["one", "two"]


@pytest.mark.usefixtures("trusted")
@pytest.mark.parametrize("change", CHANGES)
def test_a_file_that_changed_is_hashed_again(folder: Path, hashed: list[str], change: str) -> None:
    cached(folder)
    CHANGES[change](folder / "one")
    assert cached(folder) == {"one": sha256_bytes(NEW)}
    assert hashed == ["one", "one"]


def test_the_kit_takes_two_seconds_for_a_tick() -> None:
    assert TICK_OF_THE_KIT == 2 * 10**9


@pytest.mark.parametrize("field", FileState._fields)
def test_device_inode_size_and_both_times_have_to_agree(folder: Path, field: str) -> None:
    found = (folder / "one").stat()
    state = FileState.of(found)
    times = (found.st_mtime_ns, found.st_ctime_ns)
    assert state == (found.st_dev, found.st_ino, found.st_size, *times)
    memory = Memory()
    memory.keep(state, known_digests.Hashed(0, "digest"))
    assert memory.find(folder, state) == "digest"
    assert memory.find(folder, state._replace(**{field: getattr(state, field) + 1})) is None


@pytest.mark.usefixtures("trusted")
def test_a_change_within_the_tick_of_the_hashing_is_seen(
    folder: Path, hashed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a file system whose times have so coarse a clock that they tell nothing of the change."""

    def coarse(found: os.stat_result) -> FileState:
        return FileState(found.st_dev, found.st_ino, found.st_size, 0, tick)

    tick = now = 10**18
    monkeypatch.setattr(FileState, "of", coarse)
    monkeypatch.setattr(digests.time, "time_ns", lambda: now)
    assert cached(folder) == {"one": sha256_bytes(OLD)}
    now += int(TICK * 1e9) - 1
    (folder / "one").write_bytes(NEW)  # in the same tick
    assert cached(folder) == {"one": sha256_bytes(NEW)}
    now += 1
    assert cached(folder) == cached(folder)
    assert hashed == ["one"] * 3  # the last one counted: it began after the tick


@pytest.mark.usefixtures("trusted")
def test_a_file_that_changes_while_it_is_hashed_is_not_remembered(
    folder: Path, hashed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def changed_meanwhile(file: Any) -> str:
        digest = sha256_of(file)
        (folder / "one").write_bytes(NEW)
        return digest

    with monkeypatch.context() as patch:
        patch.setattr(digests, "sha256_of", changed_meanwhile)
        assert cached(folder) == {"one": sha256_bytes(OLD)}
    assert cached(folder) == {"one": sha256_bytes(NEW)}


def test_a_page_that_was_changed_before_the_hashing_and_after_it_is_seen(folder: Path) -> None:
    """The second write to a page changes no time, unless it was written out between them."""
    if kind := untrusted_kind(folder):
        pytest.skip(f"{folder} is on {kind}")
    changed = None
    while changed != (folder / "one").stat().st_ctime_ns:  # if the page was written out meanwhile
        pages = mapped(folder / "one", NEW)
        time.sleep(1.5 * TICK)
        changed = (folder / "one").stat().st_ctime_ns
        pages[:] = OLD  # and its time stays: this is the danger
    cached(folder)
    pages[:] = NEW
    assert cached(folder) == {"one": sha256_bytes(NEW)}


@pytest.mark.usefixtures("trusted")
def test_what_cannot_be_written_out_is_not_remembered(
    folder: Path, hashed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(descriptor: int) -> None:
        raise OSError

    monkeypatch.setattr(known_digests, "_write_out", refuse)
    assert cached(folder) == cached(folder)
    assert hashed == ["one", "one"]
    monkeypatch.setattr(known_digests, "_UNWRITTEN", 0)  # an old file needs it no more
    assert cached(folder) == cached(folder)
    assert len(hashed) == 3


@pytest.mark.parametrize("kind", ["tmpfs", "vfat", "nfs4", "fuse.sshfs", "overlay"])
def test_without_a_usable_time_of_change_there_is_no_cache_and_one_line(
    folder: Path,
    hashed: list[str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
) -> None:
    (folder / "two").write_bytes(NEW)
    time.sleep(1.5 * TICK)
    monkeypatch.setattr(known_digests, "untrusted_kind", lambda path: "")
    cached(folder)  # an entry of a trusted disk, whose device number has this one now
    hashed.clear()
    monkeypatch.setattr(known_digests, "untrusted_kind", lambda path: kind)
    assert cached(folder) == cached(folder)
    assert hashed == ["one", "two"] * 2
    told = capsys.readouterr().out.splitlines()
    assert len(told) == 2  # of two trainings
    assert told[0].startswith(f"note: {folder} is on {kind}, where a change need not show")


def test_file_systems_are_known_by_their_mounts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(
        "1 0 8:1 / / rw - ext4 /dev/a rw\n"
        "2 1 0:5 / /my\\040data rw shared:1 - nfs4 server:/ rw\n"
        "3 2 8:2 / /my\\040data/disk rw - xfs /dev/b rw\n"
        "4 1 0:6 / /data rw - ext4 /dev/c rw\n"
        "5 4 0:7 / /data rw - tmpfs none rw\n"
    )
    monkeypatch.setattr("repro.data.file_systems._MOUNTS", mounts)
    kinds = {
        "/a": "",
        "/my data/a": "nfs4",
        "/my data/disk/a": "",
        "/my data/disks/a": "nfs4",
        "/data/a": "tmpfs",  # mounted over the other one
        "/database": "",
    }
    assert {path: untrusted_kind(Path(path)) for path in kinds} == kinds
    mounts.unlink()
    assert untrusted_kind(Path("/a")) == "a file system of unknown kind"


def damages(path: Path) -> Iterator[object]:
    """Spoil a cache in every way, one after the other."""
    whole = json.loads(path.read_text())
    text = path.read_bytes()
    yield path.write_bytes(b"")
    yield path.write_bytes(text[: len(text) // 2])
    yield path.write_bytes(b"[" * 100_000)
    yield path.write_bytes(b"\xff\x00")
    yield path.write_text("[]")
    yield path.write_text("{}")
    other = whole["files"][0][:-1]
    yield path.write_text(json.dumps({**whole, "files": [[*other, "0" * 64]]}))  # a flipped bit
    for rows in ([other], [["a", *other]], [None], {"a": 1}, None, [[{}] * 7]):
        content = {"boot": whole["boot"], "files": rows}
        yield path.write_text(json.dumps({**content, "sha256": sha256_json(content)}))
    content = {"boot": "another", "files": [[*other, "0" * 64]]}  # of another start
    yield path.write_text(json.dumps({**content, "sha256": sha256_json(content)}))
    path.unlink()
    yield os.mkfifo(path)
    path.unlink()
    yield path.symlink_to("nowhere")
    path.unlink()
    yield path.mkdir()


@pytest.mark.usefixtures("trusted")
def test_a_damaged_cache_is_ignored(folder: Path, hashed: list[str]) -> None:
    cached(folder)
    path = folder.parent / ".digests.json"
    for number, _ in enumerate(damages(path)):
        assert cached(folder) == {"one": sha256_bytes(OLD)}
        assert len(hashed) == number + 2
    path.rmdir()
    cached(folder)
    cached(folder)
    assert len(hashed) == number + 3


@pytest.mark.usefixtures("trusted")
def test_a_cache_is_bounded_and_forgets_what_is_gone(
    folder: Path, hashed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(known_digests, "_MOST_FILES", 2)
    for number in range(4):
        (folder / f"{number}").write_bytes(b"a" * (number + 1))
    time.sleep(1.5 * TICK)
    for _ in range(2):
        cached(folder)
    assert sorted(hashed[5:]) == ["0", "1", "2"]  # the smallest ones
    path = folder.parent / ".digests.json"
    assert sorted(row[2] for row in json.loads(path.read_text())["files"]) == [4, len(OLD)]
    (folder / "one").unlink()
    cached(folder)
    assert sorted(row[2] for row in json.loads(path.read_text())["files"]) == [3, 4]
    monkeypatch.setattr(known_digests, "_LARGEST_CACHE", 10)
    assert Cache(path).entries == {}


@pytest.mark.usefixtures("trusted")
def test_a_cache_lies_in_no_listing_and_no_archive(folder: Path, tmp_path: Path) -> None:
    tree_digests(folder, Cache(folder / ".digests.json"))
    assert (folder / ".digests.json").is_file()
    assert files_below(folder) == ["one"]
    assert [*tree(folder, PurePosixPath("data"))] == ["data/one"]
    assert ".digests.json" in (TEMPLATE / ".gitignore").read_text().splitlines()
    assert "**/.*" in (TEMPLATE / ".dockerignore").read_text().splitlines()


# Several processes -----------------------------------------------------------------------------


class Others:
    """Threads that stand for the processes of a training."""

    def __init__(self, size: int) -> None:
        self.barrier = threading.Barrier(size, timeout=HANGS)
        self.told = [""] * size

    def run(self, work: Callable[["Rank"], object]) -> list[Any]:
        results: list[Any] = [None] * len(self.told)

        def act(rank: int) -> None:
            try:
                results[rank] = work(Rank(self, rank))
            except UserError as error:
                results[rank] = error.lines

        threads = [threading.Thread(target=act, args=(rank,)) for rank in range(len(results))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(HANGS)
        return results


class Rank:
    def __init__(self, others: Others, rank: int) -> None:
        self.others, self.rank, self.size = others, rank, len(others.told)

    def first(self, work: Callable[[], Any]) -> Any:
        raise NotImplementedError

    def texts(self, own: str) -> list[str]:
        self.others.told[self.rank] = own
        self.others.barrier.wait()
        told = [*self.others.told]
        self.others.barrier.wait()
        return told


@pytest.mark.usefixtures("trusted")
@pytest.mark.parametrize("size", [2, 3, 8])
def test_processes_share_the_files_and_tell_each_other(
    folder: Path, hashed: list[str], size: int
) -> None:
    for number in range(5):
        (folder / f"{number}").write_bytes(b"a" * number)
    time.sleep(1.5 * TICK)
    alone = tree_digests(folder, Memory())
    hashed.clear()
    path = folder.parent / ".digests.json"
    assert Others(size).run(lambda rank: tree_digests(folder, Cache(path), rank)) == [alone] * size
    assert sorted(hashed) == ["0", "1", "2", "3", "4", "one"]
    hashed.clear()
    assert Others(size).run(lambda rank: tree_digests(folder, Cache(path), rank)) == [alone] * size
    assert hashed == []


def test_each_process_hashes_about_as_many_bytes() -> None:
    states = {f"{n}": FileState(0, n, n * 1000, 0, 0) for n in range(40)}
    shares = digests._shares([*states], states, 3)
    sizes = [sum(states[name].size for name in share) for share in shares]
    assert sorted(name for share in shares for name in share) == sorted(states)
    assert max(sizes) - min(sizes) < 40_000


def test_a_process_with_a_copy_of_its_own_hashes_that(folder: Path, hashed: list[str]) -> None:
    """As on another node: what one has read says nothing about the other one's disk."""
    copy = folder.with_name("copy")
    shutil.copytree(folder, copy)  # with the same times of modification
    (copy / "one").write_bytes(NEW)
    roots = [folder, copy, folder, copy]
    found = Others(4).run(lambda rank: tree_digests(roots[rank.rank], Memory(), rank))
    old, new = {"one": sha256_bytes(OLD)}, {"one": sha256_bytes(NEW)}
    assert found == [old, new, old, new]
    assert hashed == ["one", "one"]


def test_a_file_that_one_process_cannot_read_is_told_by_all(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "two").write_bytes(b"2")

    def failing(file: Any) -> str:
        if Path(file.name).name == "two":
            raise OSError(5, "Input/output error", file.name)
        return sha256_of(file)

    monkeypatch.setattr(digests, "sha256_of", failing)
    found = Others(3).run(lambda rank: tree_digests(folder, Memory(), rank))
    assert [[*lines] for lines in found] == [[f"{folder / 'two'}: Input/output error"]] * 3


# The processes of one command ------------------------------------------------------------------


def test_a_command_that_reads_once_hashes_each_file_once(folder: Path, hashed: list[str]) -> None:
    (folder / "young").write_bytes(NEW)
    changed = (folder / "young").stat().st_ctime_ns
    with reading_once():
        first = tree_digests(folder)
        # A change within the tick would have shown no other time: it waited before it read.
        assert time.time_ns() >= changed + TICK * 1e9
        with reading_once():  # an inner one has the same memory
            assert tree_digests(folder) == first
        assert tree_digests(folder) == first
        assert sorted(hashed) == ["one", "young"]
        (folder / "one").write_bytes(NEW)
        assert tree_digests(folder)["one"] == sha256_bytes(NEW)
        assert len(hashed) == 3
    assert shared_memory() is None
    tree_digests(folder)
    assert len(hashed) == 5


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_between_the_processes_of_a_command_is_seen(folder: Path, change: str) -> None:
    with reading_once():
        tree_digests(folder)
        CHANGES[change](folder / "one")
        assert tree_digests(folder) == {"one": sha256_bytes(NEW)}


@pytest.mark.usefixtures("trusted")
def test_a_command_that_reads_once_trusts_no_cache(folder: Path, hashed: list[str]) -> None:
    path = folder.parent / ".digests.json"
    cached(folder)
    assert isinstance(memory_of_command(path), Cache)
    with reading_once():
        memory = memory_of_command(path)
        assert isinstance(memory, CommandMemory)
        tree_digests(folder, memory)
    assert hashed == ["one", "one"]


PROGRAM = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from repro.data import digests, known_digests
from repro.data.manifest import tree_digests
hash_file = digests.sha256_of
digests.sha256_of = lambda file: print("hashed") or hash_file(file)
print(type(known_digests.memory_of_command(Path("/nowhere/.digests.json"))).__name__)
print(*tree_digests(Path(sys.argv[2])).values())
"""


def test_subprocesses_inherit_what_was_read(
    folder: Path, hashed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def typed(root: Path, name: str, *arguments: str, **_: object) -> list[str]:
        return ["python", "-c", PROGRAM, str(TEMPLATE), str(folder)]

    monkeypatch.setattr(project, "command_line", typed)

    def start() -> list[str]:
        return project.run_author_command(folder, "train", [], capture=True).output.split()

    digest = sha256_bytes(OLD)
    with reading_once():
        assert start() == ["CommandMemory", "hashed", digest]
        assert start() == ["CommandMemory", digest]
        assert tree_digests(folder) == {"one": digest}
    assert hashed == []
    assert start() == ["Cache", "hashed", digest]


@pytest.mark.parametrize("told", ["", "0", "999 1 1", "{} 1 1", "x", "-1 0 0", "9" * 99])
def test_a_descriptor_of_another_file_is_not_trusted(
    folder: Path, monkeypatch: pytest.MonkeyPatch, told: str
) -> None:
    with (folder / "one").open() as file:
        monkeypatch.setenv("REPRO_READ_ONCE", told.replace("{}", str(file.fileno())))
        assert shared_memory() is None
        memory = memory_of_command(folder / ".digests.json")
        assert type(memory) is Memory  # nor is a cache, for the command above reads each byte


def test_without_memory_files_the_memory_has_no_name_either(
    folder: Path, monkeypatch: pytest.MonkeyPatch, hashed: list[str]
) -> None:
    monkeypatch.delattr(os, "memfd_create", raising=False)
    with reading_once():
        descriptor = shared_memory()
        assert descriptor is not None
        assert os.fstat(descriptor).st_nlink == 0
        assert tree_digests(folder) == tree_digests(folder)
    assert hashed == ["one"]
    assert read_once.inheritance() == ((), None)
    assert "REPRO_READ_ONCE" not in os.environ


def test_what_is_no_file_is_named(folder: Path) -> None:
    (folder / "one").unlink()
    os.mkfifo(folder / "one")
    with pytest.raises(UserError, match="one is a named pipe: expected a file"):
        digests_of(folder, ["one"], Memory())
