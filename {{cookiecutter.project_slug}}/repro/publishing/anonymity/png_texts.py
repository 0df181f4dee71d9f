"""Read the chunks of a PNG and the compressed texts in it: bounded, whatever it claims."""

import io
import struct
import zlib
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

MARK = b"\x89PNG\r\n\x1a\n"
MOST_TEXT = 1 << 20  # bytes of a compressed text
_LARGEST = 1 << 28


def png_chunks(data: BinaryIO, longest: int = _LARGEST) -> Iterator[tuple[bytes, bytes]]:
    """Yield the type of each chunk of a PNG, and its bytes up to the `longest` that is read."""
    data.seek(len(MARK))
    while len(head := data.read(8)) == 8:
        length, kind = struct.unpack(">I4s", head)
        body = data.read(min(length, longest))
        data.seek(length - len(body) + 4, io.SEEK_CUR)
        yield kind, body


class PngText(NamedTuple):
    """A compressed text of a PNG: what stands before it if it is stored plainly, and the text."""

    head: bytes
    text: bytes
    kind: bytes


def png_text(kind: bytes, body: bytes) -> PngText | None:
    """Return the compressed text in a chunk of a PNG; None if there is none."""
    key, _, rest = body.partition(b"\0")
    if kind == b"zTXt":
        return PngText(key + b"\0", _inflated(rest[1:]), b"tEXt")
    if kind == b"iTXt" and rest[:1] == b"\1":
        language, _, after = rest[2:].partition(b"\0")
        translated, _, packed = after.partition(b"\0")
        head = b"\0".join([key, b"\0\0" + language, translated, b""])
        return PngText(head, _inflated(packed), b"iTXt")
    return None


def _inflated(packed: bytes) -> bytes:
    decompressor = zlib.decompressobj()
    text = decompressor.decompress(packed, MOST_TEXT)
    if not decompressor.eof:
        raise ValueError(f"a text is cut, or longer than {MOST_TEXT} bytes")
    return text
