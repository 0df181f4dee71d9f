"""Find the ids of git's objects in files: those of commits, trees, files and tags.

An id in full is taken for one if git has such an object. A shortened one has seven characters or
more and is taken if a commit begins with it, and if it has a letter: a number may be chance.
"""

import re
from collections.abc import Collection
from pathlib import Path

from repro.publishing.anonymity.containers import Opener
from repro.publishing.anonymity.searching import chunks
from repro.publishing.contents import Files
from repro.runs.git_index import run_git

_HEX = re.compile(rb"(?<![0-9a-z])g?([0-9a-f]{7,64})(?![0-9a-z])")  # `git describe` writes a "g"
_FULL = (40, 64)  # characters, by SHA-1 and by SHA-256
_SHORTEST = 7
_SOFTWARE_HERITAGE = ("rev", "dir", "cnt", "rel")


def ids_in_files(root: Path, files: Files, named: Collection[str]) -> list[str]:
    """Return the ids as they stand in the files; `named` are commits that files name as such."""
    commits = {*named, *_commits(root)}
    starts = {commit[:_SHORTEST] for commit in commits}
    full: set[str] = set()
    short: set[str] = set()
    for name, content in sorted(files.items()):
        for _, stream in Opener().parts(name, content):
            for data, _ in chunks(stream, overlap=160):
                for word in _words(data):
                    if len(word) in _FULL:
                        full.add(word)
                    elif word[:_SHORTEST] in starts and re.search("[a-f]", word):
                        short.add(word)
    known = {word for word in full if word in commits} | _known(root, sorted(full - commits))
    known |= {word for word in short if any(commit.startswith(word) for commit in commits)}
    described = {f"g{word}" for word in known if len(word) not in _FULL}
    swhids = {f"swh:1:{kind}:{word}" for word in known & full for kind in _SOFTWARE_HERITAGE}
    return sorted(known | described | swhids)


def _words(data: bytes) -> set[str]:
    low = data.lower()
    found = {*_HEX.findall(low)}
    if b"\0" in low:  # UTF-16
        found |= {*_HEX.findall(low.replace(b"\0", b""))}
    return {word.decode() for word in found}


def _commits(root: Path) -> list[str]:
    try:
        return run_git(root, "rev-list", "HEAD").split()
    except OSError:
        return []


def _known(root: Path, words: list[str]) -> set[str]:
    """Return those that are ids of objects of the repository."""
    if not words:
        return set()
    try:
        answers = run_git(root, "cat-file", "--batch-check", stdin="".join(f"{w}\n" for w in words))
    except OSError:
        return set()
    return {line.split()[0] for line in answers.splitlines() if not line.endswith(" missing")}
