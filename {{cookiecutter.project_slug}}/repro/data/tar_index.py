"""Say where each sample of large data lies: in which tar file, from which byte on, and its SHA-256.

`train.tarindex` is small and hashed as a whole, as every file of the manifest is. It has the number
of samples, the size of each tar file (`train-00000.tar`, ...), and the SHA-256 of each block of
`train.entries`, where the names, places and digests of 256 samples are a block. So whoever reads a
sample reads and checks one block and the sample itself, by position; nothing reads or hashes the
other files as a whole, however many samples there are. Promises that an index which no kit wrote
is a line for the user, and never costs more memory than a block may take.
"""

import hashlib
import math
import os
import struct
from bisect import bisect_left, bisect_right
from itertools import accumulate, pairwise
from pathlib import Path
from typing import NamedTuple

from repro.core.bounded import DamagedFile
from repro.core.errors import UserError
from repro.core.file_names import fault_of_path, shown
from repro.core.special_files import fault_of_kind
from repro.data.open_files import OpenFiles

SUFFIX = ".tarindex"
PER_BLOCK = 256  # samples: a block of 14 kB takes 10 us to hash
MOST_PARTS = 100_000  # tar files: their names have five digits
LARGEST_SAMPLE = 1 << 30  # bytes: it is in memory as a whole
_MOST_SAMPLES = 1 << 40
_MOST_BYTES = 1 << 62  # of a file: the system takes positions of 63 bits
_LONGEST_NAME = 1000  # bytes; `fault_of_path` allows fewer
_KEPT_BLOCKS = 8
_REMEDY = "restore it, or prepare the data anew (make data)"

_MAGIC = b"repro tar index\n"
_HEAD = struct.Struct("<16sQQI")  # magic, samples, bytes of the entries, tar files
_PART = struct.Struct("<QQ")  # of a tar file: its first sample, its bytes
_BLOCK = struct.Struct("<Q32s")  # of a block: where it begins in the entries, its SHA-256
_ENTRY = struct.Struct("<QQ32sI")  # of a sample: offset, length, SHA-256, where its name ends
_LARGEST_BLOCK = PER_BLOCK * (_ENTRY.size + _LONGEST_NAME)


class TarFile(NamedTuple):
    """A tar file: the number of its first sample, and its bytes."""

    first: int
    size: int


class Entry(NamedTuple):
    """A sample: its name, the number of its tar file, and where its bytes lie in that."""

    name: str
    part: int
    offset: int
    length: int
    sha256: bytes


class Head(NamedTuple):
    """What an index says of all its samples together."""

    samples: int
    entries_size: int
    parts: list[TarFile]

    @property
    def table(self) -> int:
        """Where the table of the blocks begins."""
        return _HEAD.size + len(self.parts) * _PART.size

    @property
    def blocks(self) -> int:
        """The number of blocks."""
        return math.ceil(self.samples / PER_BLOCK)

    def samples_of(self, part: int) -> range:
        """Return the numbers of the samples that a tar file has."""
        ends = [each.first for each in self.parts[part + 1 : part + 2]]
        return range(self.parts[part].first, *ends or [self.samples])


class TarIndex:
    """An index file, read by position. `head`: all that it says of the whole.

    UserError for one that is damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.entries_path = path.with_suffix(".entries")
        self.files = OpenFiles()
        self.head = _read_head(path)
        self._blocks: dict[int, bytes] = {}

    def part_path(self, part: int) -> Path:
        """Return where a tar file lies."""
        return part_of(self.path, part)

    def entry(self, sample: int) -> Entry:
        """Return where a sample lies; UserError if its block is not as it was written."""
        number, place = divmod(sample, PER_BLOCK)
        block = self._block(number)
        count = min(PER_BLOCK, self.head.samples - number * PER_BLOCK)
        offset, length, sha256, end = _ENTRY.unpack_from(block, place * _ENTRY.size)
        begin = _ENTRY.unpack_from(block, (place - 1) * _ENTRY.size)[3] if place else 0
        names = block[count * _ENTRY.size :]
        part = bisect_right(self.head.parts, sample, key=lambda part: part.first) - 1
        name = _decoded(names[begin:end])
        is_inside = offset + length <= self.head.parts[part].size and length <= LARGEST_SAMPLE
        if end > len(names) or not is_inside or name is None or fault_of_path(name):
            raise self._damaged(number, "no kit wrote such an entry")
        return Entry(name, part, offset, length, sha256)

    def _block(self, number: int) -> bytes:
        """Return the bytes of a block, which have their SHA-256."""
        if number in self._blocks:
            return self._blocks[number]
        row = self.head.table + number * _BLOCK.size
        rows = self.files.read(self.path, row, 2 * _BLOCK.size)
        if len(rows) < _BLOCK.size:
            raise DamagedFile(self.path, f"it is cut before byte {row + _BLOCK.size}", _REMEDY)
        start, sha256 = _BLOCK.unpack_from(rows)
        is_last = number + 1 == self.head.blocks
        end = self.head.entries_size if is_last else _BLOCK.unpack_from(rows, _BLOCK.size)[0]
        count = min(PER_BLOCK, self.head.samples - number * PER_BLOCK)
        is_possible = count * _ENTRY.size <= end - start <= _LARGEST_BLOCK
        if not is_possible or end > self.head.entries_size:
            raise DamagedFile(self.path, f"block {number} is from {start} to {end}", _REMEDY)
        try:
            block = self.files.read(self.entries_path, start, end - start)
        except OSError as error:
            raise self._damaged(number, str(error.strerror)) from error
        if len(block) < end - start:
            raise self._damaged(number, "it is cut")
        if hashlib.sha256(block).digest() != sha256:
            raise self._damaged(number, "its bytes changed")
        self._blocks[number] = block
        for old in [*self._blocks][:-_KEPT_BLOCKS]:
            self._blocks.pop(old, None)
        return block

    def _damaged(self, block: int, reason: str) -> DamagedFile:
        first = block * PER_BLOCK
        last = min(first + PER_BLOCK, self.head.samples) - 1
        return DamagedFile(self.entries_path, f"samples {first} to {last}: {reason}", _REMEDY)

    def faults_of_sizes(self) -> list[str]:
        """Return a line for each file that is missing, cut or too long, with the samples it has."""
        faults = []
        for number, part in enumerate(self.head.parts):
            path = self.part_path(number)
            samples = self.head.samples_of(number)
            held = f"samples {samples[0]} to {samples[-1]}"
            size = _size_of(path)
            if size is None:
                faults.append(f"{path} is missing, with {held}: {_REMEDY}")
            elif size < part.size:
                lost = bisect_left(samples, size + 1, key=lambda sample: _end(self.entry(sample)))
                first = samples[min(lost, len(samples) - 1)]
                name = shown(self.entry(first).name)
                faults.append(
                    f"{path} is cut: it has {size} bytes of {part.size}, and sample {first}, "
                    f"{name}, is the first that is not whole: {_REMEDY}"
                )
            elif size > part.size:
                faults.append(f"{path}, with {held}: it has {size} bytes, expected {part.size}")
        if (size := _size_of(self.entries_path)) != self.head.entries_size:
            found = "is missing" if size is None else f"has {size} bytes"
            faults.append(
                f"{self.entries_path} {found}, expected {self.head.entries_size}: {_REMEDY}"
            )
        return faults


def part_of(index: Path, part: int) -> Path:
    """Return where a tar file of an index lies."""
    return index.with_name(f"{index.stem}-{part:05d}.tar")


def held_by_indexes(root: Path, names: list[str]) -> dict[str, list[str]]:
    """Return the indexes among files below `root`, each with the names of the files it speaks for.

    Those are in no manifest: whoever reads a sample checks it.
    """
    held = {}
    for name in names:
        path = root / name
        if name.endswith(SUFFIX) and not fault_of_kind(path) and _begins_an_index(path):
            index = TarIndex(path)
            parts = [index.part_path(number) for number in range(len(index.head.parts))]
            held[name] = [
                str(Path(name).with_name(each.name)) for each in [index.entries_path, *parts]
            ]
    return held


def _begins_an_index(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(_MAGIC)) == _MAGIC


def _read_head(path: Path) -> Head:
    """Read and check what an index begins with; UserError for what is none."""
    if fault := fault_of_kind(path):
        raise UserError(fault)
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            start = file.read(_HEAD.size).ljust(_HEAD.size, b"\0")
            magic, samples, entries_size, count = _HEAD.unpack(start)
            if magic != _MAGIC or samples > _MOST_SAMPLES or count > min(MOST_PARTS, samples):
                raise DamagedFile(path, "it does not begin as an index does", _REMEDY)
            parts = file.read(count * _PART.size).ljust(count * _PART.size, b"\0")
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}: {_REMEDY}") from error
    head = Head(samples, entries_size, [TarFile(*row) for row in _PART.iter_unpack(parts)])
    expected = head.table + head.blocks * _BLOCK.size
    if size != expected:
        raise DamagedFile(path, f"it has {size} bytes, expected {expected}", _REMEDY)
    firsts = [*(part.first for part in head.parts), samples]
    is_in_order = not firsts[0] and all(first < after for first, after in pairwise(firsts))
    if not is_in_order or max(entries_size, *(part.size for part in head.parts), 0) > _MOST_BYTES:
        raise DamagedFile(path, "the tar files do not follow each other", _REMEDY)
    return head


def head_bytes(head: Head, table: bytes) -> bytes:
    """Return an index file: what it begins with, and the table of the blocks."""
    start = _HEAD.pack(_MAGIC, head.samples, head.entries_size, len(head.parts))
    return b"".join([start, *(_PART.pack(*part) for part in head.parts), table])


def entries_bytes(entries: list[Entry]) -> bytes:
    """Return a block of entries."""
    names = [entry.name.encode() for entry in entries]
    rows = [
        _ENTRY.pack(entry.offset, entry.length, entry.sha256, end)
        for entry, end in zip(entries, accumulate(map(len, names)), strict=True)
    ]
    return b"".join([*rows, *names])


def row_of_block(start: int, block: bytes) -> bytes:
    """Return what the table says of a block."""
    return _BLOCK.pack(start, hashlib.sha256(block).digest())


def _end(entry: Entry) -> int:
    return entry.offset + entry.length


def _decoded(name: bytes) -> str | None:
    try:
        return name.decode()
    except UnicodeDecodeError:
        return None


def _size_of(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None
