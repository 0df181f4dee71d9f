"""Folders of images that cannot be read."""

import os
from pathlib import Path

import pytest
from repro.data.manifest import tree_digests


def test_a_folder_that_cannot_be_read_is_no_folder_without_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / "image.png").write_bytes(b"")
    (tmp_path / "b").chmod(0)
    monkeypatch.chdir(tmp_path)  # from there, for the folders above may be closed, too
    tmp_path.chmod(0o755)
    user = os.geteuid()
    if user == 0:  # root may read everything
        os.seteuid(65534)
    try:
        with pytest.raises(PermissionError):
            tree_digests(Path())
    finally:
        os.seteuid(user)
        (tmp_path / "b").chmod(0o755)
    assert list(tree_digests(Path())) == ["a/image.png", "b/image.png"]
