"""Write the documents that name authors and places anew, so that they name nobody.

CITATION.cff and pyproject.toml lose authors, addresses, identifiers and the paper; a licence's
copyright is that of "Anonymous authors"; the context of a run loses host, kernel, remote and
branch, and the recording the id of the recorded folder. Lists of people (people_lists.py) are left
out of the archive as a whole.
"""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import PurePosixPath

import yaml  # type: ignore[import-untyped]  # omegaconf brings it

from repro.core import layout
from repro.core.bounded import parse_json
from repro.core.errors import UserError
from repro.core.files import Json
from repro.core.project import parse_toml
from repro.publishing.anonymity.identities import AUTHORS
from repro.publishing.anonymity.identity_sources import COPYRIGHT, LICENCES, parse_yaml
from repro.results.claims import EXPECTED
from repro.results.recording import ANONYMOUS

# What follows the number of a Linux kernel: who built it, and sometimes for which cluster.
# Where none of the two follows, the rest is looked at once.
_KERNEL = re.compile(
    r"(?<=\d)(?:-[^-\n].*?(?=-(?:x86_64|aarch64)-with-)|(?P<of_another>-[^-\n].*))"
)
# What tells where a statement of TOML ends: texts, comments, brackets, and ends of lines.
_OF_TOML = re.compile(
    r'"""(?:\\[\s\S]|[^\\])*?"{3,5}'
    r"|'''[\s\S]*?'{3,5}"
    r'|"(?:\\.|[^"\\\n])*"'
    r"|'[^'\n]*'|#[^\n]*|[\[\]{}\n]"
)
_OPENS = {"[": 1, "{": 1, "]": -1, "}": -1}
_OF_A_CITATION = (
    *("contact", "doi", "identifiers", "repository", "repository-code", "repository-artifact"),
    *("url", "commit", "preferred-citation"),
)


def without_names(name: str, data: bytes) -> bytes:
    """Return a file as an anonymous archive has it, before words in it are replaced."""
    file = PurePosixPath(name).name
    change: Callable[[bytes], bytes] | None = None
    if name == "CITATION.cff":
        change = _citation
    elif name == "pyproject.toml":
        change = _pyproject
    elif LICENCES.fullmatch(name):
        change = _licence
    elif file == layout.CONTEXT and name.startswith(f"{layout.RUNS}/"):
        change = _context
    elif name == EXPECTED.as_posix():
        change = _recording
    return change(data) if change else data


def _citation(data: bytes) -> bytes:
    try:
        citation = parse_yaml(data.decode())
    except ValueError:
        return data  # words in it are replaced, as in any other file
    if not isinstance(citation, dict):
        return data
    kept = {name: value for name, value in citation.items() if name not in _OF_A_CITATION}
    kept["authors"] = [{"name": AUTHORS}]
    written: str = yaml.safe_dump(kept, sort_keys=False, allow_unicode=True, width=100)
    return written.encode()


def _licence(data: bytes) -> bytes:
    def of_nobody(match: re.Match[str]) -> str:
        return f"{match['before']}{AUTHORS}{match['after']}"

    text = data.decode("utf-8", "surrogateescape")
    return COPYRIGHT.sub(of_nobody, text).encode("utf-8", "surrogateescape")


def _context(data: bytes) -> bytes:
    """Take the host out of a run's context, and what git said but whether there were changes."""
    try:
        context = parse_json(data)
    except ValueError:
        return data
    if not isinstance(context, dict):
        return data
    if isinstance(git := context.get("git"), dict):
        nothing = dict.fromkeys(("commit_hash", "branch", "remote_url", "note"))
        context["git"] = {**git, **{name: None for name in nothing if name in git}}
    if isinstance(hardware := context.get("hardware"), dict):
        context["hardware"] = {**hardware, "hostname": ANONYMOUS}
    software = context.get("software")
    if isinstance(software, dict) and isinstance(platform := software.get("platform"), str):
        shown = _KERNEL.sub(r"\g<of_another>", platform)
        context["software"] = {**software, "platform": shown}
    return (json.dumps(context, indent=2, sort_keys=True) + "\n").encode()


def _recording(data: bytes) -> bytes:
    """Take git's id of the project's folder out of what was recorded: a SWHID is made of it."""
    try:
        content = parse_json(data)
    except ValueError:
        return data
    if not isinstance(content, dict) or "tree" not in content:
        return data
    del content["tree"]
    return (json.dumps(content, indent=1, sort_keys=True) + "\n").encode()


def _pyproject(data: bytes) -> bytes:
    """Take people, addresses, DOI and ORCID out of pyproject.toml; all else stays as it stands."""
    before = parse_toml(data.decode())
    pieces = []
    for table, key, text in _statements(data.decode()):
        name = f"{table}.{key}" if table else key
        if name == "project.authors":
            text = f'authors = [{{ name = "{AUTHORS}" }}]\n'
        elif _is_of_people(table, name):
            text = ""
        pieces.append(text)
    new = "".join(pieces)
    expected = _without_people(before)
    if "authors" in _inner(before, "project"):
        _inner(expected, "project")["authors"] = [{"name": AUTHORS}]
    if _plain(parse_toml(new)) != expected:
        raise UserError(
            "pyproject.toml: authors, urls, doi and orcid cannot be taken out, nor the paper's "
            "reference: expected each in a line of its own below [project], [tool.repro] or "
            "[tool.repro.paper]"
        )
    return new.encode()


def _is_of_people(table: str, name: str) -> bool:
    people = ("project.maintainers", "project.urls", "tool.repro.doi", "tool.repro.orcid")
    return name in (*people, "tool.repro.paper.reference") or table in people


def _statements(text: str) -> list[tuple[str, str, str]]:
    """Return the text in pieces: each with the table that it is in, and the key that it sets."""
    pieces: list[tuple[str, str, str]] = []
    table = ""
    for statement in _parted(text):
        key = ""
        if header := re.fullmatch(r"\s*\[+([^\]]+)\]+\s*+(#.*)?\s*", statement):
            table = header[1].strip().replace('"', "").replace(" ", "")
        elif not statement.lstrip().startswith("#"):
            key = statement.partition("=")[0].strip().strip('"').replace(" ", "")
        pieces.append((table, key, statement))
    return pieces


def _parted(text: str) -> Iterator[str]:
    """Yield each statement of a text that is TOML: to the end of a line, outside of brackets.

    Each line is read once: a list of many lines is not parsed anew at each.
    """
    start = depth = 0
    for token in _OF_TOML.finditer(text):
        depth += _OPENS.get(token[0], 0)
        if token[0] == "\n" and not depth:
            yield text[start : token.end()]
            start = token.end()
    yield text[start:]


def _plain(content: dict[str, Json]) -> dict[str, Json]:
    """Return a copy of what TOML holds, with its dates as texts."""
    return dict(parse_json(json.dumps(content, default=str)))


def _without_people(content: dict[str, Json]) -> dict[str, Json]:
    """Return what pyproject.toml tells of nobody."""
    copy = _plain(content)
    for key in ("authors", "maintainers", "urls"):
        _inner(copy, "project").pop(key, None)
    for key in ("doi", "orcid"):
        _inner(_inner(copy, "tool"), "repro").pop(key, None)
    _inner(_inner(_inner(copy, "tool"), "repro"), "paper").pop("reference", None)
    return copy


def _inner(of: dict[str, Json], name: str) -> dict[str, Json]:
    value = of.get(name)
    return value if isinstance(value, dict) else {}
