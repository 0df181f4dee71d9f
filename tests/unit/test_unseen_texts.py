"""Characters that nobody sees: refused where an author's texts are read, by one rule for all."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from repro.core.errors import UserError
from repro.core.text import unseen
from repro.results.about import read_about
from repro.results.claims import read_claims
from repro.results.stated import parse_stated

PROJECT = '[project]\nname = "x"\n[tool.repro]\nclaims = "claims.yaml"\n'
CLAIM = "- {name: a, text: %s, arguments: [], metric: m, seeds: [1]}\n"


def _claim(text: str, root: Path) -> Any:
    (root / "pyproject.toml").write_text(PROJECT)
    (root / "claims.yaml").write_text(CLAIM % text)
    return read_claims(root)[0].text


def _title(text: str, root: Path) -> Any:
    citation = f"title: {text}\n".encode()
    return read_about({"pyproject.toml": PROJECT.encode(), "CITATION.cff": citation}).title


def _author(text: str, root: Path) -> Any:
    project = f"[project]\nname = 'x'\nauthors = [{{name = {text}}}]\n"
    return read_about({"pyproject.toml": project.encode()}).authors[0].name


def _limitation(text: str, root: Path) -> Any:
    return parse_stated(f"{PROJECT}[tool.repro.paper]\nlimitations = {text}\n").paper["limitations"]


READERS = (_claim, _title, _author, _limitation)
ESCAPES = ("\\u202E", "\\u2066", "\\u200B", "\\u2060", "\\u001B", "\\u0007", "\\u009B", "\\u2028")


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize("escape", [*ESCAPES, "\\uFEFF"])
def test_a_character_that_nobody_sees_is_refused_in_one_line(
    escape: str, read: Callable[[str, Path], Any], tmp_path: Path
) -> None:
    with pytest.raises(UserError) as caught:
        read(f'"it learns {escape}well"', tmp_path)
    (line,) = caught.value.lines
    assert f"has U+{escape[2:].lstrip('0').zfill(4)}, which cannot be seen: take it out" in line
    assert line.isascii()


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize(
    "text",
    [
        "שלום עולם",
        "می‌خواهم",
        "👩‍💻 ok",
        "a\\n\\tb",
        "Zoë e\u0301",
        "50 km",
        "a\u00adb",
        "א\u200e\u200f",
        "\u0600 1",
    ],
)
def test_texts_of_all_scripts_stay(
    text: str, read: Callable[[str, Path], Any], tmp_path: Path
) -> None:
    assert read(f'"{text}"', tmp_path) == text.replace("\\n", "\n").replace("\\t", "\t")


def test_which_character_it_is_is_told() -> None:
    assert unseen("plain") is None
    assert unseen("a\x00") == "U+0000"


@pytest.mark.parametrize("key", ["on", "5", "null", "1.5"])
def test_a_key_that_is_no_text_is_no_traceback(key: str, tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text(PROJECT)
    (tmp_path / "claims.yaml").write_text(CLAIM.replace("name: a", f"name: a, {key}: b") % "text")
    with pytest.raises(UserError, match=r"claims\.yaml"):
        read_claims(tmp_path)
    files = {"pyproject.toml": PROJECT.encode(), "CITATION.cff": f"{key}: b\ntitle: T\n".encode()}
    assert read_about(files).title == "T"
