"""Search the files of an archive for words: in their names, their bytes and what they hold packed.

Promises to name each file with the place in it and the line, once for each word, and to read any
number of bytes with a bounded part of them in memory.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from repro.publishing.anonymity.containers import Opener
from repro.publishing.anonymity.spellings import Found, Spellings

_CHUNK = 1 << 22  # bytes
_IN_ITS_NAME = "its name"


@dataclass(frozen=True)
class Hit:
    """A word in a file: its `place` is a member of a container, "its name", or ""."""

    name: str
    place: str
    line: int
    word: str

    def __str__(self) -> str:
        parts = [self.name, self.place, f"line {self.line}" if self.line else ""]
        return ": ".join(filter(None, parts))

    @property
    def is_in_name(self) -> bool:
        """Whether it is the file's own name that has the word."""
        return self.place == _IN_ITS_NAME


def search(name: str, content: bytes | Path, words: Spellings, opener: Opener) -> list[Hit]:
    """Return where the words stand in a file and in its name; each once in each place."""
    in_name = words.find(name.encode("utf-8", "surrogateescape"))
    hits = [Hit(name, _IN_ITS_NAME, 0, found.word) for found in in_name]
    for place, stream in opener.parts(name, content):
        found = {hit.word for hit in hits if hit.place == place}
        for word, line in _search_stream(stream, words):
            if word not in found:
                found.add(word)
                hits.append(Hit(name, place, line, word))
        if place:
            hits += [
                Hit(name, place, 0, word)
                for word, _ in words.find(place.encode())
                if word not in found
            ]
    return _once(hits)


def _once(hits: list[Hit]) -> list[Hit]:
    """Leave out what is seen in a container as it is stored, and again in a member of it."""
    inside = {hit.word for hit in hits if hit.place and not hit.is_in_name}
    return [hit for hit in hits if hit.place or hit.word not in inside]


def chunks(stream: BinaryIO, overlap: int) -> Iterator[tuple[bytes, int]]:
    """Yield a stream in pieces, each after the end of the one before, with its line."""
    before = b""
    line = 1
    stream.seek(0)
    while data := stream.read(_CHUNK):
        piece = before + data
        yield piece, line
        kept = min(overlap, len(piece))
        before = piece[len(piece) - kept :]
        line += piece.count(b"\n", 0, len(piece) - kept)


def _search_stream(stream: BinaryIO, words: Spellings) -> Iterator[Found]:
    for data, line in chunks(stream, words.reach):
        yield from words.find(data, line)
