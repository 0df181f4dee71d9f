"""Make files with packed parts anew: zip, gzip, texts of PNG, base64, headers of safetensors.

What is neither of these nor text is refused: a database or a picture would be broken by it.
Promises the same bytes on every machine: what is written is stored without compression, because
compressors differ, and has neither times nor owners.
"""

import gzip
import io
import struct
import unicodedata
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO
from zipfile import ZipFile, ZipInfo

from repro.core.errors import UserError, reason_of
from repro.publishing.anonymity.base64_texts import with_base64
from repro.publishing.anonymity.containers import DEEPEST, GZIP, UNPACKING_FAULTS, ZIP
from repro.publishing.anonymity.png_texts import MARK, png_chunks, png_text

_CONTROLS = "\b\t\n\r\f\x1b"  # that texts have
_OF_TEXTS = bytes([*_CONTROLS.encode(), *range(0x20, 0x7F), *range(0x80, 0x100)])
_NO_TEXT = ("Cc", "Cn", "Co")
_LARGEST_TO_WRITE = 1 << 28  # bytes that are held in memory to be written anew


def rebuilt(data: bytes, change: Callable[[bytes], bytes], depth: int = 0) -> bytes:
    """Return a file in which `change` was done to all that it holds, and to the names in it.

    UserError for a container that cannot be written anew.
    """
    if depth > DEEPEST:
        raise UserError("its containers are too deep in each other to be written anew")
    try:
        if data.startswith(ZIP):
            return _rebuilt_zip(data, change, depth)
        if data.startswith(MARK):
            return _rebuilt_png(data, change)
        if data.startswith(GZIP):
            with gzip.GzipFile(fileobj=io.BytesIO(data)) as opened:
                return _stored_gzip(rebuilt(_read(opened), change, depth + 1))  # type: ignore[arg-type]
    except UNPACKING_FAULTS as error:
        raise UserError(f"it cannot be unpacked ({reason_of(error)})") from error
    if data[8:9] == b"{" and 2 <= (length := int.from_bytes(data[:8], "little")) <= len(data) - 8:
        return _rebuilt_tensors(data[8 : 8 + length], data[8 + length :], change)
    if data.startswith((b"BZh", b"\xfd7zXZ")):
        raise UserError("bzip2 and xz are not written anew: keep it as gzip")
    new = change(with_base64(data, lambda inner: rebuilt(inner, change, depth + 1)))
    if new != data and not _is_text(data):
        raise UserError(
            "it is no text, and a word of another length would break it: mend it by hand"
        )
    return new


def _is_text(data: bytes) -> bool:
    """Tell whether bytes are text of any 8-bit encoding, or of UTF-16."""
    if not data.translate(None, delete=_OF_TEXTS):
        return True
    for encoding in ("utf-16-le", "utf-16-be"):
        with suppress(UnicodeDecodeError):
            text = data.decode(encoding)
            if all(
                unicodedata.category(sign) not in _NO_TEXT or sign in _CONTROLS for sign in text
            ):
                return True
    return False


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
    pieces = [MARK]
    for kind, body in png_chunks(io.BytesIO(data)):
        if text := png_text(kind, body):
            kind, body = text.kind, text.head + text.text
        if kind in (b"tEXt", b"iTXt", b"eXIf"):
            body = change(body)
        pieces.append(struct.pack(">I", len(body)) + kind + body)
        pieces.append(struct.pack(">I", zlib.crc32(kind + body)))
    return b"".join(pieces)
