"""Samples in tar files: written once, read by number, and each fault named with its sample."""

import hashlib
import json
import multiprocessing
import os
import pickle
import struct
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
from conftest import HANGS
from repro.core.errors import SHOWN, UserError
from repro.core.files import JsonObject
from repro.core.hashing import sha256_file
from repro.data import digests, tar_index
from repro.data.digests import ALONE
from repro.data.manifest import tree_digests
from repro.data.prepared import Preparation
from repro.data.tar_check import check_tars
from repro.data.tar_index import PER_BLOCK, TarIndex
from repro.data.tar_samples import TarSamples, TarWriter
from repro.publishing.packed_data import _own_files
from repro.runs.settings import Settings

T = TypeVar("T")
SAMPLES = 700  # in three blocks and four tar files


def content(number: int) -> bytes:
    return f"{number} ".encode() * (1 + number % 97)


def name_of(number: int) -> str:
    return f"class{number % 3}/{number:05d}.bin"


def write(folder: Path, samples: int = SAMPLES, part_bytes: int = 200_000) -> Path:
    folder.mkdir(exist_ok=True)
    index = folder / "train.tarindex"
    with TarWriter(index, part_bytes) as writer:
        for number in range(samples):
            writer.add(name_of(number), content(number))
    return index


@pytest.fixture
def index(tmp_path: Path) -> Path:
    return write(tmp_path / "data")


def place(index: Path, number: int) -> tuple[Path, int]:
    """The tar file of a sample, and where its bytes begin."""
    told = TarIndex(index)
    entry = told.entry(number)
    return told.part_path(entry.part), entry.offset


def flip(path: Path, position: int) -> None:
    with path.open("r+b") as file:
        file.seek(position)
        (byte,) = file.read(1)
        file.seek(position)
        file.write(bytes([byte ^ 1]))


def refused(work: Callable[[], object]) -> str:
    """The one line of a fault."""
    with pytest.raises(UserError) as error:
        work()
    (line,) = error.value.lines
    assert "\n" not in line
    return line


def test_each_sample_is_what_was_written(index: Path) -> None:
    samples = TarSamples(index)
    assert len(samples) == SAMPLES
    for number in [*range(SAMPLES), 0, 699, 300]:
        assert samples[number] == (name_of(number), content(number))
    assert len([*samples]) == SAMPLES  # type: ignore[call-overload]
    for beyond in (SAMPLES, -1):
        with pytest.raises(IndexError):
            samples[beyond]


def test_the_same_samples_are_the_same_bytes_and_any_tar_unpacks_them(
    index: Path, tmp_path: Path
) -> None:
    other = write(tmp_path / "other")
    names = sorted(path.name for path in index.parent.iterdir())
    assert names == [
        *(f"train-{part:05d}.tar" for part in range(4)),
        "train.entries",
        "train.tarindex",
    ]
    for name in names:
        assert sha256_file(index.parent / name) == sha256_file(other.parent / name)
    for part in range(4):
        with tarfile.open(index.parent / f"train-{part:05d}.tar") as tar:
            for member in tar:
                file = tar.extractfile(member)
                assert file
                assert file.read() == content(int(member.name[7:12]))
        subprocess.run(
            ["tar", "xf", index.parent / f"train-{part:05d}.tar"], cwd=tmp_path, check=True
        )
    assert (tmp_path / name_of(699)).read_bytes() == content(699)


def test_a_process_opens_only_the_files_of_its_samples(
    index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = []
    real = os.open

    def told(path: Any, *rest: Any, **more: Any) -> int:
        opened.append(Path(path).name)
        return real(path, *rest, **more)

    monkeypatch.setattr(os, "open", told)
    samples = TarSamples(index)
    last = TarIndex(index).head.samples_of(3)
    for number in last:
        samples[number]
    assert {name for name in opened if name.endswith(".tar")} == {"train-00003.tar"}


def read_there(samples: TarSamples, numbers: range, answer: Any) -> None:
    answer.put([hashlib.sha256(samples[number].data).hexdigest() for number in numbers])


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_processes_that_are_forked_or_spawned_read_at_once(index: Path, method: str) -> None:
    context: Any = multiprocessing.get_context(method)
    samples = TarSamples(index)
    assert samples[5].data == content(5)  # its file is open before the fork
    answers = context.Queue()
    numbers = range(0, SAMPLES, 5)
    started = [
        context.Process(target=read_there, args=(samples, numbers, answers)) for _ in range(2)
    ]
    for process in started:
        process.start()
    here = [hashlib.sha256(samples[number].data).hexdigest() for number in numbers]
    assert [answers.get(timeout=HANGS) for _ in started] == [here, here]
    for process in started:
        process.join()


def test_a_copy_by_pickle_opens_its_own_files(index: Path) -> None:
    samples = TarSamples(index)
    samples[0]
    again = pickle.loads(pickle.dumps(samples))
    assert again.index.files is not samples.index.files
    assert again[3] == samples[3]


def test_more_tar_files_than_may_be_open(tmp_path: Path) -> None:
    index = write(tmp_path / "many", 200, part_bytes=1)
    before = len(os.listdir("/proc/self/fd"))
    samples = TarSamples(index)
    for number in (*range(200), *range(200)):
        assert samples[number].data == content(number)
    assert len(os.listdir("/proc/self/fd")) - before < 40
    del samples
    assert len(os.listdir("/proc/self/fd")) == before


# Faults --------------------------------------------------------------------------------------


def cut(index: Path) -> None:
    path, offset = place(index, 400)
    os.truncate(path, offset + 1)


def flipped(index: Path) -> None:
    path, offset = place(index, 400)
    flip(path, offset + 2)


def swapped_samples(index: Path) -> None:
    """Two samples of one length, each in the other's place."""
    path, offset = place(index, 400)
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(content(400 + 97))
    assert len(content(400 + 97)) == len(content(400))


def swapped_files(index: Path) -> None:
    path, _ = place(index, 400)
    other, _ = place(index, 0)
    aside = path.with_name("aside")
    path.rename(aside)
    other.rename(path)
    aside.rename(other)


def missing(index: Path) -> None:
    place(index, 400)[0].unlink()


FAULTS = {
    cut: "it is cut: 1 bytes of",
    flipped: "its SHA-256 is",
    swapped_samples: "its SHA-256 is",
    swapped_files: "its SHA-256 is",
    missing: "No such file",
}


@pytest.mark.parametrize("damage", FAULTS, ids=lambda damage: damage.__name__)
def test_what_is_wrong_is_named_by_sample_and_file(
    index: Path, damage: Callable[[Path], None]
) -> None:
    samples = TarSamples(index)
    path, _ = place(index, 400)
    damage(index)
    line = refused(lambda: samples[400])
    assert line.startswith(f"{path}: sample 400, '{name_of(400)}': {FAULTS[damage]}")
    assert line.endswith("restore the file, or prepare the data anew (make data)")


@pytest.mark.parametrize("damage", FAULTS, ids=lambda damage: damage.__name__)
def test_the_full_check_names_it_too(index: Path, damage: Callable[[Path], None]) -> None:
    assert check_tars(index.parent) == sum(p.stat().st_size for p in index.parent.glob("*.tar"))
    path, _ = place(index, 400)
    damage(index)
    with pytest.raises(UserError) as error:
        check_tars(index.parent)
    lines = error.value.lines
    assert len(lines) <= SHOWN + 1
    if damage is missing:
        assert lines == [line for line in lines if f"{path} is missing, with samples " in line]
    elif damage is cut:
        assert f"and sample 400, '{name_of(400)}', is the first that is not whole" in lines[0]
    elif damage is not swapped_files:
        assert [line.split(": ")[1] for line in lines] == [f"sample 400, '{name_of(400)}'"]


def test_many_faults_are_counted_as_those_of_other_files_are(index: Path) -> None:
    for number in range(SHOWN + 5):
        path, offset = place(index, number)
        flip(path, offset)
    with pytest.raises(UserError) as error:
        check_tars(index.parent)
    assert len(error.value.lines) == SHOWN + 1
    assert error.value.lines[-1] == "... and 5 more"


@pytest.mark.parametrize("where", ["header", "padding", "end"])
def test_the_full_check_reads_what_no_sample_has(index: Path, where: str) -> None:
    path, offset = place(index, 400)
    position = {"header": offset - 512, "padding": offset + len(content(400)), "end": -1}[where]
    flip(path, position % path.stat().st_size)
    TarSamples(index)[400]
    assert refused(lambda: check_tars(index.parent)).startswith(f"{path}: ")


def test_a_damaged_block_of_the_index_names_its_samples(index: Path) -> None:
    flip(index.with_suffix(".entries"), 300)
    told = f"samples 0 to {PER_BLOCK - 1}: its bytes changed"
    assert told in refused(lambda: TarSamples(index)[7])
    assert TarSamples(index)[PER_BLOCK].data == content(PER_BLOCK)
    index.with_suffix(".entries").unlink()
    assert "No such file" in refused(lambda: TarSamples(index)[PER_BLOCK])


def test_no_name_may_lead_elsewhere(tmp_path: Path) -> None:
    with TarWriter(tmp_path / "a.tarindex") as writer:
        for name in ("../a", "/a", "a\n", "a\x1b[2J", "con", "a" * 300, ""):
            assert "is no name of a sample" in refused(lambda name=name: writer.add(name, b""))  # type: ignore[misc]
    assert "expected the name of an index" in refused(lambda: TarWriter(tmp_path / "a.tar"))


def hostile_heads() -> Iterator[tuple[int, str, int]]:
    """Where the head of an index has which number in its place."""
    for large in (0, 1, 1 << 31, 1 << 40, 1 << 63, (1 << 64) - 1):
        yield 16, "<Q", large  # samples
        yield 24, "<Q", large  # bytes of the entries
        yield 36, "<Q", large  # the first sample of the first tar file
        yield 44, "<Q", large  # its bytes
        yield 32, "<I", large & 0xFFFFFFFF  # tar files
        yield 36 + 4 * 16, "<Q", large  # where the first block begins


@pytest.mark.parametrize(("position", "form", "number"), [*hostile_heads()])
def test_no_number_of_an_index_does_harm(
    index: Path, position: int, form: str, number: int
) -> None:
    data = bytearray(index.read_bytes())
    struct.pack_into(form, data, position, number)
    if data == index.read_bytes():
        return
    index.write_bytes(data)

    def read() -> None:
        samples = TarSamples(index)
        samples[0], samples[SAMPLES - 1]
        assert not samples.index.faults_of_sizes(), "sizes"

    with pytest.raises((UserError, AssertionError)) as error:
        read()
    assert isinstance(error.value, UserError) or "sizes" in str(error.value)


@pytest.mark.parametrize(
    ("position", "number"),
    [
        (36, 1),  # the first sample of the first tar file
        (52, 0),  # of the second
        (52, 1 << 20),
        (24, 1 << 63),  # bytes of the entries
        (44, 1 << 63),  # of the first tar file
    ],
)
def test_tar_files_of_an_index_follow_each_other(index: Path, position: int, number: int) -> None:
    data = bytearray(index.read_bytes())
    struct.pack_into("<Q", data, position, number)
    index.write_bytes(data)
    assert "do not follow each other" in refused(lambda: TarSamples(index))


def test_blocks_lie_within_the_entries(index: Path) -> None:
    data = bytearray(index.read_bytes())
    table = TarIndex(index).head.table
    struct.pack_into("<Q", data, table, 1 << 63)
    struct.pack_into("<Q", data, table + 40, (1 << 63) + 20_000)
    index.write_bytes(data)
    assert "block 0 is from 9223372036854775808" in refused(lambda: TarSamples(index)[0])


@pytest.mark.parametrize("kept", [0, 1, 20, 60, 120, 200])
def test_a_cut_index_is_a_line(index: Path, kept: int) -> None:
    os.truncate(index, kept)
    assert str(index) in refused(lambda: TarSamples(index))


@pytest.mark.parametrize(
    ("position", "form", "value"),
    [
        (0, "<Q", 1 << 62),  # offset
        (0, "<Q", (1 << 64) - 1),
        (8, "<Q", 1 << 40),  # length
        (8, "<Q", (1 << 64) - 1),
        (48, "<I", 65535),  # where its name ends
        (52 * 200 + 3, "<2s", b"\xff\xfe"),  # the name itself
        (52 * 200, "<3s", b"../"),
        (52 * 200, "<3s", b"a\x1b["),
    ],
)
def test_no_entry_of_an_index_does_harm(
    tmp_path: Path, position: int, form: str, value: int
) -> None:
    """Also one whose digests were computed anew."""
    index = write(tmp_path / "data", 200)
    entries = index.with_suffix(".entries")
    block = bytearray(entries.read_bytes())
    struct.pack_into(form, block, position, value)
    entries.write_bytes(block)
    head = TarIndex(index).head
    index.write_bytes(tar_index.head_bytes(head, tar_index.row_of_block(0, bytes(block))))
    assert "no kit wrote such an entry" in refused(lambda: TarSamples(index)[0])


def test_a_pipe_in_the_place_of_a_tar_file_is_not_waited_for(index: Path) -> None:
    path, _ = place(index, 400)
    path.unlink()
    os.mkfifo(path)
    assert "a named pipe" in refused(lambda: TarSamples(index)[400])


# The manifest --------------------------------------------------------------------------------


class Dataset(Settings):
    name: str = "mine"


class Config(Settings):
    dataset: Dataset = Dataset()
    data_dir: str = "data"


class Author:
    """A module of data that writes tar files, and one file beside them."""

    calls = 0

    def prepare(self, settings: Any, folders: Any) -> Any:
        self.calls += 1
        write(folders.out)
        (folders.out / "labels.txt").write_text("a b c")
        return {}


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that are hashed as a whole from now on."""
    names: list[str] = []
    whole = digests.sha256_of

    def counted(file: Any) -> str:
        names.append(Path(file.name).name)
        return whole(file)

    monkeypatch.setattr(digests, "sha256_of", counted)
    return names


def preparation(root: Path) -> Preparation:
    return Preparation(root, Config(), Author(), [])  # type: ignore[arg-type]


def test_the_manifest_has_the_index_and_no_tar_file_is_hashed(
    tmp_path: Path, hashed: list[str]
) -> None:
    made = preparation(tmp_path).prepare()
    again = preparation(tmp_path).read()
    assert again == made
    assert [*made.manifest["files"]] == ["labels.txt", "train.tarindex"]  # type: ignore[arg-type, misc]
    assert {*hashed} == {"labels.txt", "train.tarindex"}


def test_another_tar_file_or_index_is_named_before_a_training(tmp_path: Path) -> None:
    made = preparation(tmp_path).prepare()
    folder = made.folder
    index = folder / "train.tarindex"
    stray = folder / "train-00004.tar"
    stray.write_bytes(b"")
    assert f"{stray}: extra" in refused(preparation(tmp_path).read)
    stray.unlink()
    preparation(tmp_path).read()
    path, _ = place(index, 400)
    content_of_path = path.read_bytes()
    cut(index)
    line = refused(preparation(tmp_path).read)
    assert f"{path} is cut" in line
    assert f"sample 400, '{name_of(400)}', is the first" in line
    path.write_bytes(content_of_path + b"\0")
    assert "with samples " in refused(preparation(tmp_path).read)
    path.unlink()
    assert f"{path} is missing, with samples " in refused(preparation(tmp_path).read)
    path.write_bytes(content_of_path)
    preparation(tmp_path).read()
    flip(index, index.stat().st_size - 1)
    assert f"{index}: changed" in refused(preparation(tmp_path).read)


def test_an_index_speaks_for_its_own_files_alone(tmp_path: Path) -> None:
    """Else a changed index could keep other files out of the manifest."""
    folder = tmp_path / "data"
    write(folder)
    (folder / "other.tar").write_text("x")
    (folder / "mine.tarindex").write_text("an author's own file of that name")
    assert [*tree_digests(folder)] == ["mine.tarindex", "other.tar", "train.tarindex"]


def test_an_archive_with_an_authors_own_files_has_the_tar_files(tmp_path: Path) -> None:
    own = tmp_path / "mine"
    write(own)
    files: JsonObject = {**tree_digests(own)}
    manifest = tmp_path / "data" / "mine" / "manifest.json"
    found = _own_files(tmp_path, manifest, {"files": files}, {"image_dir": "mine"})
    assert {*found} == {f"data/own_files/image_dir/{path.name}" for path in own.iterdir()}
    assert len(found) == 6


class Pretended:
    """One of several processes, of which all say the same."""

    def __init__(self, rank: int, size: int) -> None:
        self.rank = rank
        self.size = size

    def first(self, work: Callable[[], T]) -> T:
        return work()

    def texts(self, own: str) -> list[str]:
        return [own] * self.size


def test_the_full_check_reads_each_byte_once_over_all_processes(
    index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: dict[str, int] = {}
    opened = Path.open

    def counted(path: Path, *rest: Any, **more: Any) -> Any:
        file = opened(path, *rest, **more)
        if path.suffix == ".tar":
            whole = file.read

            def read_and_told(*size: int) -> bytes:
                data: bytes = whole(*size)
                read[path.name] = read.get(path.name, 0) + len(data)
                return data

            class Told:
                read = staticmethod(read_and_told)
                tell = file.tell
                __enter__ = staticmethod(lambda: Told)
                __exit__ = staticmethod(lambda *_: file.close())

            return Told()
        return file

    monkeypatch.setattr(Path, "open", counted)
    names = []
    for rank in range(3):
        before = {*read}
        check_tars(index.parent, Pretended(rank, 3))  # type: ignore[arg-type]
        names.append({*read} - before)
    assert all(names)
    assert read == {path.name: path.stat().st_size for path in index.parent.glob("*.tar")}


def test_a_fault_that_one_process_finds_is_raised_in_all(index: Path) -> None:
    class Other(Pretended):
        def texts(self, own: str) -> list[str]:
            is_fault = own.startswith("[") and own != "[]" and "sample" not in own
            return [own, own] if is_fault else [own, json.dumps(["of another process"])]

    assert check_tars(index.parent, ALONE)
    assert refused(lambda: check_tars(index.parent, Other(0, 2))) == "of another process"  # type: ignore[arg-type]
