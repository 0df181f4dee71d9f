"""Read who made a project from its files, and of which machines and trackers its runs tell.

From the files alone, so that every clone on every machine reads the same.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

import yaml  # type: ignore[import-untyped]  # omegaconf brings it

from repro.core import layout
from repro.core.bounded import parse_json
from repro.core.errors import reason_of
from repro.core.files import Json
from repro.core.project import parse_toml
from repro.publishing.anonymity.nobody import SYSTEM_FOLDERS
from repro.publishing.anonymity.people_lists import people_in, tells_of_people
from repro.publishing.contents import Files, content_bytes, content_size
from repro.results.claims import EXPECTED
from repro.runs.yaml_files import fault_of_yaml

_PYPROJECT = "pyproject.toml"
_CITATION = "CITATION.cff"
_LARGEST = 1 << 22  # bytes of a file that is read for names
LICENCES = re.compile(r"(?i)(licen[cs]e|copying|copyright|notice)([.-][^/]*)?")
# Who has the copyright: after a year, or after (c). That no bracket follows is looked at once, and
# so is a row of blanks: a long line would take hours.
COPYRIGHT = re.compile(
    r"(?im)^(?P<before>[^\w\n]*copyright(?=[^\n\[{]*$)[ \t:]*"
    r"(?:(?:\(c\)|©)[ \t]*(?:[0-9]{4}[0-9 \t,\u2013-]*)?"
    r"|[0-9]{4}[0-9 \t,\u2013-]*(?:(?:\(c\)|©)[ \t]*)?))(?:by[ \t]+)?"
    r"(?P<holder>[^\s\[{<][^\n\[{]*?)(?!(?<=[ \t])[ \t])"
    r"(?P<after>[.,]?[ \t]*(?:all rights reserved[. \t]*)?\r?)$"
)
_HOMES = re.compile(
    r"(?:/home|/Users|/export/home)/[^/\s\"'<>:,;)\]}]+|[A-Za-z]:(?:\\+|/)Users(?:\\+|/)[^\\/\s\"'<>:]+"
)
# A tracker's user or group, and its name of a run: as a setting, a value of JSON, in an address.
_TRACKED = re.compile(
    r"""(?i)\b(?:wandb_|mlflow_)?(?:entity|run_?id|run_?uuid|run_?path|artifact_uri|user_?name)["']?"""
    r"""[ \t]*[:=][ \t]*["']?(?P<id>[\w./:@-]{4,200})"""
    r"""|wandb\.ai/(?P<entity>[\w.-]+)(?:/[\w.-]+/(?:runs/)?(?P<run>[\w.-]+))?"""
    r"""|(?:offline-)?run-\d{8}_\d{6}-(?P<part>[a-z0-9]{4,64})"""
)
# Names that folders of data have on many machines.
_OF_DATA = {
    *("data", "dataset", "datasets", "raw", "processed", "interim", "external", "images"),
    *("train", "val", "test", "cache", "runs"),
}
_NO_VALUE = {"null", "none", "true", "false"}
_OF_RUNS = (".json", ".yaml", ".yml", ".txt", ".log", ".jsonl", ".md", ".diff", "")
# Where a paper is: a DOI, or a number of arXiv.
DOI = re.compile(r"\b10\.[0-9]{4,9}/[^\s\"'<>)\],;]+")
_ARXIV = re.compile(r"(?i)arxiv(?::|\.org/\w+/)\s*(\d{4}\.\d{4,5}|[a-z-]+/\d{7})")
Names = list[tuple[str, str]]  # a text, and what it is


@dataclass
class StatedNames:
    """What files state; each text with words for what it is."""

    project: str = ""
    people: Names = field(default_factory=list)
    addresses: Names = field(default_factory=list)
    repositories: Names = field(default_factory=list)
    hosts: Names = field(default_factory=list)
    folders: Names = field(default_factory=list)
    words: Names = field(default_factory=list)
    institutions: Names = field(default_factory=list)
    commits: set[str] = field(default_factory=set)


def stated_in_files(files: Files) -> StatedNames:
    """Read what the files of an archive state."""
    stated = StatedNames()
    _read_pyproject(parse_toml(_text(files, _PYPROJECT)), stated)
    citation = citation_of(files)
    _read_citation(citation, stated)
    # The author's own paper; `references` are works of others.
    _read_citation(_table(citation, "preferred-citation"), stated)
    for name in files:
        if LICENCES.fullmatch(name):
            holders = COPYRIGHT.finditer(_text(files, name))
            stated.people += [
                (match["holder"], f"who has the copyright in {name}") for match in holders
            ]
        if tells_of_people(name):
            told = people_in(name, _text(files, name))
            stated.people += [(person, f"in {name}") for person in told.people]
            stated.addresses += [(address, f"in {name}") for address in told.addresses]
            stated.words += [(account, f"in {name}") for account in told.accounts]
    expected = EXPECTED.as_posix()
    recorded = _text(files, expected)
    stated.commits |= {*_commits_of(_json(files, expected))}
    for name, content in files.items():
        is_of_run = name.startswith((f"{layout.RUNS}/", "configs/tracker/"))
        if (
            is_of_run
            and PurePosixPath(name).suffix in _OF_RUNS
            and content_size(content) <= _LARGEST
        ):
            _read_file_of_run(files, name, recorded, stated)
    stated.words += [(form, what) for text, what in stated.words for form in _other_forms(text)]
    return stated


def _text(files: Files, name: str) -> str:
    """Return the text of a file; "" if there is none, or a very large one."""
    content = files.get(name, b"")
    if content_size(content) > _LARGEST:
        return ""
    return content_bytes(content).decode("utf-8", "replace")


def _json(files: Files, name: str) -> dict[str, Json]:
    """Return the JSON object that a file holds; an empty one if it holds none."""
    try:
        value = parse_json(_text(files, name))
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def citation_of(files: Files) -> dict[str, Json]:
    """Return what CITATION.cff says; nothing if it cannot be read."""
    try:
        citation = parse_yaml(_text(files, _CITATION))
    except ValueError:
        return {}
    return citation if isinstance(citation, dict) else {}


def parse_yaml(text: str) -> Any:
    """Return what a YAML text holds; ValueError if it holds none, or would become too large."""
    if fault := fault_of_yaml(text):
        raise ValueError(fault)
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(reason_of(error)) from error


def _table(of: Json, name: str) -> dict[str, Json]:
    value = of.get(name) if isinstance(of, dict) else None
    return value if isinstance(value, dict) else {}


def _list(of: Json, name: str) -> list[Json]:
    value = of.get(name) if isinstance(of, dict) else None
    return value if isinstance(value, list) else []


def _texts(value: Json) -> Iterator[str]:
    """Yield all texts in a value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _texts(inner)


def _read_pyproject(content: dict[str, Json], stated: StatedNames) -> None:
    project = _table(content, "project")
    stated.project = str(project.get("name", ""))
    for key in ("authors", "maintainers"):
        for person in _list(project, key):
            _read_person(person, f"an author in {_PYPROJECT}", stated)
    stated.repositories += [
        (url, f"an address in {_PYPROJECT}") for url in _texts(project.get("urls"))
    ]
    own = _table(_table(content, "tool"), "repro")
    for key in ("doi", "orcid"):
        stated.words += [(_bare(text), f"{key} in {_PYPROJECT}") for text in _texts(own.get(key))]
    stated.people += [(name, f"an author in {_PYPROJECT}") for name in _table(own, "orcid")]
    for text in _texts(_table(own, "paper").get("reference")):
        stated.words += [(doi, f"the paper's DOI in {_PYPROJECT}") for doi in DOI.findall(text)]
        for number in _ARXIV.findall(text):  # and of its versions
            forms = (number, *(f"{number}v{version}" for version in range(1, 10)))
            stated.words += [(form, f"the paper in {_PYPROJECT}") for form in forms]


def _bare(text: str) -> str:
    """Return a DOI or an ORCID without the address of who resolves it."""
    return re.sub(r"^(https?://[^/]+/|doi:)", "", text.strip())


def _other_forms(identifier: str) -> Iterator[str]:
    """Yield how an ORCID or a DOI stands in addresses: digits alone, a record of Zenodo."""
    if re.fullmatch(r"(?:\d{4}-){3}\d{3}[\dX]", identifier):
        yield identifier.replace("-", "")
    elif DOI.fullmatch(identifier):
        suffix = identifier.partition("/")[2]
        number = re.search(r"\d{6,}$", suffix)
        if number:
            yield from (suffix, f"record/{number[0]}", f"records/{number[0]}")


def _read_person(person: Json, what: str, stated: StatedNames) -> None:
    """Read an author as CITATION.cff or pyproject.toml write one."""
    if not isinstance(person, dict):
        return
    parts = [str(person.get(key, "")) for key in ("given-names", "name-particle", "family-names")]
    names = [
        " ".join(filter(None, parts)),
        *(str(person.get(key, "")) for key in ("name", "alias")),
    ]
    stated.people += [(name, what) for name in names if name]
    stated.addresses += [(text, what) for text in _texts(person.get("email"))]
    stated.words += [(_bare(text), f"the ORCID of {what}") for text in _texts(person.get("orcid"))]
    for page in _texts(person.get("website")):
        bare = re.sub("^https?://", "", page).strip("/")
        if "/" in bare:
            stated.words += [(text, f"the page of {what}") for text in (page, bare)]
        else:
            stated.repositories.append((page, f"the page of {what}"))
    for place in _texts(person.get("affiliation")):
        stated.institutions.append((place, f"the affiliation of {what}"))


def _read_citation(citation: dict[str, Json], stated: StatedNames) -> None:
    for key in ("authors", "contact"):
        for person in _list(citation, key):
            _read_person(person, f"an author in {_CITATION}", stated)
    for key in ("repository-code", "repository", "repository-artifact", "url"):
        stated.repositories += [(url, f"{key} in {_CITATION}") for url in _texts(citation.get(key))]
    stated.words += [
        (_bare(text), f"the DOI in {_CITATION}") for text in _texts(citation.get("doi"))
    ]
    for entry in _list(citation, "identifiers"):
        value = entry.get("value") if isinstance(entry, dict) else None
        stated.words += [(_bare(text), f"an identifier in {_CITATION}") for text in _texts(value)]
    stated.commits |= {*_texts(citation.get("commit"))}


def _commits_of(value: Json) -> Iterator[str]:
    """Yield what stands under the name "commit" anywhere in a value."""
    if isinstance(value, dict):
        for name, inner in value.items():
            if name == "commit" and isinstance(inner, str):
                yield inner
            yield from _commits_of(inner)


def _read_file_of_run(files: Files, name: str, recorded: str, stated: StatedNames) -> None:
    """Read what a file of a run, or a tracker's settings, tell of machines and trackers."""
    text = _text(files, name)
    file = PurePosixPath(name).name
    if file == layout.CONTEXT:
        _read_context(_json(files, name), stated)
    elif file == layout.CONFIG_USED:
        _read_places(name, text, recorded, stated)
    elif file == "tracker.json":
        tracked = _json(files, name)
        stated.words += [(text, "the id of a tracked run") for text in _texts(tracked.get("id"))]
        uri = _table(tracked, "settings").get("uri")
        stated.repositories += [(text, "a tracker's address") for text in _texts(uri)]
    stated.folders += [(path, "a home folder in the runs") for path in _HOMES.findall(text)]
    for match in _TRACKED.finditer(text):
        told = [value for value in match.groups("") if value.lower() not in _NO_VALUE]
        stated.words += [(value, "a name or id of a tracker") for value in told if value]


def _read_context(context: dict[str, Json], stated: StatedNames) -> None:
    git = _table(context, "git")
    stated.hosts += [
        (host, "the host of a run") for host in _texts(_table(context, "hardware").get("hostname"))
    ]
    stated.repositories += [(url, "the remote of a run") for url in _texts(git.get("remote_url"))]
    stated.commits |= {*_texts(git.get("commit_hash"))}


def _read_places(name: str, text: str, recorded: str, stated: StatedNames) -> None:
    """Take the folders of the machine of a run, such as that of its data, from its settings.

    The path of the run begins with the project's own. A folder that the `recorded` claims name is a
    condition: the author has to know it. A folder of the system's, or one such as /data/raw, tells
    nobody.
    """
    place = str(PurePosixPath(name).parent)
    for key, path in re.findall(r"(?m)^ *([\w.]+): [\"']?(/[^\"'\n]*)[\"']?$", text):
        if path.endswith(f"/{place}"):
            stated.folders.append((path.removesuffix(f"/{place}"), "the project's folder in a run"))
        elif path not in recorded and not _is_everybodys(path):
            stated.folders.append((path, f"{key} of a run"))


def _is_everybodys(path: str) -> bool:
    """Tell whether a folder is the system's, or has a name that many machines have."""
    first, *rest = [part.casefold() for part in PurePosixPath(path).parts[1:]] or [""]
    return first in SYSTEM_FOLDERS or _OF_DATA.issuperset(rest)
