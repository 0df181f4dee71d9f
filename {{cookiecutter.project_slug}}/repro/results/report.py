"""Write the recorded results and the verdicts on them as a page to look at: results/report.html.

It is what a reviewer opens first: of each claim what is claimed, the command that leads to a
verdict, the verdicts on whichever machines gave one, what it takes, what differs. Verdicts that
others reported (results/verdicts/) are told apart from those that were given here.

One file that needs nothing else: no network, no script; the pictures are inside. It tells what
results/ and runs/verify/ hold, nothing about the moment or the machine that wrote it: the same
results give the same bytes. The page's text is report.html.jinja, its look report.css; the template
escapes every text, whoever wrote it.
"""

import shlex
from base64 import b64encode
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup

from repro.core import layout
from repro.core.bounded import read_text, read_whole
from repro.core.errors import UserError
from repro.core.hashing import sha256_file
from repro.core.project import command_line, project_table
from repro.environment.locks import LOCK, read_lock
from repro.results.about import read_about
from repro.results.assessed import Assessed, assess
from repro.results.claims import read_recording
from repro.results.document import number
from repro.results.recording import RecordedClaim, Recording, value_name
from repro.results.reported import read_reported
from repro.results.shown import (
    BitsRow,
    Outcomes,
    ShownVerdict,
    bits_by_class,
    compared,
    differing_kinds,
    lasting,
    outcomes,
    shown_own,
    shown_reported,
    together,
)
from repro.results.verdict import Verdict, verdicts_newest_first
from repro.runs.git import is_tracked

REPORT = Path(layout.RESULTS, "report.html")
_HERE = Path(__file__).parent
_MEDIA_TYPES = {".png": "image/png", ".svg": "image/svg+xml"}  # of figures that the page shows
_LONGEST_TEXT = 4000  # characters of a text among the figures
_FIGURES = {  # said below them, and to those who do not see them
    "learning_curves_seeds": "Learning curves of all seeds: mean, band from lowest to highest.",
    "learning_curves": "Learning curves of the first seed.",
}


class Project(NamedTuple):
    """What CITATION.cff and pyproject.toml say of the project."""

    title: str
    description: str
    python: str


class Picture(NamedTuple):
    """A figure, as a data URL or as a text, and what it shows."""

    about: str
    source: str = ""
    text: str = ""


class ClaimOnPage(NamedTuple):
    """What the page says of a claim: what was recorded, how to verify it, who found what.

    `verify` is the one command that leads to a verdict, `train` the author's own. `own`: the
    verdicts that were given here, whose evidence is known. `verdicts`: these, and the reported ones
    that count.
    """

    name: str
    recorded: RecordedClaim
    verify: str
    train: list[str]
    takes: list[str]
    verdicts: list[ShownVerdict]
    outcomes: list[Outcomes]
    own: list[Verdict]
    bits: dict[str, list[BitsRow]]
    pictures: list[Picture]


class Evidence(NamedTuple):
    """A value that was found here, and the recorded one; None where there is none."""

    label: str
    here: str | float
    recorded: str | float | None


def refresh_report(root: Path) -> None:
    """Write results/report.html anew if it is there, but not that of a commit or of an archive.

    What is published stays as it is: the sums of an unpacked archive would not be its files' else.
    """
    is_packed = (root / layout.SUMS).is_file()
    if (root / REPORT).is_file() and not is_packed and not is_tracked(root, REPORT):
        with suppress(OSError):  # an image that cannot be written: the verdict's own page has all
            write_report(root)


def write_report(root: Path, path: Path | None = None) -> Path:
    """Write the page (default: results/report.html); UserError if nothing is recorded."""
    recording = read_recording(root)
    own = _verdicts_by_claim(root, recording)
    reported = read_reported(root)
    assessed = [assess(verdict, recording) for verdict in reported.verdicts]
    torch = read_lock(root / LOCK).pins.get("torch")
    text = _template(root).render(
        style=Markup((_HERE / "report.css").read_text()),
        project=_read_project(root),
        recording=recording,
        claims=[
            _claim_on_page(root, name, claim, own[name], assessed)
            for name, claim in recording.claims.items()
        ],
        of_others=[each for each in assessed if each.not_counted],
        left_out=reported.left_out,
        lock=sha256_file(root / LOCK),
        torch=torch and torch.version,
    )
    target = path or root / REPORT
    target.write_bytes(text.encode(errors="replace"))  # JSON may hold what UTF-8 cannot
    return target


def _template(root: Path) -> Template:
    """Return the page's template: it escapes texts, and refuses a name that nobody gives it."""
    environment = Environment(
        loader=FileSystemLoader(_HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(number=number, as_typed=shlex.join, lasting=lasting)
    return environment.get_template(
        "report.html.jinja",
        globals={
            "compared": compared,
            "differing_kinds": differing_kinds,
            "evidence_of": _evidence,
        },
    )


def _read_project(root: Path) -> Project:
    files = {name: root / name for name in ("pyproject.toml", "CITATION.cff")}
    texts = {name: read_whole(path) for name, path in files.items() if path.is_file()}
    about = files["pyproject.toml"]
    project = project_table(read_text(about), str(about))
    title = str(project["name"])  # for machines: that of the folder
    with suppress(UserError):  # a fault in CITATION.cff is no reason to lose the page
        title = read_about(texts).title
    python = str(project.get("requires-python", ""))
    return Project(title, str(project.get("description", "")), python)


def _verdicts_by_claim(root: Path, recording: Recording) -> dict[str, list[Verdict]]:
    """Return each claim's newest verdict of each seed and kind, the newest one first."""
    newest: dict[tuple[str, int, str], Verdict] = {}
    for verdict in verdicts_newest_first(root):
        newest.setdefault((verdict.claim, verdict.seed, verdict.what), verdict)
    by_claim: dict[str, list[Verdict]] = {name: [] for name in recording.claims}
    for verdict in newest.values():
        by_claim.setdefault(verdict.claim, []).append(verdict)
    return by_claim


def _claim_on_page(
    root: Path,
    name: str,
    claim: RecordedClaim,
    own: list[Verdict],
    assessed: list[Assessed],
) -> ClaimOnPage:
    reported = [each for each in assessed if each.verdict.claim == name and not each.not_counted]
    verdicts = [shown_own(verdict, claim) for verdict in own]
    verdicts += [shown_reported(each) for each in reported]
    seed = next(iter(claim.values))
    return ClaimOnPage(
        name,
        claim,
        verify=f'make setup && make reproduce ARGS="{name} --seed {seed}"',
        train=_training_command(root, claim),
        takes=_takes(root, claim),
        verdicts=together(verdicts),
        outcomes=outcomes(verdicts),
        own=own,
        bits=bits_by_class(claim, own, reported),
        pictures=_pictures(root, name),
    )


def _pictures(root: Path, claim: str) -> list[Picture]:
    """Return the figures of a claim, the curves over all seeds first."""
    folder = root / layout.RESULTS / layout.FIGURES / claim
    pictures = []
    for path in sorted(folder.glob("*"), reverse=True):
        name = path.stem.replace("_", " ").capitalize()
        about = _FIGURES.get(path.stem, f"{name} of the first seed.")
        media_type = _MEDIA_TYPES.get(path.suffix)
        if media_type:
            source = f"data:{media_type};base64,{b64encode(read_whole(path)).decode()}"
            pictures.append(Picture(about, source=source))
        elif path.suffix == ".txt":
            text = read_whole(path).decode(errors="replace")[:_LONGEST_TEXT]
            pictures.append(Picture(about, text=text))
    return pictures


def _training_command(root: Path, claim: RecordedClaim) -> list[str]:
    seed = next(iter(claim.values))
    arguments = (*claim.arguments, f"seed={seed}")
    return command_line(root, "train", *arguments, processes=claim.conditions.processes)


def _evidence(verdict: Verdict) -> list[Evidence]:
    """Return the values that a verdict rests on, as far as it tells them."""
    evidence = []
    if verdict.value is not None:
        label = value_name(verdict.metric, verdict.checkpoint)
        evidence.append(Evidence(label, verdict.value, verdict.recorded))
    if verdict.bits is not None:
        evidence.append(Evidence("bits", verdict.bits, verdict.recorded_bits))
    if verdict.best is not None:
        best = str(verdict.recorded_best) if verdict.recorded_best else None
        evidence.append(Evidence("best checkpoint", str(verdict.best), best))
    if hardware := verdict.hardware_class:
        known = verdict.recorded_on
        recorded = hardware if hardware in known else "; ".join(known)
        evidence.append(Evidence("hardware", hardware, recorded))
    if verdict.commit is not None:
        evidence.append(Evidence("commit", verdict.commit, None))
    return evidence


def _takes(root: Path, claim: RecordedClaim) -> list[str]:
    """Return what a claim's training takes, and with which profile and lock it was recorded."""
    facts = []
    for cost in (claim.cost, *(added.cost for added in claim.added.values())):
        if cost:
            facts.append(cost.hardware)
            facts.append(f"{cost.seconds_per_seed} s per seed")
            facts.append(f"{cost.peak_memory_mib} MiB of memory")
    profiles = {known.get("profile", "unknown") for known in claim.environments.values()}
    facts.append(f"profile {' and '.join(sorted(profiles))}")
    if claim.conditions.lock != sha256_file(root / LOCK):
        facts.append("recorded with another lock")
    return facts
