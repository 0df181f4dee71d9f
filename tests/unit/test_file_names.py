"""Names that Windows, macOS or a zip cannot have, in an archive and in the claims."""

from pathlib import Path

import pytest
from repro.core.errors import UserError
from repro.core.file_names import LONGEST_PATH, faults_of_names, taken_for_one
from repro.publishing.zip_file import write_zip
from repro.results.claims import read_claims

NOT_ON_WINDOWS = [
    *("con", "CON", "prn.txt", "aux.py", "Aux.tar.gz", "nul", "NUL .txt", "com1", "COM9.log"),
    *("lpt1", "LPT³.txt", "com¹", "conin$", "CONOUT$.txt", "clock$", "com0", "aux/model.py"),
    *("x:y.txt", "a<b", "a>b", 'a"b', "a|b", "what?.txt", "*.py", "a\\b", "C:", "a/x:y/b"),
    *("a\tb", "a\x7fb", "a\x01", "a\u2028b", "end.", "end ", "folder./file", "folder /file", "..."),
]
FINE = [
    *("auxiliary.py", "con_.txt", "contents", "nullable.py", "com.txt", "com10", "lpt", "x.aux"),
    *(
        " leading",
        ".hidden",
        "odd näme (1).txt",
        "a+b=c;d,e~f#g%h&i'j!k@l^m`n{o}[p]$q",
        "日本語.png",
    ),
    *("x" * 200, "ä" * 100 + "/" + "ä" * 127 + "x", "🙂.png"),
]


@pytest.mark.parametrize("name", NOT_ON_WINDOWS)
def test_a_name_that_windows_cannot_have_is_refused(name: str, tmp_path: Path) -> None:
    for place in (name, f"experiment/{name}"):
        with pytest.raises(UserError, match=r"is no name for every system \(.*\): rename it$") as e:
            write_zip(tmp_path / "x.zip", "top", {place: b"", "good": b""}, set(), 0)
        assert len(e.value.lines) == 1
    assert list(tmp_path.iterdir()) == []


def test_names_that_every_system_can_have_are_no_faults(tmp_path: Path) -> None:
    assert faults_of_names(FINE) == []
    write_zip(tmp_path / "x.zip", "top", dict.fromkeys(FINE, b""), set(), 0)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("x" * 256, "has 256 bytes, and 255 fit"),
        ("ä" * 128, "has 256 bytes, and 255 fit"),
        ("a/" * 120 + "b", "its path has 241 characters, and Windows has room for 236"),
        ("🙂" * 60 + "/" + "🙂" * 60, "its path has 241 characters, and Windows has room for 236"),
        ("x\udcff.txt", r"'x\xff.txt' is no name for every system (it is not UTF-8): rename it"),
    ],
)
def test_what_is_too_long_or_no_text_is_named(name: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        write_zip(tmp_path / "x.zip", "top", {name: b""}, set(), 0)
    (line,) = error.value.lines
    assert reason in line
    assert list(tmp_path.iterdir()) == []


def test_a_path_counts_with_the_archives_folder(tmp_path: Path) -> None:
    name = "a/" * 50 + "b" * (LONGEST_PATH - 100 - len("top/"))
    write_zip(tmp_path / "x.zip", "top", {name: b""}, set(), 0)
    with pytest.raises(UserError, match="rename it"):
        write_zip(tmp_path / "y.zip", "top1", {name: b""}, set(), 0)


@pytest.mark.parametrize("top", ["con.x-0123", "a:b-0123", "../a", "/a", "a/b", "x\udcff"])
def test_an_archives_folder_is_a_name_for_every_system(top: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"the archive's folder: .*: rename it in pyproject\.toml"):
        write_zip(tmp_path / "x.zip", top, {"a": b"", "b": b""}, set(), 0)


@pytest.mark.parametrize(
    ("names", "pair"),
    [
        (["a.txt", "A.txt"], ("A.txt", "a.txt")),
        (["\u00e9.txt", "e\u0301.txt"], ("e\u0301.txt", "\u00e9.txt")),
        (["\u00c9.txt", "e\u0301.txt"], ("e\u0301.txt", "\u00c9.txt")),  # both at once
        (["Data/one", "data/two", "data/three"], ("Data", "data")),
        (["a/B/c/x", "a/b/c/y"], ("a/B", "a/b")),
        (["README", "readme/x"], ("README", "readme")),
        (["\u1e9e", "\u00df"], ("\u00df", "\u1e9e")),  # a capital and a small sharp s
        (["a", "a/b"], ("a", "a/")),
    ],
)
def test_names_that_other_systems_take_for_one_are_refused(
    names: list[str], pair: tuple[str, str], tmp_path: Path
) -> None:
    assert taken_for_one([*names, "other"]) == [pair]
    with pytest.raises(UserError, match=r"are one name on Windows or macOS: rename one$"):
        write_zip(tmp_path / "x.zip", "top", dict.fromkeys(names, b""), set(), 0)
    assert list(tmp_path.iterdir()) == []
    assert taken_for_one(["a/x", "a/y", "b/x", "ab/x"]) == []


@pytest.mark.parametrize(
    ("names", "line"),
    [
        (["aux"], "claims.yaml: aux: aux is a device of Windows: rename the claim"),
        (["con.x"], "claims.yaml: con.x: con is a device of Windows: rename the claim"),
        (["short."], "claims.yaml: short.: Windows drops a dot or a space at the end: rename"),
        (["Short", "short"], "claims.yaml: Short and short are one name on Windows or macOS"),
        (["x" * 256], "a name in it has 256 bytes, and 255 fit: rename the claim"),
    ],
)
def test_a_claim_whose_folders_other_systems_cannot_have_is_refused_before_it_trains(
    names: list[str], line: str, tmp_path: Path
) -> None:
    settings = {"config": "c", "train": "t", "evaluate": "e", "claims": "claims.yaml"}
    text = "[tool.repro]\n" + "".join(f"{key} = '{value}'\n" for key, value in settings.items())
    (tmp_path / "pyproject.toml").write_text(text)
    claim = "- name: {}\n  text: t\n  arguments: []\n  metric: m\n  seeds: [1]\n"
    (tmp_path / "claims.yaml").write_text("".join(map(claim.format, names)))
    with pytest.raises(UserError) as error:
        read_claims(tmp_path)
    (found,) = error.value.lines
    assert line in found
