"""What only the author can state about a work, in [tool.repro] of pyproject.toml.

That is its DOI, the authors' ORCIDs, what is known about the data's origin and use
([tool.repro.responsible_ai]), and what papers ask for ([tool.repro.paper]). All of it is optional,
and pyproject.toml is no condition of a training: it can be stated after the results were recorded.
Promises that what is returned has the right form, and that every unknown name and every wrong form
is one line which names the nearest known one. Whether a DOI or an ORCID exists is not asked: that
needs the network.
"""

import difflib
import re
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

from repro.core.bounded import read_text
from repro.core.errors import refuse
from repro.core.files import Json, JsonObject
from repro.core.project import PYPROJECT, repro_table
from repro.core.text import refuse_unseen
from repro.results.paper_fields import PAPER_FIELDS

# What else stands in [tool.repro]: the parts of the author's code that the kit calls.
_CODE = ("prepare", "train", "evaluate", "task", "data", "config", "claims")

# Croissant's vocabulary for responsible AI, version 1.0, without its prefix "rai:".
RESPONSIBLE_AI = (
    "annotationsPerItem",
    "annotatorDemographics",
    "dataAnnotationAnalysis",
    "dataAnnotationPlatform",
    "dataAnnotationProtocol",
    "dataBiases",
    "dataCollection",
    "dataCollectionMissingData",
    "dataCollectionRawData",
    "dataCollectionTimeframe",
    "dataCollectionType",
    "dataImputationProtocol",
    "dataLimitations",
    "dataManipulationProtocol",
    "dataPreprocessingProtocol",
    "dataReleaseMaintenancePlan",
    "dataSocialImpact",
    "dataUseCases",
    "machineAnnotationTools",
    "personalSensitiveInformation",
)

# What the papers for reviewers ask of the author.
PAPER = tuple(PAPER_FIELDS)

_DOI = re.compile(r"10\.[0-9]{4,9}/[!-~]+")  # what follows the slash is the registrant's
_ORCID = re.compile(r"[0-9]{4}-[0-9]{4}-[0-9]{4}-[0-9]{3}[0-9X]")


@dataclass(frozen=True)
class Stated:
    """What an author states; what was not stated is None or empty.

    `orcids` has the ORCIDs by the names of the authors: one for each author of that name, in their
    order, "" for one without. The name is empty where pyproject.toml gives one ORCID without a
    name: it is then that of the only author.
    """

    doi: str | None = None
    orcids: dict[str, list[str]] = field(default_factory=dict)
    responsible_ai: dict[str, str | list[str]] = field(default_factory=dict)
    paper: dict[str, str] = field(default_factory=dict)


def read_stated(root: Path) -> Stated:
    """Return what the project's pyproject.toml states; UserError for faults, one line each."""
    return parse_stated(read_text(root / PYPROJECT))


def parse_stated(text: str) -> Stated:
    """Return what a text of pyproject.toml states; UserError for faults, one line each."""
    table = repro_table(text)
    refuse_unseen(table, PYPROJECT)
    faults = _unknown("", table, (*_CODE, "doi", "orcid", "responsible_ai", "paper"))
    doi = table.get("doi")
    if doi is not None and not _is_doi(doi):
        faults.append(_fault("doi", doi, "a DOI without an address, such as 10.PREFIX/NAME"))
    orcids = _orcids(table.get("orcid", {}), faults)
    responsible_ai = _named(table, "responsible_ai", RESPONSIBLE_AI, faults)
    paper = _named(table, "paper", PAPER, faults)
    for name, value in responsible_ai.items():
        if not _is_text(value) and not _is_texts(value):
            faults.append(_fault(f"responsible_ai.{name}", value, "a text or a list of texts"))
    for name, value in paper.items():
        if not _is_text(value):
            faults.append(_fault(f"paper.{name}", value, "a text"))
    refuse(faults)
    # What has another form was refused.
    return Stated(
        doi=doi if isinstance(doi, str) else None,
        orcids=orcids,
        responsible_ai={name: _text_or_texts(value) for name, value in responsible_ai.items()},
        paper={name: str(value) for name, value in paper.items()},
    )


def is_orcid(text: str) -> bool:
    """Tell whether a text is an ORCID: 16 digits in fours, the last one ISO 7064's mod 11-2."""
    if not _ORCID.fullmatch(text):
        return False
    digits = text.replace("-", "")
    total = 0
    for digit in digits[:-1]:
        total = (total + int(digit)) * 2
    check = (12 - total % 11) % 11
    return digits[-1] == ("X" if check == 10 else str(check))


def _is_doi(value: Json) -> bool:
    return isinstance(value, str) and _DOI.fullmatch(value) is not None


def _is_text(value: Json) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _is_texts(value: Json) -> bool:
    return isinstance(value, list) and bool(value) and all(map(_is_text, value))


def _text_or_texts(value: Json) -> str | list[str]:
    return [str(item) for item in value] if isinstance(value, list) else str(value)


def _orcids(value: Json, faults: list[str]) -> dict[str, list[str]]:
    """Return the ORCIDs by their authors' names; a single one has no name."""
    by_name = value if isinstance(value, dict) else {"": value}
    orcids = {}
    for name, told in by_name.items():
        several = [str(item) for item in told] if isinstance(told, list) and name else []
        if isinstance(told, str) and is_orcid(told):
            orcids[name] = [told]
        elif several and all(item == "" or is_orcid(item) for item in several):
            orcids[name] = several
        else:
            expected = "an ORCID of four times four digits, whose check digit is right"
            faults.append(_fault(f"orcid.{name!r}" if name else "orcid", told, expected))
    return orcids


def _named(table: JsonObject, name: str, known: Collection[str], faults: list[str]) -> JsonObject:
    """Return the table `name` of [tool.repro], without what is not known in it."""
    inner = table.get(name, {})
    if not isinstance(inner, dict):
        faults.append(_fault(name, inner, f"a table [tool.repro.{name}]"))
        return {}
    faults += _unknown(f"{name}.", inner, known)
    return {key: value for key, value in inner.items() if key in known}


def _unknown(prefix: str, table: JsonObject, known: Collection[str]) -> list[str]:
    """Return a line for each name that is not known, with the nearest one that is."""
    faults = []
    for name in table:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
            faults.append(f"{PYPROJECT}: [tool.repro] has no setting {prefix + name!r}: {hint}")
    return faults


def _fault(name: str, value: Json, expected: str) -> str:
    return f"{PYPROJECT}: {name} = {value!r} in [tool.repro]: expected {expected}: correct it"
