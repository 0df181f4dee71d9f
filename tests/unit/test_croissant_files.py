"""What croissant.json says of files that no project of the tests has; and the columns of tables."""

import json
from pathlib import Path
from typing import Any

import pytest
from recorded_claims import recorded_claim
from repro.core.hashing import sha256_bytes
from repro.publishing import croissant as croissants
from repro.publishing.contents import Contents, PackedTraining
from repro.publishing.croissant import CROISSANT, croissant
from repro.publishing.table_columns import read_columns
from repro.results.about import About
from repro.results.recording import Recording

ABOUT = About("p", "P", "About p", [], None, "https://example.org/p")
URL = "https://example.org/raw/all.tar.gz"


def described(root: Path, with_data: bool, files: dict[str, bytes], **facts: Any) -> Any:
    """What is said of prepared files with such facts."""
    folder = root / "data" / "mine"
    for name, content in files.items():
        path = folder / "prepared" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    digests = {name: sha256_bytes(content) for name, content in files.items()}
    manifest = folder / "manifest.json"
    manifest.write_text(json.dumps({"dataset": "mine", "files": digests, **facts}))
    run = root / "runs" / "config_used.yaml"
    run.parent.mkdir()
    run.write_text("data_dir: data\n")
    pyproject = b'[tool.repro]\nprepare = "x"\n'
    (root / "pyproject.toml").write_bytes(pyproject)
    top = "data" if with_data else "data-manifest"
    packed: dict[str, bytes | Path] = {
        "pyproject.toml": pyproject,
        "runs/config_used.yaml": run,
        f"{top}/mine/manifest.json": manifest,
    }
    if with_data:
        packed |= {f"data/mine/prepared/{name}": folder / "prepared" / name for name in files}
    contents = Contents(
        root=root,
        files=packed,
        about=ABOUT,
        recording=Recording({"c": recorded_claim(mean=0.5)}),
        trainings=[PackedTraining("c-seed-1", "", "runs", f"{top}/mine/manifest.json")],
        commit=None,
        moment=0,
    )
    made = croissant(contents)
    assert croissant(contents) == made
    return json.loads(made[CROISSANT])


def files_of(content: Any) -> dict[str, Any]:
    return {node["contentUrl"]: node for node in content["distribution"]}


def test_a_file_that_was_downloaded_is_told_with_its_address(tmp_path: Path) -> None:
    content = described(tmp_path, False, {"x.bin": b"x"}, source=URL, raw_sha256=["ab" * 32])
    files = files_of(content)
    assert {*files} == {"data-manifest/mine/manifest.json", URL, "data/mine/prepared/x.bin"}
    assert files[URL]["sha256"] == "ab" * 32
    assert files[URL]["encodingFormat"] == "application/gzip"
    assert "contentSize" not in files[URL]
    assert "description" not in files[URL]


@pytest.mark.parametrize("facts", [{"source": URL}, {"source": URL, "raw_sha256": ["a", "b"]}])
def test_an_address_that_is_not_of_one_known_file_is_no_file(
    tmp_path: Path, facts: dict[str, Any]
) -> None:
    content = described(tmp_path, False, {"x.bin": b"x"}, **facts)
    assert URL not in files_of(content)
    assert URL in content["description"]


@pytest.mark.parametrize(
    ("license", "told"),
    [
        ("MIT", ["https://spdx.org/licenses/MIT"]),
        (["MIT", "as the authors say"], ["https://spdx.org/licenses/MIT", "as the authors say"]),
        ("https://example.org/terms", ["https://example.org/terms"]),
        ({"x": 1}, None),
    ],
)
def test_the_licence_is_what_prepare_returned(tmp_path: Path, license: Any, told: Any) -> None:
    assert described(tmp_path, True, {"x": b""}, license=license).get("license") == told


def test_very_many_files_are_known_by_their_manifest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(croissants, "MOST_FILES", 2)
    content = described(tmp_path, True, {f"{n}.csv": b"a\n1\n" for n in range(3)})
    assert {*files_of(content)} == {"data/mine/manifest.json"}
    assert "recordSet" not in content  # of which file?
    assert "SHA-256 of each of the 3 files in data/mine/manifest.json" in content["description"]


def test_names_of_any_kind_have_identifiers(tmp_path: Path) -> None:
    table = "a b,a/b,a_b,é\n1,x,1.5,\n".encode()
    names = {"x y.csv": table, "\udcff.csv": table}  # the second one is no UTF-8
    content = described(tmp_path, True, names)
    assert {*files_of(content)} == {"data/mine/manifest.json", "data/mine/prepared/x y.csv"}
    (records,) = content["recordSet"]
    fields = {field["name"]: field["@id"] for field in records["field"]}
    assert {*fields} == {"a b", "a/b", "a_b", "é"}
    assert len({*fields.values()}) == 4
    assert not any(" " in name or "%" in name for name in fields.values())


@pytest.mark.parametrize(
    ("text", "columns"),
    [
        ("a,b,c\n1,1.5,x\n-2,1e-3,\n", {"a": "sc:Integer", "b": "sc:Float", "c": "sc:Text"}),
        ("a,b\n1,x\n2.5,3\n", {"a": "sc:Float", "b": "sc:Text"}),
        ("a\n1\n,\n", None),  # a row with two cells
        ("a,a\n1,2\n", None),
        ("a,\n1,2\n", None),
        ("", None),
        ('a\n"x', None),
        ("a\nnan\n", {"a": "sc:Text"}),
        ("a\n99999999999999999999\n", {"a": "sc:Float"}),
        ('a,"b\nc"\n1,"2,3"\n', {"a": "sc:Integer", "b\nc": "sc:Text"}),
    ],
)
def test_columns_have_the_kind_that_fits_all_their_values(
    tmp_path: Path, text: str, columns: dict[str, str] | None
) -> None:
    path = tmp_path / "x.csv"
    path.write_text(text)
    assert read_columns(path) == columns
    path.with_suffix(".tsv").write_text(text.replace(",", "\t"))
    if '"' not in text:
        assert read_columns(path.with_suffix(".tsv")) == columns


def test_what_is_no_utf8_is_no_table(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_bytes(b"a\n\xff\n")
    assert read_columns(path) is None
