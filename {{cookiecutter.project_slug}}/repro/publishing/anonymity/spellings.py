"""Find and replace words in bytes, however a text's encoding or its escapes spell them.

Promises to see a word of any case as a whole word, which means that no ASCII letter or digit stands
beside it (nor, beside an end that is a letter as é or И, another such letter), in UTF-8 and in
UTF-16 of both orders, and also where characters are written as %C3%A9, \\u00e9, \\303\\251 or
&#233;, up to three of these in each other. Between the words of a name one to three blanks of any
kind, dots, commas, dashes, underscores or ~ may stand, or a line's end with the next line's indent
and comment mark, and one or two initials. Does not see into compressed data (containers.py) or
base64 (base64_texts.py).
"""

import re
import unicodedata
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import cached_property
from typing import NamedTuple

from repro.publishing.anonymity.decoded_views import decoded_views
from repro.publishing.anonymity.name_gaps import GAP, GAP_ESCAPED, LONGEST_GAP, WIDE_GAPS

_LETTER = b"[0-9a-z]"
# Latin, Greek, Cyrillic and Armenian letters of two bytes, of which whole words are found as those
# of ASCII are. Other scripts part no words by blanks, or write short words onto others.
_FURTHER = "\u00c0-\u058f"
_FURTHER_LETTERS = {
    "utf-8": [rb"[\xc3-\xd5][\x80-\xbf]"],
    "utf-16-le": [rb"[\xc0-\xff]\x00", rb"[\x00-\xff][\x01-\x05]"],
    "utf-16-be": [rb"\x00[\xc0-\xff]", rb"[\x01-\x05][\x00-\xff]"],
}

_ALIKE = {"'": "\u2019\u02bc", "-": "\u2010\u2011\u2013"}  # as typography writes them

_PLAIN = bytes([*b"\t\n\r\f", *range(0x20, 0x7F)])
_WHOLE_RUN = re.compile(r"(?<![0-9a-z])[0-9a-z]{2,}(?![0-9a-z]|[^\x00-\x7f])")


class Found(NamedTuple):
    """A word that was found: the word, and the number of the line, from 1 on; 0 is not known."""

    word: str
    line: int


class Spellings:
    """Words to look for, each with what takes its place."""

    def __init__(self, words: Mapping[str, str]) -> None:
        normal = {unicodedata.normalize("NFC", word): new for word, new in words.items()}
        # The longest first: a word inside another one must not leave the rest of it.
        ordered = sorted(normal, key=lambda word: (-len(word), word))
        self._words = [_Word(word, normal[word]) for word in ordered]
        self._by_core: dict[bytes, list[_Word]] = {}  # there may be tens of thousands
        for word in self._words:
            self._by_core.setdefault(word.core, []).append(word)
        # How many bytes a word may take: each character escaped, and that escaped again.
        self.reach = max(map(len, ordered), default=0) * 16 + LONGEST_GAP

    def find(self, data: bytes, line: int = 1) -> list[Found]:
        """Return the words in `data`, which begins in line number `line`, in order of lines."""
        low = data.lower()
        found = {
            word.text: Found(word.text, line + low.count(b"\n", 0, place))
            for word, place in self._places(low, {})
        }
        for view in decoded_views(low):
            for word, _ in self._places(view, found):
                found[word.text] = Found(word.text, _line_of(word, low, line))
        return sorted(found.values(), key=lambda hit: (hit.line, hit.word))

    def _places(self, low: bytes, seen: Collection[str]) -> list[tuple["_Word", int]]:
        """Return which words, but those `seen`, stand in lower-case bytes, with their places."""
        cores = _runs(low) & self._by_core.keys()
        likely = [word for core in cores for word in self._by_core[core] if word.text not in seen]
        if not low.translate(None, delete=_PLAIN):  # then hardly any word in other letters is there
            likely = [word for word in likely if word.may_be_plain]
        places = [(word, word.place(low)) for word in likely]
        return [(word, place) for word, place in places if place is not None]

    def replace(self, data: bytes) -> bytes:
        """Return `data` with what stands for each word in its place, in the data's encoding.

        A spelling with escapes in escapes may stay: `find` sees it.
        """
        here = {hit.word for hit in self.find(data)}
        for word in self._words:
            if word.text in here:
                data = word.replace(data)
        return data


class _Word:
    """A word to look for; `core` is a run of ASCII letters and digits that each spelling has."""

    def __init__(self, text: str, new: str) -> None:
        self.text = text
        self._new = new
        # Before a letter with an accent the accent may stand apart: the run would be longer.
        whole = _WHOLE_RUN.findall(text.lower())
        self.may_be_plain = text.isascii() or _may_be_plain(text)
        self.core = max(whole, key=len, default="").encode()

    @cached_property
    def _patterns(self) -> list[re.Pattern[bytes]]:
        """The word in UTF-8 and UTF-16: made when it is likely, for there may be thousands."""
        patterns = (_narrow(self.text), _wide(self.text, "le"), _wide(self.text, "be"))
        return [re.compile(pattern) for pattern in patterns]

    def place(self, low: bytes) -> int | None:
        """Return where the word stands first in lower-case bytes; None if it does not."""
        for pattern in self._patterns:
            if match := pattern.search(low):
                return match.start()
        return None

    def replace(self, data: bytes) -> bytes:
        new = _constant(self._new.encode())
        data = re.sub(_spelled(self.text), new, data, flags=re.IGNORECASE)
        for order in ("le", "be"):
            wide = _constant(self._new.encode(f"utf-16-{order}"))
            data = re.sub(_wide(self.text, order), wide, data, flags=re.IGNORECASE)
        return data


def _may_be_plain(text: str) -> bool:
    """Tell whether a word may be spelled by bytes of plain text alone: Strauß as STRAUSS.

    So may some Chinese words in UTF-16.
    """
    return any(
        all(
            any(not form.encode(encoding).translate(None, delete=_PLAIN) for form in _forms(sign))
            for sign in text
        )
        for encoding in ("utf-8", "utf-16-le")
    )


def _runs(low: bytes) -> set[bytes]:
    """Return all runs of ASCII letters and digits, also those in UTF-16; and the empty one.

    A word that is looked for begins and ends where a run does, so each run in it is one of these.
    """
    runs = {b"", *re.findall(rb"[0-9a-z]{2,}", low)}
    if b"\0" in low:
        for wide in (rb"(?:[0-9a-z]\0){2,}", rb"(?:\0[0-9a-z]){2,}"):
            runs |= {run.replace(b"\0", b"") for run in re.findall(wide, low)}
    return runs


def _line_of(word: _Word, low: bytes, first: int) -> int:
    """Return the line of a word that only the decoded text shows; 0 if it parts lines."""
    for number, text in enumerate(low.split(b"\n"), first):
        if any(word.place(view) is not None for view in decoded_views(text)):
            return number
    return 0


def _constant(new: bytes) -> Callable[[re.Match[bytes]], bytes]:
    return lambda match: new


def _forms(character: str) -> list[str]:
    """Return how a character is written in either case, as one sign or with its accents apart."""
    cases = {character, character.lower(), character.upper(), *_ALIKE.get(character, "")}
    return sorted({unicodedata.normalize(form, case) for case in cases for form in ("NFC", "NFD")})


def _parts(word: str) -> Iterator[str | None]:
    """Yield the characters of a word; None for a gap between the words of a name."""
    for part in re.split(r"(\s+)", word):
        if part.isspace():
            yield None
        else:
            yield from part


def _either(choices: Collection[bytes]) -> bytes:
    return b"(?:%s)" % b"|".join(sorted(choices)) if len(choices) > 1 else b"".join(choices)


def _narrow(word: str) -> bytes:
    """Return the pattern of a word in lower-case UTF-8."""
    pieces = []
    for character in _parts(word):
        if character is None:
            pieces.append(GAP)
        else:
            pieces.append(_either({re.escape(form.encode().lower()) for form in _forms(character)}))
    return _bounded_by(word, "utf-8", b"(?<!%s)" % _LETTER, pieces, b"(?!%s)" % _LETTER)


def _bounded_by(
    word: str, encoding: str, before: bytes, pieces: list[bytes], after: bytes
) -> bytes:
    """Return the pattern of a word that no letter or digit goes on."""
    further = _FURTHER_LETTERS[encoding]
    start = before if re.match(f"[0-9A-Za-z{_FURTHER}]", word) else b""
    end = after if re.search(f"[0-9A-Za-z{_FURTHER}]$", word) else b""
    if start and not word[0].isascii():
        start += b"".join(b"(?<!%s)" % letter for letter in further)
    if end and not word[-1].isascii():
        end += b"".join(b"(?!%s)" % letter for letter in further)
    return start + b"".join(pieces) + end


def _wide(word: str, order: str) -> bytes:
    """Return the pattern of a word in lower-case UTF-16."""
    pieces = []
    for character in _parts(word):
        if character is None:
            pieces.append(WIDE_GAPS[order])
        else:
            forms = {form.encode(f"utf-16-{order}").lower() for form in _forms(character)}
            pieces.append(_either({re.escape(form) for form in forms}))
    letter = b"%s\\x00" % _LETTER if order == "le" else b"\\x00%s" % _LETTER
    encoding = f"utf-16-{order}"
    return _bounded_by(word, encoding, b"(?<!%s)" % letter, pieces, b"(?!%s)" % letter)


def _spelled(word: str) -> bytes:
    """Return the pattern of a word in UTF-8 whose characters may be escaped, one by one."""
    pieces = []
    for character in _parts(word):
        if character is None:
            pieces.append(GAP_ESCAPED)
        else:
            pieces.append(_either({_ways(form) for form in _forms(character)}))
    before = (
        rb"(?:(?<![0-9a-z])|(?<=\\[abfnrtv])|(?<=%[0-9a-f][0-9a-f])|(?<=\\u[0-9a-f]{4})"
        rb"|(?<=\\x[0-9a-f]{2})|(?<=\\[0-3][0-7]{2}))"
    )
    # From the third backslash of a row on nothing begins that does not begin at its second one.
    inside_a_row = rb"(?!(?<=\\\\)\\)"
    return inside_a_row + _bounded_by(word, "utf-8", before, pieces, b"(?!%s)" % _LETTER)


def _ways(form: str) -> bytes:
    """Return the pattern of a character with its accents: as it is, or in an escape of any kind."""
    return b"".join(_either({*_ways_of(character)}) for character in form)


def _ways_of(character: str) -> Iterator[bytes]:
    plain = character.encode()
    slashes = b"" if character.isalnum() else rb"\\*"
    yield slashes + re.escape(plain)
    yield b"".join(b"%%%02x" % byte for byte in plain)
    units = character.encode("utf-16-be")
    yield b"".join(rb"\\+u%02x%02x" % (*units[at : at + 2],) for at in range(0, len(units), 2))
    yield b"".join(rb"\\+x%02x" % byte for byte in plain)
    yield b"".join(rb"\\+%03o" % byte for byte in plain)
    yield b"&#(?:0*%d|x0*%x);" % (ord(character), ord(character))
