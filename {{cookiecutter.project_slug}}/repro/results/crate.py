"""ro-crate-metadata.json: which training made which file from what, for machines.

Follows RO-Crate 1.1 and its profile Process Run Crate 0.5: each seed's training is a CreateAction
whose instrument is the project's code. Promises the same text for the same archive. Names, licence
and description are those of pyproject.toml and CITATION.cff.
"""

import json
import re
import time
import tomllib
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import yaml  # type: ignore[import-untyped]  # omegaconf brings it

from repro.core.errors import UserError
from repro.environment.locks import LOCK

METADATA = "ro-crate-metadata.json"
CRATE, PROFILE = "https://w3id.org/ro/crate/1.1", "https://w3id.org/ro/wfrun/process/0.5"

Entity = dict[str, Any]


@dataclass(frozen=True)
class Training:
    """One seed of a claim: its results lie below `place` of the archive."""

    name: str
    text: str
    place: str
    manifest: str  # of the data


def describe(
    names: list[str], code: dict[str, bytes], trainings: list[Training], commit: str, moment: int
) -> bytes:
    """The metadata of an archive with the files `names`, those of `code` from a commit."""
    project, citation = about_project(code)
    title = str(citation.get("title", project["name"]))
    authors = citation.get("authors") or project.get("authors", [])
    people = [person(author, number) for number, author in enumerate(authors, 1)]
    terms = project.get("license", "not stated")
    known = isinstance(terms, str) and re.fullmatch(r"(?!LicenseRef-)[A-Za-z0-9.+-]+", terms)
    licence = {
        "@id": f"https://spdx.org/licenses/{terms}" if known else "#licence",
        "@type": "CreativeWork",
        "name": terms if isinstance(terms, str) else "as pyproject.toml says",
    }
    repository = citation.get("repository-code")
    software = {
        "@id": repository or "#software",
        "@type": "SoftwareSourceCode",
        "name": title,
        "version": commit,
        "softwareRequirements": reference(LOCK),
        **({"url": repository} if repository else {}),
    }
    actions = [action(training, names, software, people) for training in trainings]
    crate = {
        "@id": "./",
        "@type": "Dataset",
        "conformsTo": {"@id": PROFILE},
        "name": title,
        "description": citation.get("abstract") or project.get("description") or title,
        "datePublished": time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime(moment)),
        "license": identity(licence),
        "author": some(people),
        "mainEntity": identity(software),
        "mentions": some(actions),
        "hasPart": [reference(name) for name in names],
    }
    profile = {"@id": PROFILE, "@type": "CreativeWork", "name": "Process Run Crate"}
    descriptor = {
        "@id": METADATA,
        "@type": "CreativeWork",
        "about": identity(crate),
        "conformsTo": {"@id": CRATE},
    }
    files = [{**reference(name), "@type": "File"} for name in names]
    graph = [descriptor, crate, profile, licence, software, *people, *actions, *files]
    text = json.dumps({"@context": f"{CRATE}/context", "@graph": graph}, indent=1)
    return f"{text}\n".encode()


def about_project(code: dict[str, bytes]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The table [project] of pyproject.toml, and CITATION.cff, which may be missing."""
    try:
        project: dict[str, Any] = tomllib.loads(code["pyproject.toml"].decode())["project"]
        citation = yaml.safe_load(code.get("CITATION.cff", b"")) or {}
    except (yaml.YAMLError, ValueError, KeyError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"pyproject.toml or CITATION.cff: {reason}") from error
    return project, citation


def person(author: dict[str, str], number: int) -> Entity:
    """An author of CITATION.cff or pyproject.toml."""
    parts = (author.get(key) for key in ("given-names", "family-names"))
    name = author.get("name") or " ".join(filter(None, parts))
    return {"@id": author.get("orcid", f"#author-{number}"), "@type": "Person", "name": name}


def action(training: Training, names: list[str], software: Entity, people: list[Entity]) -> Entity:
    """The training as an action: what went in, what came out."""
    config = f"{training.place}/config_used.yaml"
    results = [name for name in names if name.startswith(f"{training.place}/") and name != config]
    return {
        "@id": f"#{quote(training.name)}",
        "@type": "CreateAction",
        "name": f"Training of {training.name}",
        "description": training.text,
        "agent": some(people),
        "instrument": identity(software),
        "object": [reference(name) for name in (config, LOCK, training.manifest)],
        "result": [reference(name) for name in results],
        "actionStatus": "http://schema.org/CompletedActionStatus",
    }


def identity(entity: Entity) -> Entity:
    """How other entities name this one."""
    return {"@id": entity["@id"]}


def some(entities: list[Entity]) -> Entity | list[Entity]:
    """References to entities; RO-Crate wants a single one without a list around it."""
    found = [identity(entity) for entity in entities]
    return found[0] if len(found) == 1 else found


def reference(name: str) -> Entity:
    """How a file of the archive is named."""
    return {"@id": quote(name)}
