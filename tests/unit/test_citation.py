"""CITATION.cff gets what the author states, and nothing else of the author's text changes."""

from pathlib import Path

import pytest
import yaml
from repro.core.errors import UserError
from repro.results.about import name_of
from repro.results.citation import CITATION, cited, uncited, write_citation
from repro.results.stated import Stated

DOI = "10.5281/zenodo.1234567"
JANE, JOHN = "0000-0002-1825-0097", "0000-0001-5109-3700"
BOTH = Stated(DOI, {"Jane Doe": [JANE], "The Lab": [JOHN]})

# As authors write them: comments, quotes, an own order, an own indentation, no line end at the end.
BLOCK = """\
# how to cite us
cff-version: 1.2.0
title: "Seeing digits: a study"   # short
message: >-
  If you use it,
  cite it.

authors:
- family-names: Doe   # first
  given-names: Jane
  affiliation: |
    A house
- name: 'The Lab'
version: 0.1.0"""
WITH_BOTH = (
    BLOCK.replace("# short\n", f'# short\ndoi: "{DOI}"\n')
    .replace("# first\n", f'# first\n  orcid: "https://orcid.org/{JANE}"\n')
    .replace("'The Lab'\n", f"'The Lab'\n  orcid: \"https://orcid.org/{JOHN}\"\n")
)


def test_only_the_stated_lines_are_added() -> None:
    text = cited(BLOCK, BOTH)
    assert text == WITH_BOTH
    assert cited(text, BOTH) == text
    assert cited(BLOCK, Stated()) == BLOCK


def test_line_ends_and_a_mark_at_the_start_stay() -> None:
    windows = "\ufeff" + BLOCK.replace("\n", "\r\n")
    assert cited(windows, BOTH) == "\ufeff" + WITH_BOTH.replace("\n", "\r\n")


@pytest.mark.parametrize(
    "old", ["doi: 10.1/old # of the preprint", "doi: '10.1/old' # of the preprint"]
)
def test_another_value_is_replaced_where_it_stands(old: str) -> None:
    text = f"{old}\n{BLOCK}"
    assert cited(text, Stated(DOI)) == f'doi: "{DOI}" # of the preprint\n{BLOCK}'


@pytest.mark.parametrize("style", [">-", "|", "|+", ">2-"])
@pytest.mark.parametrize("ends", ["\n", "\r\n"])
def test_texts_in_lines_of_their_own_stay(style: str, ends: str) -> None:
    """The lines go below them, and a DOI in such a form is replaced."""
    title = f"title: {style}\n  A title\n  in lines\n\n"
    authors = f"# who\nauthors:\n- name: {style}\n    Jane Doe\n  affiliation: x\n"
    authors += "- name: |-\n    The Lab\n"
    for text in (title + authors, authors + title, f"doi: >-\n  10.1/old\n{title}{authors}"):
        before = text.replace("\n", ends)
        orcids = {yaml.safe_load(before)["authors"][0]["name"]: [JANE], "The Lab": [JOHN]}
        after = cited(before, Stated(DOI, orcids))
        found = yaml.safe_load(after)
        assert found.pop("doi") == DOI
        assert [author.pop("orcid")[-4:] for author in found["authors"]] == [JANE[-4:], JOHN[-4:]]
        expected = yaml.safe_load(before)
        expected.pop("doi", None)
        assert found == expected
        assert cited(after, Stated(DOI, orcids)) == after
        added = [line for line in after.split(ends) if "orcid:" in line or "doi:" in line]
        kept = [line for line in after.split(ends) if line not in added]
        assert kept == [
            line for line in before.split(ends) if "10.1" not in line and "doi" not in line
        ]


def test_an_empty_value_is_filled_in() -> None:
    assert cited(f"doi:\n{BLOCK}", Stated(DOI)) == f'doi: "{DOI}"\n{BLOCK}'


def test_the_only_author_needs_no_name() -> None:
    text = "title: x\nauthors: [{name: Jane Doe}]\n"
    after = f'title: x\nauthors: [{{name: Jane Doe, orcid: "https://orcid.org/{JANE}"}}]\n'
    assert cited(text, Stated(orcids={"": [JANE]})) == after
    assert yaml.safe_load(after)["authors"][0]["orcid"].endswith(JANE)


@pytest.mark.parametrize("orcids", [[JANE, JOHN], ["", JOHN], [JANE, ""]])
def test_authors_of_one_name_have_their_orcids_in_their_order(orcids: list[str]) -> None:
    text = "title: x\nauthors:\n- name: Wei Li\n- name: Y\n- name: Wei Li\n"
    after = cited(text, Stated(orcids={"Wei Li": orcids}))
    authors = yaml.safe_load(after)["authors"]
    told = [author.get("orcid", "").rpartition("/")[2] for author in authors]
    assert told == [orcids[0], "", orcids[1]]


@pytest.mark.parametrize(
    ("text", "stated", "told"),
    [
        (BLOCK, Stated(orcids={"": [JANE]}), "of one author, and CITATION.cff has 2"),
        (BLOCK, Stated(orcids={"J. Doe": [JANE]}), "names 'J. Doe', and CITATION.cff has Jane Doe"),
        ("authors:\n- name: X\n- name: X\n", Stated(orcids={"X": [JANE]}), "have a list, in their"),
        ("authors:\n- name: X\n", Stated(orcids={"X": [JANE, JOHN]}), "names 'X' with 2 ORCIDs"),
        ("title: x\n", Stated(orcids={"": [JANE]}), "authors: expected a list"),
        ("authors: [x]\n", Stated(orcids={"": [JANE]}), "authors: expected a list"),
        ("title: [\n", Stated(DOI), "no YAML of names with values"),
        ("- title\n", Stated(DOI), "no YAML of names with values"),
        ("[" * 500, Stated(DOI), "no YAML of names with values"),
        # What would come out says something else.
        ("doi: x\ndoi: y\n", Stated(DOI), f'write doi: "{DOI}" into it by hand'),
        ("a: &a {}\ndoi: *a\ntitle: x\n", Stated(DOI), f'write doi: "{DOI}" into it by hand'),
    ],
)
def test_what_cannot_be_edited_is_one_line(text: str, stated: Stated, told: str) -> None:
    with pytest.raises(UserError) as caught:
        cited(text, stated)
    [line] = caught.value.lines
    assert told in line


def project(root: Path, citation: bytes | None, *lines: str) -> Path:
    root.joinpath("pyproject.toml").write_text("\n".join(["[tool.repro]", *lines, ""]))
    if citation is not None:
        (root / CITATION).write_bytes(citation)
    return root


def test_a_file_is_written_once(tmp_path: Path) -> None:
    root = project(tmp_path, BLOCK.encode(), f'doi = "{DOI}"')
    assert uncited(root) == ["CITATION.cff does not say what [tool.repro] states"]
    assert write_citation(root)
    after = (root / CITATION).read_bytes()
    assert after == cited(BLOCK, Stated(DOI)).encode()
    assert not write_citation(root)
    assert uncited(root) == []
    assert (root / CITATION).read_bytes() == after


def test_the_file_is_needed_only_for_what_is_stated(tmp_path: Path) -> None:
    assert uncited(project(tmp_path, None)) == []
    assert uncited(project(tmp_path, b"\xff")) == []
    with pytest.raises(UserError, match="no UTF-8 text at byte 0"):
        uncited(project(tmp_path, None, f'doi = "{DOI}"'))
    (tmp_path / CITATION).unlink()
    with pytest.raises(UserError, match=r"CITATION.cff is not there.*restore it"):
        uncited(tmp_path)


def test_a_name_has_its_particle_and_its_suffix() -> None:
    name = {"given-names": "Jan", "name-particle": "van der", "family-names": "Berg"}
    assert name_of({**name, "name-suffix": "Jr."}) == "Jan van der Berg Jr."
