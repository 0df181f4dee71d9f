"""Describe an archive for machines: which training made which file from what.

The text is that of ro-crate-metadata.json, by RO-Crate 1.1 and its profile Process Run Crate 0.5:
each seed's training is a CreateAction whose instrument is the project's code, as it was recorded.
Promises the same text for the same archive. Names, licence and description are those of
pyproject.toml and CITATION.cff.
"""

import json
import re
import time
from typing import TypeAlias
from urllib.parse import quote

from repro.core.files import Json, JsonObject
from repro.core.layout import CONFIG_USED, PATCH
from repro.environment.locks import LOCK
from repro.publishing.contents import Contents, PackedTraining
from repro.results.about import Author
from repro.runs.git import project_tree
from repro.runs.swhid import software_ids

METADATA = "ro-crate-metadata.json"
CRATE = "https://w3id.org/ro/crate/1.1"
PROFILE = "https://w3id.org/ro/wfrun/process/0.5"
# RO-Crate 1.1 and 1.2: "MUST be a string in ISO 8601 date format". There is no word for "not told".
_NO_DATE = "1970-01-01"

# An object of the graph: its "@id" is how others refer to it, its "@type" says what else it has.
Entity: TypeAlias = JsonObject


def describe(contents: Contents) -> bytes:
    """Return the metadata of an archive with these contents; it may list itself."""
    about = contents.about
    names = sorted(contents.files)
    people = [_person(author, number) for number, author in enumerate(about.authors, 1)]
    licence = _licence(about.licence)
    software = _software(contents)
    recorded = _recorded_code(contents)
    instrument = recorded or software
    actions = [_action(training, names, instrument, people) for training in contents.trainings]
    description, published = _dated(contents)
    crate: Entity = {
        "@id": "./",
        "@type": "Dataset",
        "conformsTo": {"@id": PROFILE},
        "name": about.title,
        "description": description,
        "datePublished": published,
        "license": _identity(licence),
        "author": _some(people),
        "mainEntity": _identity(software),
        "mentions": _some(actions),
        "hasPart": [_reference(name) for name in names],
    }
    if about.doi:
        crate["identifier"] = f"https://doi.org/{about.doi}"
    profile: Entity = {"@id": PROFILE, "@type": "CreativeWork", "name": "Process Run Crate"}
    descriptor: Entity = {
        "@id": METADATA,
        "@type": "CreativeWork",
        "about": _identity(crate),
        "conformsTo": {"@id": CRATE},
    }
    files: list[Entity] = [{**_reference(name), "@type": "File"} for name in names]
    code = [software, recorded] if recorded else [software]
    graph = [descriptor, crate, profile, licence, *code, *people, *actions, *files]
    text = json.dumps({"@context": f"{CRATE}/context", "@graph": graph}, indent=1)
    return f"{text}\n".encode()


def _dated(contents: Contents) -> tuple[str, str]:
    """Return the description, and the date of publication: that of the commit."""
    description = contents.about.description
    if contents.commit is None:
        what = f"{_NO_DATE} stands for a date that an anonymous archive does not tell"
        return f"{description} ({what}.)", _NO_DATE
    return description, time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime(contents.moment))


def _person(author: Author, number: int) -> Entity:
    address = f"#author-{number}" if author.orcid is None else author.orcid
    return {"@id": address, "@type": "Person", "name": author.name}


def _licence(terms: str | None) -> Entity:
    """Return the licence: SPDX knows its address, where its name is one of theirs."""
    if terms is None:
        terms = "not stated"
    known = re.fullmatch(r"(?!LicenseRef-)[A-Za-z0-9.+-]+", terms)
    return {
        "@id": f"https://spdx.org/licenses/{terms}" if known else "#licence",
        "@type": "CreativeWork",
        "name": terms or "as pyproject.toml says",
    }


def _software(contents: Contents) -> Entity:
    """Return the code that is packed, with the SWHIDs of its commit if it is just that."""
    about, commit = contents.about, contents.commit
    software: Entity = {
        "@id": about.repository or "#software",
        "@type": "SoftwareSourceCode",
        "name": about.title,
        "softwareRequirements": _reference(LOCK),
    }
    if commit:
        software["version"] = commit
    is_changed = PATCH in contents.files
    tree = None if is_changed else project_tree(contents.root, commit)
    if identifiers := software_ids(commit, tree):
        software["identifier"] = [*identifiers]
    if about.repository:
        software["url"] = about.repository
    return software


def _recorded_code(contents: Contents) -> Entity | None:
    """Return the code that was trained, where its commit is another one: results came after it."""
    recording = contents.recording
    identifiers = recording.software_ids
    if contents.commit in (None, recording.commit) or not identifiers:
        return None
    return {
        "@id": "#recorded-code",
        "@type": "SoftwareSourceCode",
        "name": f"{contents.about.title}: the code that was recorded",
        "version": recording.commit,
        "identifier": [*identifiers],
        "softwareRequirements": _reference(LOCK),
    }


def _action(
    training: PackedTraining, names: list[str], instrument: Entity, people: list[Entity]
) -> Entity:
    """Return a training as an action: what went in, what came out."""
    config = f"{training.place}/{CONFIG_USED}"
    results = [name for name in names if name.startswith(f"{training.place}/") and name != config]
    return {
        "@id": f"#{quote(training.name)}",
        "@type": "CreateAction",
        "name": f"Training of {training.name}",
        "description": training.text,
        "agent": _some(people),
        "instrument": _identity(instrument),
        "object": [_reference(name) for name in (config, LOCK, training.manifest)],
        "result": [_reference(name) for name in results],
        "actionStatus": "http://schema.org/CompletedActionStatus",
    }


def _identity(entity: Entity) -> Entity:
    """Return how other entities name this one."""
    return {"@id": entity["@id"]}


def _some(entities: list[Entity]) -> Json:
    """Return references to entities; RO-Crate wants a single one without a list around it."""
    references: list[Json] = [_identity(entity) for entity in entities]
    return references[0] if len(references) == 1 else references


def _reference(name: str) -> Entity:
    """Return how a file of the archive is named; one that is not UTF-8 is refused elsewhere."""
    return {"@id": quote(name, errors="surrogateescape")}
