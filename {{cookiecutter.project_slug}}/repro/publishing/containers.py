"""Open what files hold compressed, and make such files anew: zip, gzip, the texts of PNG.

bzip2 and xz are opened, too, but not written. Promises to read a bounded number of bytes, whatever
a file claims, and to say what was not read. What is written anew has the same bytes on every
machine: it is stored without compression, for compressors differ.
"""

import bz2
import gzip
import io
import lzma
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple, cast
from zipfile import BadZipFile, ZipFile, ZipInfo

from repro.core.errors import UserError

DEEPEST = 4  # containers in each other
MOST = 1 << 30  # bytes that are read of one file of the archive, all that it holds included
_MOST_TEXT = 1 << 20  # bytes of a compressed text in a PNG
_LARGEST_TO_WRITE = 1 << 28  # bytes that are held in memory to be written anew

_ZIP = (b"PK\x03\x04", b"PK\x05\x06")
_PNG = b"\x89PNG\r\n\x1a\n"
_GZIP = b"\x1f\x8b"
_STREAMS = {_GZIP: gzip.open, b"BZh": bz2.open, b"\xfd7zXZ": lzma.open}
# Beginnings of formats that may hold something compressed which nothing here opens.
_CLOSED = {
    b"\x28\xb5\x2f\xfd": "zstd",
    b"7z\xbc\xaf\x27\x1c": "7z",
    b"Rar!": "RAR",
    b"%PDF": "PDF",
    b"PAR1": "Parquet",
    b"\x89HDF": "HDF5",
    b"\xff\xd8\xff": "JPEG",
    b"\x04\x22\x4d\x18": "LZ4",
}
_FAULTS = (
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
        except _FAULTS as error:
            self._budget.faults.append(_reason(error))
            return 0
        self._budget.spend(len(data))
        view[: len(data)] = data
        return len(data)


def _reason(error: Exception) -> str:
    return (" ".join(str(error).split()) or type(error).__name__)[:80]


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
        except _FAULTS as error:
            budget.faults.append(_reason(error))


def _opened(start: bytes, stream: BinaryIO, budget: _Budget) -> Iterator[tuple[str, BinaryIO]]:
    """Yield the name and the bytes of each thing in a container, by its first bytes."""
    stream.seek(0)
    if start.startswith(_ZIP):
        yield from _members(stream, budget)
    elif start == _PNG:
        yield from _texts(stream, budget)
    for mark, decompressed in _STREAMS.items():
        if start.startswith(mark):
            with decompressed(stream) as opened:  # type: ignore[operator]
                yield "content", _bounded(opened, budget)


def _bounded(stream: BinaryIO, budget: _Budget) -> BinaryIO:
    return io.BufferedReader(_Bounded(stream, budget), 1 << 16)


def _members(stream: BinaryIO, budget: _Budget) -> Iterator[tuple[str, BinaryIO]]:
    with ZipFile(stream) as packed:
        for info in packed.infolist():
            if not info.is_dir():
                with packed.open(info) as member:
                    yield info.filename, _bounded(cast(BinaryIO, member), budget)


def _chunks(data: BinaryIO, longest: int = _LARGEST_TO_WRITE) -> Iterator[tuple[bytes, bytes]]:
    """Yield the type of each chunk of a PNG, and its bytes up to the `longest` that is read."""
    data.seek(len(_PNG))
    while len(head := data.read(8)) == 8:
        length, kind = struct.unpack(">I4s", head)
        body = data.read(min(length, longest))
        data.seek(length - len(body) + 4, io.SEEK_CUR)
        yield kind, body


def _texts(stream: BinaryIO, budget: _Budget) -> Iterator[tuple[str, BinaryIO]]:
    """Yield the compressed texts of a PNG; others can be read in the file as it is."""
    for kind, body in _chunks(stream, _MOST_TEXT):
        if (text := _text_of(kind, body)) is not None:
            budget.spend(len(text.text))
            yield kind.decode(), io.BytesIO(text.text)


class _Text(NamedTuple):
    """A compressed text of a PNG: what stands before it if it is stored plainly, and the text."""

    head: bytes
    text: bytes
    kind: bytes


def _text_of(kind: bytes, body: bytes) -> _Text | None:
    """Return the compressed text in a chunk of a PNG; None if there is none."""
    key, _, rest = body.partition(b"\0")
    if kind == b"zTXt":
        return _Text(key + b"\0", _inflated(rest[1:]), b"tEXt")
    if kind == b"iTXt" and rest[:1] == b"\1":
        language, _, after = rest[2:].partition(b"\0")
        translated, _, packed = after.partition(b"\0")
        head = b"\0".join([key, b"\0\0" + language, translated, b""])
        return _Text(head, _inflated(packed), b"iTXt")
    return None


def _inflated(packed: bytes) -> bytes:
    decompressor = zlib.decompressobj()
    text = decompressor.decompress(packed, _MOST_TEXT)
    if not decompressor.eof:
        raise ValueError(f"a text is cut, or longer than {_MOST_TEXT} bytes")
    return text


# To write them anew ---------------------------------------------------------------------------


def rebuilt(data: bytes, change: Callable[[bytes], bytes], depth: int = 0) -> bytes:
    """Return a file in which `change` was done to all that it holds, and to the names in it.

    UserError for a container that cannot be written anew.
    """
    if depth > DEEPEST:
        raise UserError("its containers are too deep in each other to be written anew")
    try:
        if data.startswith(_ZIP):
            return _rebuilt_zip(data, change, depth)
        if data.startswith(_PNG):
            return _rebuilt_png(data, change)
        if data.startswith(_GZIP):
            with gzip.GzipFile(fileobj=io.BytesIO(data)) as opened:
                return _stored_gzip(rebuilt(_read(opened), change, depth + 1))  # type: ignore[arg-type]
    except _FAULTS as error:
        raise UserError(f"it cannot be unpacked ({' '.join(str(error).split())})") from error
    if data[8:9] == b"{" and 2 <= (length := int.from_bytes(data[:8], "little")) <= len(data) - 8:
        return _rebuilt_tensors(data[8 : 8 + length], data[8 + length :], change)
    if data.startswith((b"BZh", b"\xfd7zXZ")):
        raise UserError("bzip2 and xz are not written anew: keep it as gzip")
    return change(data)


def _read(stream: BinaryIO) -> bytes:
    data = stream.read(_LARGEST_TO_WRITE + 1)
    if len(data) > _LARGEST_TO_WRITE:
        raise UserError(f"it has more than {_LARGEST_TO_WRITE >> 20} MiB: too much to be changed")
    return data


def read_to_change(content: bytes | Path) -> bytes:
    """Return the bytes of a file that is to be changed; UserError for a very large one."""
    if isinstance(content, bytes):
        return content
    with content.open("rb") as file:
        return _read(file)


def _rebuilt_zip(data: bytes, change: Callable[[bytes], bytes], depth: int) -> bytes:
    buffer = io.BytesIO()
    with ZipFile(io.BytesIO(data)) as packed, ZipFile(buffer, "w") as written:
        written.comment = change(packed.comment)
        total = 0
        for info in packed.infolist():
            name = change(info.filename.encode()).decode()
            with packed.open(info) as member:
                content = rebuilt(_read(member), change, depth + 1)  # type: ignore[arg-type]
            total += len(content)
            if total > _LARGEST_TO_WRITE:
                raise UserError(f"it unpacks to more than {_LARGEST_TO_WRITE >> 20} MiB")
            new = ZipInfo(name)  # of 1980, without owner and comment
            new.create_system = 3
            new.external_attr = info.external_attr
            written.writestr(new, content)
    return buffer.getvalue()


def _stored_gzip(content: bytes) -> bytes:
    """Return gzip's format without a name and a time, in blocks that are not compressed."""
    blocks = [content[at : at + 0xFFFF] for at in range(0, len(content), 0xFFFF)] or [b""]
    packed = b"".join(
        struct.pack("<BHH", number == len(blocks), len(block), len(block) ^ 0xFFFF) + block
        for number, block in enumerate(blocks, 1)
    )
    end = struct.pack("<II", zlib.crc32(content), len(content) & 0xFFFFFFFF)
    return b"\x1f\x8b\x08\0\0\0\0\0\0\xff" + packed + end


def _rebuilt_tensors(header: bytes, tensors: bytes, change: Callable[[bytes], bytes]) -> bytes:
    """Return a safetensors file with a changed header; the tensors' own bytes stay."""
    new = change(header.rstrip(b" "))
    new += b" " * (-len(new) % 8)
    return len(new).to_bytes(8, "little") + new + tensors


def _rebuilt_png(data: bytes, change: Callable[[bytes], bytes]) -> bytes:
    """Return a picture with changed texts; those that were compressed are so no more."""
    pieces = [_PNG]
    for kind, body in _chunks(io.BytesIO(data)):
        if text := _text_of(kind, body):
            kind, body = text.kind, text.head + text.text
        if kind in (b"tEXt", b"iTXt", b"eXIf"):
            body = change(body)
        pieces.append(struct.pack(">I", len(body)) + kind + body)
        pieces.append(struct.pack(">I", zlib.crc32(kind + body)))
    return b"".join(pieces)
