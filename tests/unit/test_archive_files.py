"""Names and data of an archive."""

import json
from pathlib import Path

import pytest
from repro.core.errors import UserError
from repro.core.hashing import sha256_json
from repro.results.archive import find_data, write_zip


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
    assert files == {name: place, "image_dir/cat/1.png": images / "cat" / "1.png"}
    aside = find_data(tmp_path, run, digest, with_data=False)
    assert aside == ("data-manifest/image_folder/manifest.json", {aside[0]: place})
