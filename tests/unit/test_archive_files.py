"""Names and data of an archive."""

import json
from pathlib import Path

import pytest
from repro.core.errors import UserError
from repro.core.hashing import sha256_json
from repro.publishing import packed_data
from repro.publishing.packed_data import find_data
from repro.publishing.zip_file import write_zip


@pytest.mark.parametrize(
    "name", ["../x", "/x", "a/../x", "a\\..\\x", "./x", "a//x", "a\nb", "\udc80"]
)
def test_a_name_that_may_escape_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is no name for every system"):
        write_zip(tmp_path / "x.zip", "top", {name: b"", "good": b""}, set(), 0)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_images_goes_in_with_the_data(tmp_path: Path) -> None:
    run, images = tmp_path / "run", tmp_path / "my images"
    for path in (run, images / "cat", tmp_path / "data" / "image_folder"):
        path.mkdir(parents=True)
    (images / "cat" / "1.png").write_bytes(b"1")
    manifest = {"dataset": "image_folder", "files": {"cat/1.png": "digest"}, "code": ["digest"]}
    place = tmp_path / "data" / "image_folder" / "manifest.json"
    place.write_text(json.dumps(manifest))
    (run / "config_used.yaml").write_text(f"data_dir: data\nimage_dir: '{images}'\n")
    digest = sha256_json({key: manifest[key] for key in ("dataset", "files")})
    name, files = find_data(tmp_path, run, digest, with_data=True)
    assert name == "data/image_folder/manifest.json"
    packed = {name: place, "data/own_files/image_dir/cat/1.png": images / "cat" / "1.png"}
    assert files == packed
    # What somebody has left at that place is not what was recorded.
    left = tmp_path / "data" / "own_files" / "image_dir" / "old.png"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"2")
    assert find_data(tmp_path, run, digest, with_data=True) == (name, packed)
    # Nor is it packed with the data of another claim, which are prepared.
    digits = tmp_path / "data" / "digits"
    (digits / "prepared").mkdir(parents=True)
    (digits / "prepared" / "a").write_bytes(b"1")
    (digits / "manifest.json").write_text(json.dumps({"files": {"a": "0"}}))
    files = find_data(tmp_path, run, sha256_json({"files": {"a": "0"}}), with_data=True)[1]
    assert "data/digits/prepared/a" in files
    assert not any("own_files" in file for file in files)
    aside = find_data(tmp_path, run, digest, with_data=False)
    assert aside == ("data-manifest/image_folder/manifest.json", {aside[0]: place})


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[1, 2]",
        "no JSON",
        '{"name": "\\ud800"}',  # half of a pair: no text that has a digest
        "[" * 200_000,
        '{"a": ' * 900 + "1" + "}" * 900,
        json.dumps({"icons": "x" * 5000}),  # larger than any that is read, here
    ],
)
def test_an_authors_own_manifest_refuses_no_archive(
    content: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, place = tmp_path / "run", tmp_path / "data" / "mine" / "manifest.json"
    own = tmp_path / "data" / "a_web_page" / "manifest.json"  # found before the kit's
    for path in (run, place.parent, own.parent):
        path.mkdir(parents=True)
    manifest = {"dataset": "mine", "files": {}}
    place.write_text(json.dumps(manifest))
    own.write_text(content)
    (run / "config_used.yaml").write_text("data_dir: data\n")
    monkeypatch.setattr(packed_data, "_LARGEST_MANIFEST", 4096 if "icons" in content else 2**28)
    name, _ = find_data(tmp_path, run, sha256_json(manifest), with_data=False)
    assert name == "data-manifest/mine/manifest.json"
    (run / "data.json").write_text("{}")  # the facts of a loop that tells none
    assert find_data(tmp_path, run, sha256_json({}), with_data=False) == ("run/data.json", {})
