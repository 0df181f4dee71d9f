"""Read who is named in files that only list people, and where programs write who somebody is.

An anonymous archive lacks the lists. Whoever is named in them, in setup.py, by a notebook of Colab
or in the lines for Slurm is looked for in all other files. Promises nothing on prose: a name in a
sentence is for the author to look at.
"""

import re
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import NamedTuple

from repro.core.bounded import parse_json
from repro.core.files import Json

# Lists of people, and of accounts that own code: whole files that only tell who somebody is.
_PEOPLE = re.compile(
    r"(?i)(.*/)?(\.mailmap|authors|contributors|maintainers|codeowners|credits|\.all-contributorsrc"
    r"|funding\.yml|\.zenodo|codemeta)(\.(md|txt|rst|json|toml|yml|yaml))?"
)
_OF_A_PACKAGE = ("setup.cfg", "setup.py", "package.json")
_NOTEBOOK = ".ipynb"
_SCRIPTS = (".sbatch", ".slurm", ".sh")
_SLURM = re.compile(
    r"(?m)^[^\S\n]*#SBATCH\s+(?:--(?:account|mail-user|reservation)|-A)[=\s]\s*([^\s,]+)"
)
_ADDRESS = re.compile(r"[\w.+-]{1,64}@[\w-]+(?:\.[\w-]+)+")
_WITH_ADDRESS = re.compile(r"([^\W\d_][^<>\n\"'(),:;=*|]{2,60}?)\s*<[\w.+-]+@[\w.-]+>")
_HANDLE = re.compile(r"(?<![\w.])@([A-Za-z0-9][\w-]{2,38})")
_ACCOUNT = re.compile(r"(?im)^[^\S\n]*(?:github|patreon|ko_fi|liberapay|login)\s*:\s*\[?([\w, -]+)")
# In Python and JSON a text in quotation marks: what has none is code. setup.cfg has no such marks.
_AUTHOR = re.compile(
    r"(?i)\b(?:author|maintainer)[\"']?\s*[=:]\s*[\"']([^\W\d_][^\"'\n<>={}()\[\]]{2,60})"
)
_AUTHOR_IN_CFG = re.compile(
    r"(?im)^(?:author|maintainer)\s*=\s*(?!attr:|file:)([^\W\d_][^\"'\n<>={}()\[\]]{2,60})"
)
# A line that is a name alone, or a name and what stands behind it: no sentence and no heading.
_WORD = r"[^\W\d_a-z][\w.'’-]*"  # noqa: RUF001
_PARTICLE = "van|von|der|den|de|da|di|la|le|bin"
_LINE = re.compile(
    rf"(?m)^[ \t]*(?:(?:[-*+]|\d+\.)[ \t]*)?({_WORD}(?: (?:{_WORD}|{_PARTICLE})){{0,3}} {_WORD})"
    rf"[ \t]*(?:$|[(<,|@–—]|:[ \t]*\S)"  # noqa: RUF001
)
_NO_PERSON = re.compile(
    r"(?i)\b(group|team|lab|laboratory|institute|university|project|contributors|authors"
    r"|maintainers|developers|requests|thanks)\b"
)
_OF_LINES = re.compile(r"(?i)(authors|contributors|maintainers)(\.(md|txt|rst))?")


class Told(NamedTuple):
    """Names of people, their addresses and their accounts."""

    people: list[str]
    addresses: list[str]
    accounts: list[str]


def is_list_of_people(name: str) -> bool:
    """Tell whether a file is a list of people."""
    return _PEOPLE.fullmatch(name) is not None


def tells_of_people(name: str) -> bool:
    """Tell whether `people_in` finds the project's own people there; those below are others'."""
    path = PurePosixPath(name)
    if path.suffix in (_NOTEBOOK, *_SCRIPTS):
        return True
    is_own = str(path.parent) in (".", ".github", "docs")
    return is_own and (is_list_of_people(name) or path.name in _OF_A_PACKAGE)


def people_in(name: str, text: str) -> Told:
    """Return who is named in a list of people, as an author of a package, or by a program."""
    suffix = PurePosixPath(name).suffix
    if suffix in _SCRIPTS:
        return Told([], [], _SLURM.findall(text))
    if suffix == _NOTEBOOK:
        told = Told([], [], [])
        for entry in _objects_in(text):
            _read_colab(entry, told)
        return told
    told = Told([*_WITH_ADDRESS.findall(text)], [*_ADDRESS.findall(text)], [])
    if not is_list_of_people(name):
        told.people.extend((_AUTHOR_IN_CFG if suffix == ".cfg" else _AUTHOR).findall(text))
        return told
    entries = _objects_in(text)
    if not entries:  # in JSON "@type" is no account
        told.accounts.extend(_HANDLE.findall(text))
    for accounts in _ACCOUNT.findall(text):
        told.accounts.extend(re.split(r"[\s,]+", accounts))
    if _OF_LINES.fullmatch(PurePosixPath(name).name):
        lines = _LINE.findall(text)
        told.people.extend(line for line in lines if not _NO_PERSON.search(line))
    for entry in entries:
        _read_entry(entry, told)
    return told


def _objects_in(text: str) -> list[dict[str, Json]]:
    """Return all objects of a JSON text; none of another text."""
    try:
        return [*_objects(parse_json(text))]
    except ValueError:
        return []


def _objects(value: Json) -> Iterator[dict[str, Json]]:
    if isinstance(value, dict):
        yield value
    if isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _objects(inner)


def _read_colab(entry: dict[str, Json], told: Told) -> None:
    """Take who ran a cell of a notebook in Colab, and where the notebook lies."""
    for key, kind in (("displayName", told.people), ("userId", told.accounts)):
        if isinstance(value := entry.get(key), str):
            kind.append(value)
    if isinstance(value := entry.get("file_id"), str):
        told.accounts.append(value.rpartition("/")[2])


def _read_entry(entry: dict[str, Json], told: Told) -> None:
    """Take the names of an object of JSON that is of a person; a work has a name, too."""
    texts = {name: value for name, value in entry.items() if isinstance(value, str)}
    name = f"{texts.get('givenName', '')} {texts.get('familyName', '')}".strip()
    is_person = {"login", "orcid", "affiliation"} & entry.keys() or "," in texts.get("name", "")
    if not name and is_person:
        name = texts.get("name", "")
    told.people.extend(filter(None, [name]))
    told.accounts.extend(texts[key] for key in ("login", "orcid") if texts.get(key))
