"""Read what pyproject.toml and CITATION.cff say of a project: its name, authors and licence."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import yaml  # type: ignore[import-untyped]  # omegaconf brings it

from repro.core.errors import UserError, reason_of
from repro.core.files import Json, JsonObject
from repro.core.project import project_table
from repro.core.text import refuse_unseen
from repro.runs.yaml_files import fault_of_yaml


class Author(NamedTuple):
    """A person of CITATION.cff or pyproject.toml; `orcid` is an address."""

    name: str
    orcid: str | None


@dataclass(frozen=True)
class About:
    """What pyproject.toml and CITATION.cff say of a project.

    `licence` is None where pyproject.toml names none, "" where it points to a file.
    """

    name: str
    title: str
    description: str
    authors: list[Author]
    licence: str | None
    repository: str | None
    doi: str | None = None


def read_about(code: Mapping[str, bytes]) -> About:
    """Read pyproject.toml and CITATION.cff, which may be missing, among the files of a commit."""
    try:
        project = project_table(code["pyproject.toml"].decode())
        citation = _read_citation(code.get("CITATION.cff", b"").decode())
    except (yaml.YAMLError, ValueError, KeyError) as error:
        reason = reason_of(error)
        raise UserError(f"pyproject.toml or CITATION.cff: {reason}") from error
    title = str(citation.get("title") or project["name"])
    terms = project.get("license")
    repository = citation.get("repository-code")
    doi = citation.get("doi")
    return About(
        name=project["name"],
        title=title,
        description=str(citation.get("abstract") or project.get("description") or title),
        authors=_authors(citation.get("authors") or project.get("authors", [])),
        licence=terms if terms is None or isinstance(terms, str) else "",
        repository=repository if isinstance(repository, str) else None,
        doi=doi if isinstance(doi, str) else None,
    )


def _read_citation(text: str) -> JsonObject:
    """Read CITATION.cff; ValueError if it holds something else than names with values."""
    if fault := fault_of_yaml(text):
        raise ValueError(fault)
    citation = yaml.safe_load(text) or {}
    if not isinstance(citation, dict):
        raise ValueError("CITATION.cff: expected names with values, such as title: ...")
    refuse_unseen(citation, "CITATION.cff")
    return citation


def _authors(people: Json) -> list[Author]:
    """Return the authors as CITATION.cff or pyproject.toml name them."""
    authors = []
    for entry in people if isinstance(people, list) else [people]:
        if not isinstance(entry, dict):
            raise UserError("authors: expected a list, each with a name, in CITATION.cff")
        orcid = entry.get("orcid")
        authors.append(Author(name_of(entry), orcid if isinstance(orcid, str) else None))
    return authors


def name_of(author: JsonObject) -> str:
    """Return the name of an author, which may stand there in one piece or in two."""
    person = {key: value for key, value in author.items() if isinstance(value, str)}
    keys = ("given-names", "name-particle", "family-names", "name-suffix")
    parts = [person.get(key) for key in keys]
    return person.get("name") or " ".join(filter(None, parts))
