"""Ask git who made a project: its configuration and variables, its history, its remotes.

Promises nothing where there is no repository: then nobody is told.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path

from repro.runs.git_index import run_git

_MOST_PEOPLE = 2000  # of git's history
_PERSON = re.compile(r"(?:^|: )([^:<>]+)<([^<>]+)>")  # of a tag or a trailer: Signed-off-by


def people_of_git(root: Path) -> Iterator[tuple[str, str]]:
    """Yield names and addresses of git's configuration, and of those whom the history names.

    These wrote or committed it, made its tags, or are told in its trailers: Co-authored-by.
    """
    for key in ("user", "author", "committer"):
        for name in _lines(root, "config", "--get-all", f"{key}.name"):
            yield name, ""
        for address in _lines(root, "config", "--get-all", f"{key}.email"):
            yield "", address
    for role in ("GIT_AUTHOR", "GIT_COMMITTER"):  # the environment comes before the configuration
        yield os.environ.get(f"{role}_NAME", ""), os.environ.get(f"{role}_EMAIL", "")
    log = ("log", f"--max-count={_MOST_PEOPLE * 10}", "--no-show-signature")
    people = _lines(root, *log, "--format=%an%x09%ae%n%cn%x09%ce", "HEAD")
    for line in [*dict.fromkeys(people)][:_MOST_PEOPLE]:
        name, _, address = line.partition("\t")
        yield name, address
    trailers = (*log, "--format=%(trailers:only,unfold)", "HEAD")
    tags = ("for-each-ref", "--format=%(taggername) %(taggeremail)", "refs/tags")
    others = [*dict.fromkeys([*_lines(root, *trailers), *_lines(root, *tags)])][:_MOST_PEOPLE]
    for line in others:
        if person := _PERSON.search(line):
            yield person[1].strip(), person[2]


def remotes(root: Path) -> list[str]:
    """Return the addresses of the repository's remotes."""
    pattern = r"^remote\..*\.(url|pushurl)$"
    lines = _lines(root, "config", "--get-regexp", pattern)
    return [line.partition(" ")[2] for line in lines]


def _lines(root: Path, *arguments: str) -> list[str]:
    """Return the lines that git prints; none where it has no answer."""
    try:
        return run_git(root, *arguments).splitlines()
    except OSError:
        return []
