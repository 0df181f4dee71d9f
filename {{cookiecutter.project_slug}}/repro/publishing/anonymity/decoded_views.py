"""Show bytes as a reader may see them: escapes undone, disguises taken off.

Escapes are those of URLs, JSON, C, HTML, mails and LaTeX. Disguises are characters of no width,
letters of full width, ligatures, and UTF-32, as NumPy stores texts. Promises each view in lower
case, and nothing of where in the bytes something in it stands.
"""

import re
import unicodedata
from collections.abc import Iterator
from html import unescape

_ROUNDS = 3  # of escapes in each other: a URL in JSON in HTML
_ESCAPE = re.compile(
    rb"%[0-9a-f]{2}"
    rb"|=[c-f][0-9a-f](?:=[89ab][0-9a-f])+"  # of mails
    rb"|(?<!\\)\\+(?:u[0-9a-f]{4}|x[0-9a-f]{2}|[0-3][0-7]{2})"  # a row of them is looked at once
    rb"|\\[abfnrtv/\"'\\]"
    rb"|&(?:#[0-9]{1,7}|#x[0-9a-f]{1,6}|[a-z]{2,8});",
    re.IGNORECASE,
)
# M{\"u}ller, \'e, \o{}: each is looked for without its accent, too (name_forms.py).
_LATEX = re.compile(
    rb"\{?\\(?:[\"'`^~=.]|[uvhcdbkr](?=[{ ]))[{ ]?\\?([a-z])\}{0,2}"
    rb"|\{?\\(ss|ae|oe|[olij])(?:\{\}|\}|[ ]|(?![a-z]))"
)
# Characters of no width, letters of full width, of ligatures and of mathematics, in UTF-8.
_DISGUISED = re.compile(
    rb"\xc2\xad|\xe2\x80[\x8b-\x8f]|\xe2\x81[\xa0-\xa4]|\xef\xbb\xbf|\xef[\xac\xbc\xbd]"
    rb"|\xf0\x9d[\x90-\x9f]"
)
_TEXTS = re.compile(rb"[\t\n\r\x20-\x7e]{6,}")  # in a binary file
# UTF-32, as NumPy stores texts: the first pattern is quick to find.
_WIDEST = re.compile(rb"\0\0\0[\x20-\x7e]\0\0\0[\x20-\x7e]\0\0\0")
_WIDEST_TEXTS = re.compile(rb"(?:[\x20-\x7e]\0\0\0?){2,}")
_UNITS = re.compile(rb"(?<!\\)\\+u(d[89ab][0-9a-f]{2})\\+u(d[c-f][0-9a-f]{2})")  # of one character


def decoded_views(low: bytes) -> Iterator[bytes]:
    """Yield lower-case bytes with their escapes undone, again and again while there are some."""
    if _WIDEST.search(low):
        yield b"\n".join(text.replace(b"\0", b"") for text in _WIDEST_TEXTS.findall(low))
    if b"\0" in low:  # escapes are of ASCII characters alone
        low = b"\n".join(_TEXTS.findall(low))
    if _LATEX.search(low):
        yield _LATEX.sub(lambda match: match[1] or match[2], low)
    if _DISGUISED.search(low):
        low = _undisguised(low)
        yield low
    for _ in range(_ROUNDS):
        if not _ESCAPE.search(low):
            return
        low = _ESCAPE.sub(_undone, _UNITS.sub(_joined, low)).lower()
        yield _undisguised(low) if _DISGUISED.search(low) else low


def _undisguised(low: bytes) -> bytes:
    """Return text with wide letters and ligatures as plain ones, and without what nobody sees."""
    text = unicodedata.normalize("NFKC", low.decode("utf-8", "surrogateescape"))
    seen = "".join(sign for sign in text if sign.isascii() or unicodedata.category(sign) != "Cf")
    return seen.lower().encode("utf-8", "surrogateescape")


def _joined(match: re.Match[bytes]) -> bytes:
    """Return the character that two units of UTF-16 stand for."""
    return bytes.fromhex((match[1] + match[2]).decode()).decode("utf-16-be").encode()


def _undone(match: re.Match[bytes]) -> bytes:
    """Return what an escape stands for: bytes of UTF-8, a blank for a tab and the like."""
    text = match[0].lstrip(b"\\")
    if text[:1] in b"%=":  # the latter in mails
        return bytes.fromhex(re.sub(b"[%=]", b"", text).decode())
    if text[:1] == b"&":
        return unescape(text.decode()).encode("utf-8", "replace")
    if text[:1] == b"u":
        return chr(int(text[1:], 16)).encode("utf-8", "replace")
    if text[:1] == b"x":
        return bytes.fromhex(text[1:].decode())
    if text.isdigit():
        return bytes([int(text, 8)])
    if text == b"n":
        return b"\n"
    return b" " if text.isalpha() else match[0][-1:]
