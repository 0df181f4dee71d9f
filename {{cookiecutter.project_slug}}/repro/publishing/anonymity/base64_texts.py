"""Find what stands in base64 in a text, and write it anew: data: URIs, outputs of notebooks, mails.

No search of the text sees a name in these. Taken for base64 are what follows "base64,", of any
length, and a run of at least 24 of its signs, in capitals and small letters (so no digest in
hexadecimal), in one line or in several as mails have them; what is none is decoded in vain.
Promises to hold a bounded part of a file in memory; a run that is longer is a ValueError once all
others were read.
"""

import base64
import re
from collections.abc import Callable, Iterator
from typing import BinaryIO

_CHUNK = 1 << 22  # bytes
_LONGEST = 1 << 26  # bytes of one run
_SHORTEST = 24  # signs of a run without a mark: a short name with its address
_LINES = (60, 64, 72, 76)  # signs of a line that the next one goes on, as programs write them
_MARK = b"base64,"
_SIGN = rb"[0-9A-Za-z+/_-]"  # "_" and "-" are the two other signs where it is a part of a URL
_LINE_END = rb"(?:\r?\n[ \t]*|(?:\\r)?\\n)"  # "\\n": in a string of JSON
_PADDING = rb"(?:=|%3[dD]){0,2}"  # "%3D" is "=" in a URL
# Blanks may part the lines of a URI where a quote or a bracket ends it.
_RUN = re.compile(
    rb"(?P<mark>%(mark)s\s*)(?P<uri>(?:%(sign)s|\s)*%(padding)s\s*)"
    rb"|(?P<lines>%(sign)s%(many)s(?:%(end)s%(sign)s+)*)%(padding)s"
    % {
        b"mark": _MARK,
        b"sign": _SIGN,
        b"padding": _PADDING,
        b"many": rb"{" + str(_SHORTEST).encode() + rb",}",
        b"end": _LINE_END,
    }
)
_ENDS = b"\"'<)&\\"
_SIGNS = bytes(sign for sign in range(128) if re.match(_SIGN, bytes([sign])))
_ALIKE = bytes(ord("A") if sign in _SIGNS else ord(" ") for sign in range(256))
_IN_A_RUN = _SIGNS + b" \t\r\n\\=%"


def base64_texts(stream: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Yield what stands in base64 in a stream: the line of each, and the bytes that it is of."""
    stream.seek(0)
    rest = b""
    line = 1
    too_long = False
    while data := stream.read(_CHUNK):
        piece = rest + data
        end = _undecided(piece)
        if len(piece) - end > _LONGEST:
            too_long = any(match.end() > end for match in _runs(piece, len(piece)))
            end = len(piece)
        yield from _contents(piece, end, line)
        line += piece.count(b"\n", 0, end)
        rest = piece[end:]
    yield from _contents(rest, len(rest), line)
    if too_long:
        raise ValueError(f"base64 of more than {_LONGEST} bytes")


def _contents(piece: bytes, end: int, line: int) -> Iterator[tuple[int, bytes]]:
    counted = 0
    for match in _runs(piece, end):
        for body, place in _bodies(match):
            if content := _decoded(body):
                line += piece.count(b"\n", counted, place)
                counted = place
                yield line, content


def _runs(data: bytes, end: int) -> Iterator[re.Match[bytes]]:
    """Yield the places that may hold base64; most texts have none, which is found out quickly."""
    if _MARK in data or b"A" * _SHORTEST in data.translate(_ALIKE):
        yield from _RUN.finditer(data, 0, end)


def _undecided(piece: bytes) -> int:
    """Return where something begins that the next piece may go on with: a run, or its mark."""
    end = len(piece.rstrip(_IN_A_RUN))
    return end - len(_MARK) if piece[:end].endswith(_MARK) else end


def with_base64(data: bytes, change: Callable[[bytes], bytes]) -> bytes:
    """Return a text in which `change` was done to what stands in base64 in it."""
    pieces = []
    after = 0
    for match in _runs(data, len(data)):
        for body, place in _bodies(match):
            content = _decoded(body)
            new = change(content) if content else content
            if new != content:
                pieces += [data[after:place], _encoded(new, body)]
                after = place + len(body)
    return b"".join([*pieces, data[after:]])


def _bodies(match: re.Match[bytes]) -> Iterator[tuple[bytes, int]]:
    """Yield what of a match is base64, and where it begins."""
    if match["mark"]:  # up to a blank, unless something closes it after that
        after = match.string[match.end() : match.end() + 1]
        body = match["uri"].rstrip()
        if not after or after not in _ENDS:
            body = (body.split(maxsplit=1) or [b""])[0]
        yield body, match.start("uri")
        return
    place = match.start()
    for body in _of_one_length(match[0]):
        if len(body) >= _SHORTEST and body.lower() != body != body.upper():
            yield body, place
        place += len(body)


def _of_one_length(text: bytes) -> Iterator[bytes]:
    """Yield lines of one length together, with a shorter one at their end; all others alone."""
    parts = re.split(rb"(%s)" % _LINE_END, text)
    pieces = [parts[0]]
    before = length = len(parts[0])
    for end, line in zip(parts[1::2], parts[2::2], strict=True):
        if length not in _LINES or not before == length >= len(line):
            yield b"".join(pieces)
            yield end
            pieces = [line]
            length = len(line)
        else:
            pieces += [end, line]
        before = len(line)
    yield b"".join(pieces)


def _decoded(body: bytes) -> bytes:
    """Return the bytes that base64 stands for; none if it is cut or is no base64."""
    plain = re.sub(rb"\s|=|%3[dD]|\\[rn]", b"", body).translate(bytes.maketrans(b"-_", b"+/"))
    plain = plain[: len(plain) - (len(plain) % 4 == 1)]
    return base64.b64decode(plain + b"=" * (-len(plain) % 4))


def _encoded(content: bytes, like: bytes) -> bytes:
    """Return bytes in base64 as other base64 is written: its two last signs, lines and padding."""
    text = base64.b64encode(content)
    if re.search(rb"[_-]", like):
        text = text.translate(bytes.maketrans(b"+/", b"-_"))
    if not like.endswith((b"=", b"%3D", b"%3d")) and len(re.findall(_SIGN, like)) % 4:
        text = text.rstrip(b"=")
    first, end, _ = (*re.split(rb"(%s)" % _LINE_END, like, maxsplit=1), b"", b"")[:3]
    if not end:
        return text
    return end.join(text[at : at + len(first)] for at in range(0, len(text), len(first)))
