"""Write into CITATION.cff the DOI and the ORCIDs that the author states in [tool.repro].

Promises that nothing else of the author's text changes, comments and line ends included, that the
same statement gives the same bytes, and that what was not stated is left as it is. The text is
edited at the places where YAML finds the values, and then read again: an edit after which it would
say anything else than it should is refused, with the line to write by hand.
"""

import copy
import json
from pathlib import Path
from typing import NamedTuple

import yaml  # type: ignore[import-untyped]  # omegaconf brings it

from repro.core.bounded import LARGEST_BY_HAND, RESTORE, DamagedFile, read_whole
from repro.core.errors import UserError
from repro.core.files import Json, JsonObject, write_file
from repro.core.text import listed
from repro.results.about import name_of
from repro.results.stated import Stated, read_stated
from repro.runs.yaml_files import fault_of_yaml

CITATION = "CITATION.cff"
_TABLE = "[tool.repro.orcid]"


class _Edit(NamedTuple):
    """A text to be put in place of the characters from `start` to `end`; `line`: what it says."""

    start: int
    end: int
    text: str
    line: str


def uncited(root: Path) -> list[str]:
    """Return a line if CITATION.cff does not say what the author states; else nothing.

    UserError if it could not be made to say so.
    """
    before, after = _texts(root)
    return [] if before == after else [f"{CITATION} does not say what [tool.repro] states"]


def write_citation(root: Path) -> bool:
    """Make CITATION.cff say what the author states; False if it does already."""
    before, after = _texts(root)
    if before == after:
        return False
    write_file(root / CITATION, after.encode())
    return True


def _texts(root: Path) -> tuple[str, str]:
    """Return the text of CITATION.cff as it is, and as it should be."""
    stated = read_stated(root)
    if not stated.doi and not stated.orcids:
        return "", ""  # a project may have no such file
    path = root / CITATION
    try:
        text = read_whole(path, LARGEST_BY_HAND).decode()
    except FileNotFoundError as error:
        stands = "[tool.repro] states a DOI or an ORCID for it"
        raise UserError(f"{CITATION} is not there, and {stands}: restore it") from error
    except UnicodeDecodeError as error:
        raise DamagedFile(path, f"no UTF-8 text at byte {error.start}") from error
    return text, cited(text, stated)


def cited(text: str, stated: Stated) -> str:
    """Return a text of CITATION.cff that says what is stated, else changed in nothing."""
    content, node = _parsed(text)
    expected = copy.deepcopy(content)
    edits = []
    if stated.doi and content.get("doi") != stated.doi:
        expected["doi"] = stated.doi
        edits.append(_edit(text, node, "doi", stated.doi, after="title"))
    for number, orcid in _orcids_by_place(content, stated):
        author = _entries(expected)[number]
        address = f"https://orcid.org/{orcid}"
        if author.get("orcid") != address:
            author["orcid"] = address
            edits.append(_edit(text, _find_authors(node)[number], "orcid", address))
    edited = text
    for edit in sorted(edits, reverse=True):  # from the end: the places before it stay right
        edited = edited[: edit.start] + edit.text + edited[edit.end :]
    if edits and _without_fault(edited) != expected:
        lines = " and ".join(edit.line for edit in edits)
        raise UserError(f"{CITATION} cannot be edited safely: write {lines} into it by hand")
    return edited


def _parsed(text: str) -> tuple[JsonObject, yaml.MappingNode]:
    """Return what a text holds, and where; UserError if that is no citation."""
    content = _without_fault(text)
    if not isinstance(content, dict):
        raise UserError(f"{CITATION} is no YAML of names with values: {RESTORE}")
    return content, yaml.compose(text, yaml.SafeLoader)


def _without_fault(text: str) -> Json:
    """Return what a text of YAML holds; None if it cannot be read."""
    try:
        return None if fault_of_yaml(text) else yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError):
        return None


def _entries(content: JsonObject) -> list[JsonObject]:
    """Return the authors of a citation; UserError if they are no list of names with values."""
    authors = content.get("authors")
    found = authors if isinstance(authors, list) else []
    entries = [entry for entry in found if isinstance(entry, dict)]
    if not entries or len(entries) < len(found):
        raise UserError(f"{CITATION}: authors: expected a list, each with a name: correct it")
    return entries


def _find_value(node: yaml.MappingNode, name: str) -> yaml.Node | None:
    """Return the place of a value by its name."""
    return next((value for key, value in node.value if key.value == name), None)


def _find_authors(node: yaml.MappingNode) -> list[yaml.MappingNode]:
    """Return the places of the authors, in their order."""
    authors = _find_value(node, "authors")
    return authors.value if isinstance(authors, yaml.SequenceNode) else []


def _edit(text: str, node: yaml.MappingNode, name: str, value: str, after: str = "") -> _Edit:
    """Return how `name` gets a value: in place of the one it has, or in a line of its own.

    The line goes below that of `after`, or of the first name.
    """
    quoted = json.dumps(value)  # YAML reads it in the same way
    line = f"{name}: {quoted}"
    new_line = "\r\n" if "\r\n" in text else "\n"
    there = _find_value(node, name)
    if there:
        start, end = there.start_mark.index, there.end_mark.index
        before = "" if start < end else " "
        after_it = new_line if _ends_a_line(text, end) else ""
        return _Edit(start, end, f"{before}{quoted}{after_it}", line)
    pairs = [pair for pair in node.value if pair[0].value == after] or node.value
    key, above = pairs[0]
    place = above.end_mark.index
    if node.flow_style:  # all in one line: {name: NAME}
        return _Edit(place, place, f", {line}", line)
    indent = " " * key.start_mark.column
    if _ends_a_line(text, place):
        return _Edit(place, place, f"{indent}{line}{new_line}", line)
    place += len(text[place:].partition("\n")[0].rstrip("\r"))
    return _Edit(place, place, f"{new_line}{indent}{line}", line)


def _ends_a_line(text: str, place: int) -> bool:
    """Tell whether a value ends with its line, as a text in lines of its own does (>- and |)."""
    return text[:place].endswith("\n")


def _orcids_by_place(content: JsonObject, stated: Stated) -> list[tuple[int, str]]:
    """Return the places of the authors to whom [tool.repro] gives an ORCID, with it."""
    found = []
    for name, orcids in stated.orcids.items():
        places = _places_of(content, name, len(orcids))
        found += [(place, orcid) for place, orcid in zip(places, orcids, strict=True) if orcid]
    return found


def _places_of(content: JsonObject, name: str, count: int) -> list[int]:
    """Return the places of the authors of a name; UserError if there are not so many."""
    names = [name_of(entry) for entry in _entries(content)]
    if not name and len(names) > 1:
        raise UserError(
            f"pyproject.toml: orcid in [tool.repro] is of one author, and {CITATION} has "
            f"{len(names)}: write a table {_TABLE} of names with ORCIDs"
        )
    places = [place for place, other in enumerate(names) if name in ("", other)]
    if len(places) != count:
        times = "" if count == 1 else f" with {count} ORCIDs"
        raise UserError(
            f"pyproject.toml: {_TABLE} names {name!r}{times}, and {CITATION} has {listed(names)}: "
            'write one of these names; several authors of one name have a list, in their order, "" '
            "for one without"
        )
    return places
