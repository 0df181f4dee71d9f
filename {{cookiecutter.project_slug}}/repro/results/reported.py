"""Keep the verdicts that others report, in results/verdicts/: data of strangers, and no evidence.

Whatever file somebody sends, it is kept only if it is a verdict.json as `verify` writes it: within
bounds, each field of its type, every text of a known form. Promises that what is kept is the same
bytes for the same verdict, that nothing is written if one of several files is refused, and that
what a person or a machine could be known by is left out: free texts, the commit, paths. Of what
differed only the kinds of conditions are kept, and where the trace parted.

The author commits the folder. It is a part of the results, and no condition of a training.
"""

import json
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    Strict,
    ValidationError,
)

from repro.core import layout
from repro.core.bounded import DamagedFile, parse_json, read_whole
from repro.core.errors import UserError, reason_of, refuse
from repro.core.files import JsonObject, write_file
from repro.core.hashing import sha256_bytes
from repro.results.claims import read_recording
from repro.results.recording import CLAIM_NAME, Choice, RecordedCheckpoint

REPORTED = Path(layout.RESULTS, layout.VERDICTS)
LARGEST_VERDICT = 1 << 20  # bytes: one that names ten thousand changed files
MOST_VERDICTS = 1000  # that are kept: each has its lines on the page
LONGEST = 10**9  # seconds
_LONGEST_TEXT = 300  # characters of a text that is kept
_MOST_STRETCHES = 1000
_KINDS = ("claim", "code", "config", "data", "environment", "lock", "packages")  # of conditions
_EXPECTED = "expected a verdict.json as verify writes it"


def _on_one_line(text: str) -> str:
    if not text.isprintable():  # control characters, marks that turn the direction, line ends
        raise ValueError("it has characters that cannot be seen")
    return text


def _is_class(text: str) -> str:
    """Check a hardware class: ASCII, no path, no account.

    Names of CPUs have "w/ Graphics" and "CPU @ 2.20GHz".
    """
    if not text.isascii() or re.search(r"[/\\]\S|\S@|~\S", text):
        raise ValueError("it is no name of a hardware class")
    return _on_one_line(text)


_Text = Annotated[str, Field(min_length=1, max_length=_LONGEST_TEXT)]
_Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}\z")]
_Step = Annotated[int, Field(ge=0, lt=2**53)]
_Stretch = Annotated[tuple[_Step, _Step], Strict(False)]  # a list of two in JSON
_Kind = Literal["claim", "code", "config", "data", "environment", "lock", "packages", "other"]
_FreeText = Annotated[str, Field(max_length=LARGEST_VERDICT)]


class _Checkpoint(BaseModel):
    """A RecordedCheckpoint of a stranger."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)
    step: _Step
    bits: _Digest

    @property
    def recorded(self) -> RecordedCheckpoint:
        """Return the same, to be compared with what was recorded."""
        return RecordedCheckpoint(self.step, self.bits)


class _Told(BaseModel):
    """What of a verdict is kept as it was sent; the names are those of `Verdict`."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)
    claim: Annotated[str, Field(pattern=CLAIM_NAME, max_length=255)]
    seed: Annotated[int, Field(ge=0, lt=10**19)]
    what: Literal["whole", "prefix", "segments"]
    verdict: Literal["IDENTICAL", "EQUIVALENT", "DIFFERENT"]
    steps: Annotated[list[_Stretch], Field(max_length=_MOST_STRETCHES)]
    hardware_class: Annotated[_Text, AfterValidator(_is_class)]
    metric: Annotated[_Text, AfterValidator(_on_one_line)]
    checkpoint: Choice
    value: FiniteFloat | None = None
    bits: _Digest | None = None
    best: _Checkpoint | None = None
    conditions_digest: _Digest
    seconds: Annotated[FiniteFloat, Field(ge=0, lt=LONGEST)] | None = None


class ReportedVerdict(_Told):
    """A verdict that somebody reported, as results/verdicts/ keeps it.

    `differing`: how many lines each kind of condition had among what differed. `parted_at`: the
    step at which it left the recorded trace.
    """

    differing: dict[_Kind, _Step] = {}
    parted_at: _Step | None = None


class _Sent(_Told):
    """All that a verdict.json may hold: a test holds that these are the fields of `Verdict`."""

    why: _FreeText
    differences: list[_FreeText]
    recorded_on: list[_FreeText]
    recorded: FiniteFloat | None = None
    recorded_bits: _FreeText | None = None
    recorded_best: _Checkpoint | None = None
    interval: Annotated[tuple[FiniteFloat, FiniteFloat], Strict(False)] | None = None
    commit: _FreeText | None = None


class Kept(NamedTuple):
    """A verdict and the file in results/verdicts/ that holds it; `is_new`: it was not there."""

    path: Path
    verdict: ReportedVerdict
    is_new: bool


class Reported(NamedTuple):
    """What results/verdicts/ holds; `left_out`: a line for each file that `report` did not write.

    The order of the verdicts depends on what they say alone.
    """

    verdicts: list[ReportedVerdict]
    left_out: list[str]


def keep_verdicts(root: Path, files: Sequence[Path]) -> list[Kept]:
    """Keep the verdicts in these files; UserError, a line a file, if one of them is none."""
    read_recording(root)  # without one there is no page to show them on
    found = []
    faults = []
    for file in files:
        try:
            found.append(_read_sent(file))
        except UserError as error:
            faults += error.lines
        except OSError as error:
            faults.append(f"{file}: {error.strerror or error}: {_EXPECTED}")
    refuse(faults)
    contents = {_bytes_of(verdict): verdict for verdict in found}
    places = {content: root / REPORTED / f"{sha256_bytes(content)}.json" for content in contents}
    new = {content for content, path in places.items() if not _holds(path, content)}
    if len(_files(root)) + len(new) > MOST_VERDICTS:
        raise UserError(f"{REPORTED} would hold more than {MOST_VERDICTS} verdicts: delete some")
    for content in new:
        write_file(places[content], content)
    return [Kept(places[c].relative_to(root), contents[c], c in new) for c in contents]


def read_reported(root: Path) -> Reported:
    """Read what is kept. A file that is not as `report` wrote it is left out, with a line."""
    reported = Reported([], [])
    paths = _files(root)
    for path in paths[:MOST_VERDICTS]:
        try:
            content = read_whole(path, LARGEST_VERDICT)
            if sha256_bytes(content) != path.stem:
                raise ValueError
            verdict = ReportedVerdict.model_validate(parse_json(content, names_once=True))
            reported.verdicts.append(verdict)
        except (OSError, UserError, ValueError):
            fault = f"{path.name!a} is left out: it is not as report wrote it"
            reported.left_out.append(f"{REPORTED}: {fault}")
    if more := len(paths[MOST_VERDICTS:]):
        reported.left_out.append(f"{REPORTED}: {more} more are left out")
    reported.verdicts.sort(key=lambda v: (v.claim, v.seed, v.hardware_class, _bytes_of(v)))
    return reported


def _files(root: Path) -> list[Path]:
    """Return the files of results/verdicts/, sorted."""
    return sorted((root / REPORTED).glob("*.json"))


def _read_sent(path: Path) -> ReportedVerdict:
    """Read a file that somebody sent; UserError, a line, if it is no verdict.json of `verify`."""
    try:
        content = parse_json(read_whole(path, LARGEST_VERDICT), names_once=True)
        return _without_free_texts(_Sent.model_validate(content))
    except ValueError as error:
        reason = reason_of(error)
        if isinstance(error, ValidationError):
            reason = _first_fault(error)
        raise DamagedFile(path, reason, f"{_EXPECTED}: ask for it again") from error


def _first_fault(error: ValidationError) -> str:
    """Say what the first fault is; its place may be a name that a stranger made up."""
    faults = error.errors(include_url=False, include_input=False)
    place = ".".join(map(str, faults[0]["loc"]))
    shown = place if re.fullmatch(r"[\w.]{0,80}", place, re.ASCII) else ascii(place[:80])
    reason = f"{shown}: {faults[0]['msg']}" if shown else faults[0]["msg"]
    return f"{reason}, and {len(faults) - 1} more faults" if len(faults) > 1 else reason


def _without_free_texts(sent: _Sent) -> ReportedVerdict:
    """Return what is kept of a verdict."""
    steps = []
    kinds: Counter[str] = Counter()
    for line in sent.differences:
        if parted := re.match(r"they part (?:at step (\d{1,15})|before the first step): ", line):
            steps.append(int(parted[1] or 0))
        else:
            kinds[_kind_of(line)] += 1
    kept = {name: getattr(sent, name) for name in _Told.model_fields}
    return ReportedVerdict.model_validate(
        {**kept, "differing": dict(kinds), "parted_at": min(steps, default=None)}
    )


def _kind_of(line: str) -> str:
    """Return the kind of condition that a line among the differences is about."""
    kind = re.match(r"\w+", line)
    return kind[0] if kind and kind[0] in _KINDS else "other"


def _bytes_of(verdict: ReportedVerdict) -> bytes:
    """Return the file of a verdict: what has its default is left out, as kits before it do."""
    content: JsonObject = verdict.model_dump(exclude_defaults=True)
    return (json.dumps(content, indent=1, sort_keys=True) + "\n").encode()


def _holds(path: Path, content: bytes) -> bool:
    """Tell whether a file is there with these bytes."""
    try:
        return read_whole(path, LARGEST_VERDICT) == content
    except (OSError, UserError):
        return False
