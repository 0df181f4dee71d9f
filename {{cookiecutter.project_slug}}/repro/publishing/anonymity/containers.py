"""Open what files hold packed: zip, gzip, bzip2, xz, texts of PNG, base64, in each other, too.

Promises to read a bounded number of bytes, whatever a file claims, and to say what was not read.
"""

import bz2
import gzip
import io
import lzma
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple, cast
from zipfile import BadZipFile, ZipFile

from repro.core.errors import reason_of
from repro.publishing.anonymity.base64_texts import base64_texts
from repro.publishing.anonymity.png_texts import MARK, MOST_TEXT, png_chunks, png_text

DEEPEST = 4  # containers in each other
MOST = 1 << 30  # bytes that are read of one file of the archive, all that it holds included

ZIP = (b"PK\x03\x04", b"PK\x05\x06")
GZIP = b"\x1f\x8b"
_LONGEST_REASON = 80  # characters of what a library says of a file
_STREAMS = {GZIP: gzip.open, b"BZh": bz2.open, b"\xfd7zXZ": lzma.open}
# Beginnings of formats that may hold something compressed which nothing here opens.
_CLOSED = {
    b"\x28\xb5\x2f\xfd": "zstd",
    b"7z\xbc\xaf\x27\x1c": "7z",
    b"Rar!": "RAR",
    b"%PDF": "PDF",
    b"PAR1": "Parquet",
    b"\x89HDF": "HDF5",
    b"\x04\x22\x4d\x18": "LZ4",
}
_MARKS = (*ZIP, MARK, *_STREAMS, *_CLOSED)
_SMALL = 1 << 12  # bytes
_MOST_TOGETHER = 1 << 14
UNPACKING_FAULTS = (
    *(BadZipFile, OSError, EOFError, zlib.error, lzma.LZMAError),
    *(RuntimeError, NotImplementedError, ValueError, struct.error),
)


class Piece(NamedTuple):
    """Something that a file holds: where in it, "" for all of it, and the bytes."""

    place: str
    stream: BinaryIO


class _Budget:
    """What may still be read of what one file holds; `faults`: why something was not read."""

    def __init__(self) -> None:
        self.left = MOST
        self.faults: list[str] = []

    def spend(self, size: int) -> None:
        self.left -= size


class _Bounded(io.RawIOBase):
    """A stream that ends where the budget or what can be unpacked does."""

    def __init__(self, stream: BinaryIO, budget: _Budget) -> None:
        self._stream = stream
        self._budget = budget

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return self._stream.seekable()

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._stream.seek(offset, whence)

    def tell(self) -> int:
        return self._stream.tell()

    def readinto(self, buffer: object) -> int:
        view = memoryview(buffer)  # type: ignore[arg-type]
        if self._budget.left <= 0:
            return 0
        try:
            data = self._stream.read(len(view))
        except UNPACKING_FAULTS as error:
            self._budget.faults.append(reason_of(error, _LONGEST_REASON))
            return 0
        self._budget.spend(len(data))
        view[: len(data)] = data
        return len(data)


class Opener:
    """Opens files one after the other; `unread` says what was not read, a line for each."""

    def __init__(self) -> None:
        self.unread: list[str] = []

    def parts(self, name: str, content: bytes | Path) -> Iterator[Piece]:
        """Yield all of a file, and then what it holds, level by level."""
        budget = _Budget()
        stream = content.open("rb") if isinstance(content, Path) else io.BytesIO(content)
        with stream:
            # What is on the disk is read to its end: only what it unfolds to is counted.
            yield Piece("", stream)
            yield from self._inside(name, Piece("", stream), budget, 0)
        for fault in dict.fromkeys(budget.faults):
            self.unread.append(f"{name}: what cannot be unpacked ({fault})")
        if budget.left <= 0:
            self.unread.append(f"{name}: what is in it beyond {MOST >> 20} MiB")

    def _inside(self, name: str, part: Piece, budget: _Budget, depth: int) -> Iterator[Piece]:
        """Yield what a part holds, if it is a container."""
        where = f"{name}: {part.place}" if part.place else name
        try:
            part.stream.seek(0)
            start = part.stream.read(8)
            for mark, kind in _CLOSED.items():
                if start.startswith(mark):
                    self.unread.append(f"{where}: what is compressed in {kind}")
            for place, stream in _opened(start, part.stream, budget):
                inner = Piece(f"{part.place} > {place}".removeprefix(" > "), stream)
                yield inner
                if depth < DEEPEST:
                    yield from self._inside(name, inner, budget, depth + 1)
                else:
                    self.unread.append(f"{name}: what {inner.place} may hold")
        except UNPACKING_FAULTS as error:
            budget.faults.append(reason_of(error, _LONGEST_REASON))


def _opened(start: bytes, stream: BinaryIO, budget: _Budget) -> Iterator[tuple[str, BinaryIO]]:
    """Yield the name and the bytes of each thing in a container, by its first bytes."""
    stream.seek(0)
    if start.startswith(ZIP):
        yield from _members(stream, budget)
    elif start == MARK:
        yield from _texts(stream, budget)
    for mark, decompressed in _STREAMS.items():
        if start.startswith(mark):
            with decompressed(stream) as opened:  # type: ignore[operator]
                yield "content", _bounded(opened, budget)
            return
    if not start.startswith(ZIP) and b"\0" not in start:  # tensors and pictures are no text
        for place, content in _together(base64_texts(stream)):
            budget.spend(len(content))
            yield place, io.BytesIO(content)


def _together(found: Iterator[tuple[int, bytes]]) -> Iterator[tuple[str, bytes]]:
    """Yield what stands in base64: a container or a larger part alone, small ones in one text.

    There may be thousands of those. Each stands in the line of that text that it has in the file.
    """
    small: list[bytes] = []
    line = 1
    fault: ValueError | None = None
    try:
        for number, content in found:
            if len(content) > _SMALL or content.startswith(_MARKS):
                yield f"base64 in line {number}", content
                continue
            if len(small) >= _MOST_TOGETHER:
                yield "base64", b"".join(small)
                small.clear()
                line = 1
            small.append((b"\n" * (number - line) or b" ") + content.replace(b"\n", b" "))
            line = number
    except ValueError as error:  # of a part that is too long, after all others
        fault = error
    if small:
        yield "base64", b"".join(small)
    if fault:
        raise fault


def _bounded(stream: BinaryIO, budget: _Budget) -> BinaryIO:
    return io.BufferedReader(_Bounded(stream, budget), 1 << 16)


def _members(stream: BinaryIO, budget: _Budget) -> Iterator[tuple[str, BinaryIO]]:
    with ZipFile(stream) as packed:
        for info in packed.infolist():
            if not info.is_dir():
                with packed.open(info) as member:
                    yield info.filename, _bounded(cast(BinaryIO, member), budget)


def _texts(stream: BinaryIO, budget: _Budget) -> Iterator[tuple[str, BinaryIO]]:
    """Yield the compressed texts of a PNG; others can be read in the file as it is."""
    for kind, body in png_chunks(stream, MOST_TEXT):
        if (text := png_text(kind, body)) is not None:
            budget.spend(len(text.text))
            yield kind.decode(), io.BytesIO(text.text)
