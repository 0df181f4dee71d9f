"""Say what an archive holds before the forms of the venues are added to it.

Each form is a function of these contents alone, so that the same contents give the same bytes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from repro.core.bounded import read_whole
from repro.core.hashing import sha256_bytes, sha256_file
from repro.results.about import About
from repro.results.recording import Recording

Content: TypeAlias = bytes | Path  # of a file: what was made, or where it lies
Files: TypeAlias = Mapping[str, Content]  # by their names in the archive


@dataclass(frozen=True)
class PackedTraining:
    """One seed of a claim: its results lie below `place` of the archive."""

    name: str
    text: str
    place: str
    manifest: str  # of the data


@dataclass(frozen=True)
class Contents:
    """The project of an archive, its files and trainings; `moment`: in seconds since 1970.

    `commit` is None in an archive that must not tell it; `files` and `about` are then those that
    tell nobody's name. `parts`: by claim, the number of samples of each part of its data.
    """

    root: Path
    files: Files
    about: About
    recording: Recording
    trainings: list[PackedTraining]
    commit: str | None
    moment: int
    parts: Mapping[str, Mapping[str, int]] = field(default_factory=dict)


def content_size(content: Content) -> int:
    """Return the number of bytes of a file."""
    return len(content) if isinstance(content, bytes) else content.stat().st_size


def content_bytes(content: Content) -> bytes:
    """Return the bytes of a file; UserError for one that is too large to be read as a whole."""
    return content if isinstance(content, bytes) else read_whole(content)


def content_digest(content: Content) -> str:
    """Return the SHA-256 of a file."""
    return sha256_bytes(content) if isinstance(content, bytes) else sha256_file(content)
