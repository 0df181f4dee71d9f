"""Put verify.sh at the root of an archive, and write into it what the archive holds.

The script is the kit's verify.sh with three lines filled: the project's title, its commit, and for
each claim what a training of it took where it was recorded. A reader sees them before anything is
downloaded. The same contents give the same bytes.
"""

import shlex
from pathlib import Path

from repro.core.errors import UserError
from repro.core.layout import KIT, PATCH
from repro.publishing.contents import Contents
from repro.results.recording import Cost, Recording

SCRIPT = "verify.sh"
_SOURCE = f"{KIT}/publishing/{SCRIPT}"
_COMMIT_LETTERS = 12


def scripts(contents: Contents) -> dict[str, bytes]:
    """Return verify.sh of an archive; UserError if the commit lacks the script."""
    source = contents.files.get(_SOURCE)
    if source is None:
        raise UserError(f"{_SOURCE} is not committed: restore it, then git add {_SOURCE}")
    text = _read(source)
    facts = {
        "title": " ".join(contents.about.title.split()),
        "commit": _origin(contents),
        "claims": "\n".join(_lines_on_claims(contents.recording)),
    }
    return {SCRIPT: fill_script(text, facts).encode("utf-8", "surrogateescape")}


def _origin(contents: Contents) -> str:
    if contents.commit is None:
        return "anonymous"
    changes = f" with the changes in {PATCH}" if PATCH in contents.files else ""
    return f"commit {contents.commit[:_COMMIT_LETTERS]}{changes}"


def fill_script(text: str, facts: dict[str, str]) -> str:
    """Write texts into the lines NAME='' of a script; UserError if one of these lines is not there.

    They are quoted for the shell, and hold no character that a terminal would take for a command.
    """
    for name, fact in facts.items():
        shown = "\n".join("".join(filter(str.isprintable, line)) for line in fact.split("\n"))
        empty = f"\n{name}=''\n"
        if text.count(empty) != 1:
            raise UserError(f"{_SOURCE} has no line {name}='': restore it")
        text = text.replace(empty, f"\n{name}={shlex.quote(shown)}\n")
    return text


def _lines_on_claims(recording: Recording) -> list[str]:
    """Return a line for each claim: its name, what a seed of it takes, and what it says."""
    return [
        f"     - {name}, {_words(claim.cost)}: {' '.join(claim.text.split())}"
        for name, claim in recording.claims.items()
    ]


def _words(cost: Cost | None) -> str:
    if cost is None:
        return "time not recorded"
    return f"{_spoken(cost.seconds_per_seed)} on {cost.hardware}"


def _spoken(seconds: int) -> str:
    if seconds < 120:
        return f"{seconds} seconds"
    if seconds < 7200:
        return f"{round(seconds / 60)} minutes"
    return f"{seconds / 3600:.1f} hours"


def _read(source: bytes | Path) -> str:
    content = source if isinstance(source, bytes) else source.read_bytes()
    return content.decode("utf-8", "surrogateescape")
