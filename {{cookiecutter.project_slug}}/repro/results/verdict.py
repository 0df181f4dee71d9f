"""What a verification says: the verdict, and the evidence for it, as verdict.json holds them.

IDENTICAL: what was compared has the recorded bits. EQUIVALENT: only the hardware class differs from
every recorded one, and the value lies inside the prediction interval of the recorded seeds.
DIFFERENT: all else.
"""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from repro.core import layout
from repro.core.files import parse_object, write_file
from repro.results.recording import Choice, Interval, RecordedCheckpoint

IDENTICAL = "IDENTICAL"
EQUIVALENT = "EQUIVALENT"
DIFFERENT = "DIFFERENT"

WHOLE = "whole"
PREFIX = "prefix"
SEGMENTS = "segments"

_FILE = "verdict.json"


@dataclass
class Verdict:
    """What verdict.json holds; `steps`: the first and last of each stretch that was trained.

    `what` was compared: WHOLE, PREFIX or SEGMENTS. `value` is of the claim's `checkpoint`, `bits`
    are of the last one, `best` is there if the claim is of the best one. `interval`: where 95 % of
    further seeds lie. `seconds`: how long all of the verification took, its evaluation included;
    None in the files of older versions of the kit.
    """

    claim: str
    seed: int
    what: str = WHOLE
    verdict: str = DIFFERENT
    why: str = ""
    differences: list[str] = field(default_factory=list)
    steps: list[tuple[int, int]] = field(default_factory=list)
    hardware_class: str = ""
    recorded_on: list[str] = field(default_factory=list)
    metric: str = ""
    value: float | None = None
    recorded: float | None = None
    bits: str | None = None
    recorded_bits: str | None = None
    checkpoint: Choice = "last"
    best: RecordedCheckpoint | None = None
    recorded_best: RecordedCheckpoint | None = None
    interval: Interval | None = None
    commit: str | None = None
    conditions_digest: str = ""
    seconds: float | None = None

    @property
    def what_next(self) -> str:
        """Say how bits can be compared here, too, where the value alone was."""
        if self.verdict != EQUIVALENT:
            return ""
        return (
            "\nto compare bits here, too: make record (trains all seeds, and adds this "
            "machine\nbeside the recorded ones, which stay as they are)"
        )


def outcome_word(verdict: str, what: str) -> str:
    """Return a verdict on a whole training; of a part that it agrees or differs.

    `verify` gives no other verdict on a part; one that a file has nevertheless is told as it is.
    """
    words = {IDENTICAL: "AGREES", DIFFERENT: "DIFFERS"}
    if what == WHOLE or verdict not in words:
        return verdict
    return f"{what.upper()} {words[verdict]}"


def write_verdict(folder: Path, verdict: Verdict) -> Path:
    """Write verdict.json into a folder of runs/verify/, and return its path."""
    path = folder / _FILE
    write_file(path, (json.dumps(asdict(verdict), indent=1) + "\n").encode())
    return path


def verdicts_newest_first(root: Path) -> list[Verdict]:
    """Read the verdicts in runs/verify/; a half-written one says nothing and is left out."""
    paths = (root / layout.RUNS / layout.VERIFIED).glob(f"*/{_FILE}")
    newest_first = sorted(paths, key=lambda path: (path.stat().st_mtime_ns, path), reverse=True)
    verdicts = map(_read_verdict, newest_first)
    return [verdict for verdict in verdicts if verdict]


def _read_verdict(path: Path) -> Verdict | None:
    try:
        return TypeAdapter(Verdict).validate_python(parse_object(path))
    except ValidationError:
        return None
