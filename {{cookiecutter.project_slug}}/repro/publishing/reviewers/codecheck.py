"""Write codecheck.yml: which files a codechecker makes anew, and of which paper they are.

By version 1.0 of CODECHECK's configuration file specification. What only the codechecker fills
(codechecker, report, summary, certificate) is not there, and neither is what nobody has stated:
the rules refuse placeholders. Of an anonymous archive the file names no person, address or paper.
"""

from pathlib import PurePosixPath

import yaml  # type: ignore[import-untyped]  # omegaconf brings it

from repro.core.files import Json, JsonObject
from repro.core.markdown import one_line
from repro.publishing.packed import packed_figures
from repro.publishing.reviewers.paper_facts import RECREATE, ClaimFacts, PaperFacts
from repro.results.claims import EXPECTED
from repro.results.stated import is_orcid

CODECHECK = "codecheck.yml"
SPECIFICATION = "https://codecheck.org.uk/spec/config/1.0/"
_REMARKS = f"""\
# `make archive` wrote this file. The codechecker adds: codechecker, report, summary, certificate.
# To make the files of the manifest anew, in the folder of this file, after `make setup`:
#   {RECREATE}
"""


def write_codecheck(facts: PaperFacts) -> bytes:
    """Return the text of codecheck.yml."""
    content: JsonObject = {
        "version": SPECIFICATION,
        "manifest": [*_figures(facts), _metrics(facts)],
        "paper": _paper(facts),
    }
    repository = facts.contents.about.repository
    if repository and not facts.is_anonymous:
        content["repository"] = one_line(repository)
    text = yaml.safe_dump(content, allow_unicode=True, sort_keys=False, width=10_000)
    return f"---\n{_REMARKS}{text}".encode()


def _metrics(facts: PaperFacts) -> JsonObject:
    values = "; ".join(f"{of.label} {of.claim.value_name}" for of in facts.claims)
    comment = f"by claim and seed: {values}; the recorded time and memory differ from run to run"
    return {"file": EXPECTED.as_posix(), "comment": one_line(comment)}


def _figures(facts: PaperFacts) -> list[Json]:
    return [
        {"file": name, "comment": _about_figure(of, name)}
        for of in facts.claims
        for name in packed_figures(facts.contents, of.name)
    ]


def _about_figure(of: ClaimFacts, name: str) -> str:
    """Say what a figure shows: of which claim, and whether of all seeds or of the first one."""
    path = PurePosixPath(name)
    what = path.stem.replace("_", " ")
    seed = next(iter(of.claim.values))
    seeds = "" if what.endswith(" seeds") else f", seed {seed}"
    shows = f" ({of.claim.shows})" if of.claim.shows else ""
    return one_line(f"{of.label}{shows}, {what}{seeds}: {of.claim.text}")


def _paper(facts: PaperFacts) -> JsonObject:
    """Return what identifies the paper; the first author is the corresponding one."""
    authors = facts.contents.about.authors
    paper: JsonObject = {
        "title": one_line(facts.title),
        "authors": [_author(facts, place) for place in range(len(authors))],
    }
    reference = facts.stated.paper.get("reference")
    if reference and not facts.is_anonymous:
        paper["reference"] = one_line(reference)
    return paper


def _author(facts: PaperFacts, place: int) -> JsonObject:
    """Return an author, with the ORCID that CITATION.cff or [tool.repro] states."""
    author = facts.contents.about.authors[place]
    known = {"name": one_line(author.name)}
    orcid = (author.orcid or "").rpartition("/")[2] or _stated_orcid(facts, place)
    if is_orcid(orcid) and not facts.is_anonymous:
        known["ORCID"] = orcid
    return {**known}


def _stated_orcid(facts: PaperFacts, place: int) -> str:
    """Return the ORCID that [tool.repro] has for an author; "" if it has none."""
    names = [author.name for author in facts.contents.about.authors]
    same = [other for other, name in enumerate(names) if name == names[place]]
    stated = facts.stated.orcids.get(names[place], [])
    if len(names) == 1:
        stated = stated or facts.stated.orcids.get("", [])
    return stated[same.index(place)] if len(stated) == len(same) else ""
