"""Say a verdict in a few lines of Markdown, to be pasted into a review.

At most twelve lines, each of them about the results or about the kind of machine: no host, user or
folder. Texts of the author's are escaped, so that nothing in them is taken for Markdown or HTML.
"""

import os
import re
from pathlib import Path

from repro.core.errors import UserError
from repro.core.files import write_file
from repro.core.progress import duration
from repro.core.redaction import redact_text
from repro.core.text import listed
from repro.results.claims import read_recording
from repro.results.quick import outcome
from repro.results.recording import RecordedClaim, value_name
from repro.results.verdict import DIFFERENT, WHOLE, Verdict

STANDARD_OUTPUT = "-"
_MOST_DIFFERENCES = 3


def refuse_place(place: str | None) -> None:
    """Raise UserError for a file that cannot be written; None and "-" are none."""
    if place in (None, STANDARD_OUTPUT):
        return
    path = Path(place)
    if path.is_dir() or not os.access(path.parent, os.W_OK):
        raise UserError(f"--markdown {place}: expected - or a file in a folder of yours")


def paste(root: Path, verdict: Verdict, place: str) -> None:
    """Write the lines on a verdict to a file, or print them: `place` is its name, or "-"."""
    claim = read_recording(root).claims[verdict.claim]
    text = markdown(verdict, outcome(root, verdict), claim)
    if place == STANDARD_OUTPUT:
        print(text, end="")
    else:
        write_file(Path(place), text.encode())


def markdown(verdict: Verdict, said: str, claim: RecordedClaim) -> str:
    """Return the lines; `said` is the verdict or, of a part, what may be said of it."""
    reason = "" if verdict.why in said else f"; {verdict.why}"
    known = "yes" if verdict.hardware_class in verdict.recorded_on else "no"
    others = f"; recorded on {listed(verdict.recorded_on)}" if known == "no" else ""
    lines = [
        f"**{_plain(said)}**: {_plain(claim.text)}",
        "",
        f"- claim: `{verdict.claim}`, seed {verdict.seed}{_plain(reason)}",
        *_value(verdict),
        f"- hardware class: {_plain(verdict.hardware_class)} (recorded: {known}{_plain(others)})",
        f"- commit: {f'`{verdict.commit}`' if verdict.commit else 'anonymous'}",
        f"- conditions: `{verdict.conditions_digest}`",
        f"- time: {duration(verdict.seconds or 0)}",
    ]
    if verdict.verdict == DIFFERENT:
        shown = verdict.differences[:_MOST_DIFFERENCES]
        lines += [f"- differs: {_plain(line)}" for line in shown]
        if more := len(verdict.differences) - len(shown):
            lines[-1] += f"; and {more} more"
    return "\n".join([*lines, ""])


def _value(verdict: Verdict) -> list[str]:
    if verdict.what != WHOLE or verdict.value is None or verdict.recorded is None:
        return []
    name = _plain(value_name(verdict.metric, verdict.checkpoint))
    return [f"- {name}: {verdict.value:.6g}, recorded {verdict.recorded:.6g}"]


def _plain(text: str) -> str:
    """Return text as one line without secrets, and without signs of Markdown and HTML."""
    line = " ".join(redact_text(text).split())
    return re.sub(r"([\\`*_\[\]<>|#~&])", r"\\\1", line)
