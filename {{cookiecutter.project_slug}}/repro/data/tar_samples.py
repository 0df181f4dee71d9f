"""Write samples into tar files, and read any of them by its number: each is checked when read.

The tar files are as `tar` makes them, uncompressed, so any tool unpacks them; the index beside them
(repro/data/tar_index.py) says where each sample lies. Promises that the same samples give the same
bytes, that no sample is given whose SHA-256 is another one, and that a fault names sample and file.
"""

import hashlib
import os
import tarfile
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, NamedTuple

from repro.core.errors import UserError
from repro.core.file_names import fault_of_path, shown
from repro.core.files import write_file
from repro.data.tar_index import (
    LARGEST_SAMPLE,
    MOST_PARTS,
    PER_BLOCK,
    SUFFIX,
    Entry,
    Head,
    TarFile,
    TarIndex,
    entries_bytes,
    head_bytes,
    part_of,
    row_of_block,
)

END_OF_TAR = bytes(1024)


class TarSample(NamedTuple):
    """A sample: its name in the tar file, and its bytes."""

    name: str
    data: bytes


class TarSamples:
    """The samples of an index: `samples[number]` reads one, by its position, and checks it.

    For data workers that are forked or spawned, and to be pickled: a file is opened where and when
    one of its samples is read.
    """

    def __init__(self, index: str | Path) -> None:
        self.index = TarIndex(Path(index))

    def __len__(self) -> int:
        return self.index.head.samples

    def __getitem__(self, number: int) -> TarSample:
        """Return a sample; UserError, with its number, name and file, if it is not as written."""
        if not 0 <= number < len(self):
            raise IndexError(f"sample {number}: there are {len(self)}, counted from 0")
        entry = self.index.entry(number)
        path = self.index.part_path(entry.part)
        try:
            data = self.index.files.read(path, entry.offset, entry.length)
        except OSError as error:
            raise UserError(fault_of_sample(path, number, entry, str(error.strerror))) from error
        if fault := what_is_wrong(entry, data):
            raise UserError(fault_of_sample(path, number, entry, fault))
        return TarSample(entry.name, data)


def what_is_wrong(entry: Entry, data: bytes) -> str | None:
    """Say what is wrong with the bytes that lie in a sample's place; None if they are its own."""
    if len(data) < entry.length:
        return f"it is cut: {len(data)} bytes of {entry.length} are left"
    if (found := hashlib.sha256(data)).digest() != entry.sha256:
        return f"its SHA-256 is {found.hexdigest()}, expected {entry.sha256.hex()}"
    return None


def fault_of_sample(path: Path, number: int, entry: Entry, fault: str) -> str:
    """Return the line about a sample that is not as it was written."""
    return (
        f"{path}: sample {number}, {shown(entry.name)}: {fault}: restore the file, or prepare the "
        "data anew (make data)"
    )


def member_bytes(name: str, length: int) -> tuple[bytes, bytes]:
    """Return what stands before and behind the bytes of a sample in a tar file."""
    member = tarfile.TarInfo(name)  # of no time and nobody
    member.size = length
    return member.tobuf(tarfile.GNU_FORMAT), bytes(-length % tarfile.BLOCKSIZE)


class TarWriter:
    """Write samples into tar files of about `part_bytes`, and their index: NAME.tarindex.

    `with TarWriter(folders.out / "train.tarindex") as samples: samples.add(name, data)`. Names are
    paths that every system can have, so that the tar files can be unpacked.
    """

    def __init__(self, index: Path, part_bytes: int = 1 << 30) -> None:
        if index.suffix != SUFFIX:
            raise UserError(f"{index}: expected the name of an index: {index.stem}{SUFFIX}")
        self._index = index
        self._part_bytes = part_bytes
        self._samples = 0
        self._parts: list[TarFile] = []
        self._table = bytearray()  # of the blocks: 40 bytes for 256 samples
        self._block: list[Entry] = []
        self._part: BinaryIO | None = None
        self._entries = index.with_suffix(".entries").open("xb")

    def __enter__(self) -> "TarWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: object, trace: TracebackType | None
    ) -> None:
        with self._entries:
            if kind is None:
                self._end_block()
            size = self._entries.tell()
        self._end_part()
        if kind is None:  # else there is no index, so the files are no data
            head = Head(self._samples, size, self._parts)
            write_file(self._index, head_bytes(head, bytes(self._table)))

    def add(self, name: str, data: bytes) -> None:
        """Write the next sample."""
        if fault := fault_of_path(name):
            raise UserError(f"{shown(name)} is no name of a sample: {fault}")
        if len(data) > LARGEST_SAMPLE:
            raise UserError(
                f"{shown(name)} has {len(data)} bytes: expected {LARGEST_SAMPLE} at most"
            )
        part = self._part_with_room()
        before, behind = member_bytes(name, len(data))
        offset = part.tell() + len(before)
        sha256 = hashlib.sha256(data).digest()
        part.writelines([before, data, behind])
        number = len(self._parts) - 1
        self._block.append(Entry(name, number, offset, len(data), sha256))
        self._samples += 1
        if len(self._block) == PER_BLOCK:
            self._end_block()

    def _part_with_room(self) -> BinaryIO:
        if self._part and self._part.tell() >= self._part_bytes:
            self._end_part()
        if self._part is None:
            if len(self._parts) == MOST_PARTS:
                raise UserError(f"{self._index}: {MOST_PARTS} tar files: take larger part_bytes")
            self._part = part_of(self._index, len(self._parts)).open("xb")
            self._parts.append(TarFile(self._samples, 0))
        return self._part

    def _end_part(self) -> None:
        if self._part:
            with self._part as part:
                part.write(END_OF_TAR)
                self._parts[-1] = self._parts[-1]._replace(size=part.tell())
                part.flush()
                os.fsync(part.fileno())
        self._part = None

    def _end_block(self) -> None:
        if self._block:
            block = entries_bytes(self._block)
            self._table += row_of_block(self._entries.tell(), block)
            self._entries.write(block)
            self._block = []
