"""What an author states in [tool.repro]: right forms come through, each fault is one line."""

import pytest
from repro.core.errors import UserError
from repro.results import stated
from repro.results.stated import Stated, is_orcid, parse_stated

ORCID = "0000-0002-1825-0097"  # the example of orcid.org's own documentation


def table(*lines: str) -> str:
    return "\n".join(["[tool.repro]", 'data = "experiment.data"', *lines])


def faults(*lines: str) -> list[str]:
    with pytest.raises(UserError) as caught:
        parse_stated(table(*lines))
    return caught.value.lines


def test_nothing_need_be_stated() -> None:
    assert parse_stated(table()) == Stated()


def test_what_is_stated_comes_through(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stated, "PAPER", ("claims",))
    text = table(
        'doi = "10.5281/zenodo.1234567"',
        "[tool.repro.orcid]",
        f'"Jane Doe" = "{ORCID}"',
        "[tool.repro.responsible_ai]",
        'dataBiases = ["one hospital", "one country"]',
        'dataCollection = "by hand"',
        "[tool.repro.paper]",
        'claims = "as good as any"',
    )
    assert parse_stated(text) == Stated(
        doi="10.5281/zenodo.1234567",
        orcids={"Jane Doe": [ORCID]},
        responsible_ai={
            "dataBiases": ["one hospital", "one country"],
            "dataCollection": "by hand",
        },
        paper={"claims": "as good as any"},
    )
    assert parse_stated(table(f'orcid = "{ORCID}"')).orcids == {"": [ORCID]}
    several = parse_stated(table("[tool.repro.orcid]", f'"Wei Li" = ["", "{ORCID}"]'))
    assert several.orcids == {"Wei Li": ["", ORCID]}


@pytest.mark.parametrize("orcid", [ORCID, "0000-0001-5109-3700", "0000-0002-1694-233X"])
def test_the_check_digit_of_an_orcid(orcid: str) -> None:
    assert is_orcid(orcid)
    for digit in {*"0123456789X"} - {orcid[-1]}:
        assert not is_orcid(orcid[:-1] + digit)
    for place, digit in enumerate(orcid[:-1]):
        if digit != "-":  # the code finds each digit that is wrong
            assert not is_orcid(f"{orcid[:place]}{(int(digit) + 1) % 10}{orcid[place + 1 :]}")


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        (['dio = "10.5281/zenodo.1"'], "no setting 'dio': did you mean doi?"),
        (['zzz = "x"'], "no setting 'zzz': there are prepare, train"),
        (['doi = "https://doi.org/10.5281/zenodo.1"'], "expected a DOI without an address"),
        (['doi = "10.52/zenodo.1"'], "expected a DOI"),
        (['doi = "10.5281/"'], "expected a DOI"),
        (['doi = "10.5281/a b"'], "expected a DOI"),
        (['doi = "10.5281/a\\nb"'], "expected a DOI"),
        (["doi = 10.5281"], "'doi' = 10.5281: expected a table [tool.repro] of texts and tables"),
        (["[tool.repro.doi]"], "expected a DOI"),
        (
            ['orcid = "0000-0002-1825-0096"'],
            "expected an ORCID of four times four digits, whose check digit is right",
        ),
        (['orcid = "0000-0002-1825-009"'], "expected an ORCID"),
        (['orcid = "\u0660000-0002-1825-0097"'], "expected an ORCID"),  # an Arabic digit
        (['doi = "10.\u0665281/x"'], "expected a DOI"),
        (['orcid = "https://orcid.org/0000-0002-1825-0097"'], "expected an ORCID"),
        (["[tool.repro.orcid]", '"Jane\\nDoe" = "x"'], r"orcid.'Jane\nDoe' = 'x'"),
        (["[tool.repro.orcid]", "Jane = 1"], "orcid.'Jane' = 1"),
        (["[tool.repro.orcid]", "Jane = []"], "orcid.'Jane' = []"),
        (["[tool.repro.orcid]", 'Jane = ["", "x"]'], "expected an ORCID"),
        (["[tool.repro.orcid]", "Jane = [1]"], "expected an ORCID"),
        (['orcid = ""'], "expected an ORCID"),
        (['responsible_ai = "none"'], "expected a table [tool.repro.responsible_ai]"),
        (["[tool.repro.responsible_ai]", 'dataBiasses = "x"'], "did you mean dataBiases?"),
        (["[tool.repro.responsible_ai]", "dataBiases = 1"], "a text or a list of texts"),
        (["[tool.repro.responsible_ai]", "dataBiases = [1]"], "a text or a list of texts"),
        (["[tool.repro.responsible_ai]", "dataBiases = []"], "a text or a list of texts"),
        (["[tool.repro.responsible_ai]", 'dataBiases = " "'], "a text or a list of texts"),
        (["[tool.repro.paper]", "claims = 1"], "paper.claims = 1 in [tool.repro]: expected a text"),
        (["[tool.repro.paper]", 'calims = "x"'], "no setting 'paper.calims': did you mean claims?"),
    ],
)
def test_a_fault_is_one_line(lines: list[str], told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stated, "PAPER", ("claims",))
    [line] = faults(*lines)
    assert told in line
    assert "\n" not in line


def test_all_faults_are_told_at_once() -> None:
    assert len(faults('dio = "x"', 'doi = "x"', 'orcid = "x"')) == 3
