"""Say what an archive holds before the forms of the venues are added to it.

Each form is a function of these contents alone, so that the same contents give the same bytes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from repro.results.about import About
from repro.results.recording import Recording

Files: TypeAlias = Mapping[str, bytes | Path]  # by their names in the archive


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
    tell nobody's name.
    """

    root: Path
    files: Files
    about: About
    recording: Recording
    trainings: list[PackedTraining]
    commit: str | None
    moment: int
