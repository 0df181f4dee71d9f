from dataclasses import dataclass
from pathlib import Path

from repro.results.crate import About
from repro.results.recording import Recording


@dataclass
class Contents:
    root: Path
    files: dict[str, bytes | Path]
    about: About
    recording: Recording
    commit: str | None
    moment: int = 0
