"""Find the data: URIs in a text, such as the figures of results/report.html, and write them anew.

Their bytes stand in base64, so no search of the text sees a name in them. Promises to hold a
bounded part of a file in memory; a URI that is longer is a ValueError once all others were read.
"""

import base64
import re
from collections.abc import Callable, Iterator
from typing import BinaryIO

_CHUNK = 1 << 22  # bytes
_LONGEST = 1 << 26  # bytes of one URI
# "%3D" is "=" in a URL. Blanks may part the lines of it where a quote or a bracket ends it.
_URI = re.compile(rb"(;base64,\s*)([0-9A-Za-z+/\s]*(?:=|%3[dD]){0,2}\s*)")
_ENDS = b"\"'<)&\\"
_MARK = b";base64,"


def data_uris(stream: BinaryIO) -> Iterator[tuple[str, bytes]]:
    """Yield each data: URI of a stream: where it stands, and the bytes that it is of."""
    stream.seek(0)
    rest = b""
    line = 1
    too_long = False
    while data := stream.read(_CHUNK):
        piece = rest + data
        end = _undecided(piece)
        if len(piece) - end > _LONGEST:
            too_long = True
            end = len(piece)
        yield from _contents(piece, end, line)
        line += piece.count(b"\n", 0, end)
        rest = piece[end:]
    yield from _contents(rest, len(rest), line)
    if too_long:
        raise ValueError(f"a data: URI of more than {_LONGEST} bytes")


def _contents(piece: bytes, end: int, line: int) -> Iterator[tuple[str, bytes]]:
    for match in _URI.finditer(piece, 0, end):
        if content := _decoded(_body(match)):
            number = line + piece.count(b"\n", 0, match.start())
            yield f"data: URI in line {number}", content


def _undecided(piece: bytes) -> int:
    """Return where something begins that the next piece may go on with: a URI, or its mark."""
    start = piece.rfind(_MARK)
    end = max(0, len(piece) - len(_MARK))
    if start >= 0 and (match := _URI.match(piece, start)):
        return start if match.end() >= len(piece) - 3 else max(end, match.end())
    return end


def with_data_uris(data: bytes, change: Callable[[bytes], bytes]) -> bytes:
    """Return a text in which `change` was done to what its data: URIs are of."""

    def changed(match: re.Match[bytes]) -> bytes:
        body = _body(match)
        content = _decoded(body)
        new = change(content) if content else content
        if new == content:
            return match[0]
        return match[1] + base64.b64encode(new) + match[2][len(body) :]

    return _URI.sub(changed, data)


def _body(match: re.Match[bytes]) -> bytes:
    """Return what of a match is base64: up to a blank, unless something closes it after that."""
    after = match.string[match.end() : match.end() + 1]
    if after and after in _ENDS:
        return match[2].rstrip()
    return match[2].split(maxsplit=1)[0] if match[2].strip() else b""


def _decoded(body: bytes) -> bytes:
    """Return the bytes that base64 stands for; none if it is cut or is no base64."""
    plain = re.sub(rb"\s|=|%3[dD]", b"", body)
    plain = plain[: len(plain) - (len(plain) % 4 == 1)]
    return base64.b64decode(plain + b"=" * (-len(plain) % 4))
