"""List what may tell who made a project and is not known for that: for the author to look at.

A program cannot know whose name stands in a comment. Listed are forms that people's names, accounts
and institutions often have, with the first place of each. The list is printed, never packed. The
kit is looked at for addresses and home folders alone: the rest of it is no author's.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

from repro.publishing.anonymity.identities import AUTHORS
from repro.publishing.anonymity.machine_names import account_of
from repro.publishing.anonymity.nobody import NOBODY

_SHOWN = 30
_LARGEST = 1 << 20  # bytes of a file that is looked at
_SUFFIXES = (
    ".py .md .txt .rst .cff .toml .yaml .yml .json .cfg .ini .tex .bib .ipynb .sh .sbatch .html",
    ".svg .diff .csv .in",
)
_TEXTS = {"", *(suffix for line in _SUFFIXES for suffix in line.split())}
_EVERYWHERE = {
    "an e-mail address": re.compile(r"[\w.+-]{1,64}@[\w-]+(?:\.[\w-]+)+"),
    "a home folder": re.compile(r"(?:/home/|/Users/|[A-Za-z]:\\+Users\\+)[\w.-]+"),
    "an ORCID": re.compile(r"\b[0-9]{4}-[0-9]{4}-[0-9]{4}-[0-9]{3}[0-9X]\b"),
}
# A pattern looks at each character a fixed number of times, or a long line would take hours: words
# are of limited length, and what was looked at to its end in vain is the group `nothing`.
_OF_THE_AUTHOR = {
    "a folder of a machine": re.compile(
        r"(?<![\w.:/-])/(?:scratch|work|cluster|projects?|gpfs|lustre|nfs|mnt|export|storage|groups?"
        r"|data)\d*/[\w.-]+(?:/[\w.-]+)*"
    ),
    "an account in an address": re.compile(
        r"(?:github\.com|gitlab\.com|bitbucket\.org|codeberg\.org|huggingface\.co|hf\.co|wandb\.ai"
        r"|kaggle\.com|orcid\.org|linkedin\.com/in|twitter\.com|x\.com|scholar\.google\.\w+"
        r"|researchgate\.net/profile|dblp\.org/pid)/(?:@?[\w.-]+)|openreview\.net/profile\?id=~?\w+"
    ),
    "a personal page": re.compile(  # the name of a host has up to 63 characters
        r"https?://[\w.-]+/(?:~|people/|staff/|users?/)[\w.-]+"
        r"|\b[\w-]{1,63}\.git(?:hub|lab)\.io\b"
    ),
    "a note to somebody": re.compile(r"\b(?:TODO|FIXME|XXX)\((?!author\))[\w@. -]{2,40}\)"),
    "a notebook's environment": re.compile(r"\"display_name\": *\"(?!Python 3)[^\"\n]{2,60}\""),
    "a note of who": re.compile(
        r"(?i:\b(?:_{0,2}(?:author|maintainer|credits)_{0,2}|written by|created by|contact"
        r"|thanks to|courtesy of|grant|funded by)\b)[ :=]+\S[^\n]{2,60}"
    ),
    "a name in a comment": re.compile(
        r"(?:#|//|--)[^\n]*?"
        r"(?:\b(?P<name>[A-Z][a-z]+(?: [A-Z]\.)? [A-Z][a-z]+)\b|(?P<nothing>(?m:$)))"
    ),
    "a DOI": re.compile(r"\b10\.[0-9]{4,9}/[^\s\"'<>)\]]+"),
    "an institution": re.compile(
        r"\b(?:[A-Z][\w-]{1,60} ){0,3}(?:Universi\w+|Uni|Univ\.|Institut\w*|Laborator\w+|College"
        r"|School|Hochschule|Academy|GmbH|Inc\.|ETH|CNRS)(?!\w)(?: of)?(?: [A-Z]\w+)?"
    ),
}
_NO_AUTHORS = ("repro/", ".github/", "Dockerfile", "requirements", "bootstrap.py")
_PUBLIC = re.compile(
    r"(?i)example\.(org|com|net)|@(v?[0-9]|sha256)|github\.com/(actions|pytorch|huggingface)\b|noreply"
    r"|/scratch/data$"
)


def candidates(files: Mapping[str, bytes | Path]) -> list[str]:
    """Return a line for each thing that the author should look at, the first ones of many."""
    seen: dict[str, str] = {}
    for name, content in sorted(files.items()):
        if isinstance(content, bytes) and len(content) <= _LARGEST and _is_text(name):
            for what, found, line in _in_text(name, content.decode("utf-8", "replace")):
                seen.setdefault(
                    found.casefold(), f"look at: {name}: line {line}: {what}: {found!r}"
                )
    lines = [*seen.values()]
    more = [f"... and {len(lines) - _SHOWN} more to look at"] if len(lines) > _SHOWN else []
    return [*lines[:_SHOWN], *more, _CANNOT_KNOW]


_CANNOT_KNOW = (
    "not known: names in pictures and in tensors, acronyms, whose style it is, and what a "
    "search for the title, the data or the bits may find: look through the unpacked archive"
)


def _is_text(name: str) -> bool:
    is_made = name.startswith(("runs/", "ro-crate-metadata", "LICENSE")) or name.endswith(".lock")
    return not is_made and PurePosixPath(name).suffix in _TEXTS


def _in_text(name: str, text: str) -> Iterator[tuple[str, str, int]]:
    of_author = {} if name.startswith(_NO_AUTHORS) else _OF_THE_AUTHOR
    for what, pattern in {**_EVERYWHERE, **of_author}.items():
        line, counted = 1, 0  # the number of the line in which the place `counted` is
        for match in pattern.finditer(text):
            groups = match.groupdict()
            found = groups.get("name") or match[0]
            if groups.get("nothing") is not None or _PUBLIC.search(match[0]):
                continue
            if AUTHORS in found or account_of(found) in NOBODY - {""}:
                continue
            line += text.count("\n", counted, match.start())
            counted = match.start()
            yield what, found.strip(), line
