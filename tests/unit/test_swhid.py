"""SWHIDs where they would not name the recorded code: there are none."""

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from recorded_claims import recorded_claim
from repro.results.classes import beside
from repro.results.document import blocks
from repro.results.recording import Recording, parse_recording
from repro.runs.git import project_tree
from repro.runs.swhid import software_ids

COMMIT, TREE = "ab" * 20, "cd" * 20
IDS = [f"swh:1:rev:{COMMIT}", f"swh:1:dir:{TREE}"]


def git(folder: Path, *arguments: str) -> str:
    who = ("-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=no")
    return subprocess.check_output(["git", *who, *arguments], cwd=folder, text=True).strip()


def committed(top: Path, *options: str) -> tuple[Path, str]:
    """A project in a folder of a repository, and its commit."""
    root = top / "paper"
    root.mkdir(parents=True)
    (root / "pyproject.toml").write_text("[tool.repro]\n")
    (top / "beside.txt").write_text("no part of the project")
    git(top, "init", "--quiet", *options)
    git(top, "add", "--all")
    git(top, "commit", "--quiet", "--message", "State")
    return root, git(top, "rev-parse", "HEAD")


def test_the_tree_is_that_of_the_projects_own_folder(tmp_path: Path) -> None:
    root, commit = committed(tmp_path)
    tree = project_tree(root, commit)
    assert tree == git(tmp_path, "rev-parse", "HEAD:paper")
    assert software_ids(commit, tree) == [f"swh:1:rev:{commit}", f"swh:1:dir:{tree}"]


def test_a_project_that_is_the_whole_repository_has_the_tree_of_all(tmp_path: Path) -> None:
    root, commit = committed(tmp_path)
    assert project_tree(root.parent, commit) == git(root, "rev-parse", f"{commit}^{{tree}}")


def test_what_git_replace_shows_is_left_aside(tmp_path: Path) -> None:
    root, commit = committed(tmp_path)
    before = project_tree(root, commit)
    (root / "more.txt").write_text("x")
    git(root, "add", "more.txt")
    git(root, "commit", "--quiet", "--message", "More")
    git(root, "replace", commit, "HEAD")
    assert git(root, "rev-parse", f"{commit}:./") != before
    assert project_tree(root, commit) == before


def test_there_is_none_in_a_repository_of_sha256(tmp_path: Path) -> None:
    root, commit = committed(tmp_path, "--object-format=sha256")
    tree = project_tree(root, commit)
    assert tree == git(root, "rev-parse", "HEAD:./")
    assert software_ids(commit, tree) == []


@pytest.mark.parametrize("commit", [None, COMMIT, "HEAD^"])
def test_there_is_none_without_git_or_the_commit(tmp_path: Path, commit: str | None) -> None:
    assert project_tree(tmp_path, commit) is None
    root, _ = committed(tmp_path / "repository")
    assert project_tree(root, commit) is None


@pytest.mark.parametrize("pair", [(COMMIT, None), (None, TREE), (COMMIT, "cd" * 32), ("x", "y")])
def test_both_ids_are_needed(pair: tuple[str | None, str | None]) -> None:
    assert software_ids(COMMIT, TREE) == IDS
    assert software_ids(*pair) == []


def test_recordings_of_older_kits_are_read_and_stay_as_they_are() -> None:
    recording = Recording({"c": recorded_claim(mean=0.5)}, COMMIT, False, TREE)
    content = recording.as_json()
    assert parse_recording(content) == recording
    assert recording.software_ids == IDS
    del content["tree"]
    older = parse_recording(content)
    assert older == replace(recording, tree=None)
    assert older.as_json() == content
    assert older.software_ids == []


@pytest.mark.parametrize("dirty", [True, None])
def test_changed_code_has_none(dirty: bool | None) -> None:
    assert Recording({"c": recorded_claim(mean=0.5)}, COMMIT, dirty, TREE).software_ids == []


def test_an_added_class_keeps_those_of_the_class_recorded_first() -> None:
    first = Recording({"c": recorded_claim(mean=0.5)}, COMMIT, False, TREE)
    (before,) = first.claims.values()
    (bits,) = before.bits.values()
    other = replace(before, bits={"cpu x": bits}, environments={})
    merged = beside(first, Recording({"c": other}, "ef" * 20, False, "01" * 20))
    assert merged.software_ids == IDS
    assert {*merged.claims["c"].bits} == {*before.bits, "cpu x"}


def test_the_document_names_them_with_the_commit(tmp_path: Path) -> None:
    (tmp_path / "requirements.lock").write_text("")
    (tmp_path / "pyproject.toml").write_text('[tool.repro]\ntrain = "a:b"\nevaluate = "a:c"\n')
    recording = Recording({"c": recorded_claim(mean=0.5)}, COMMIT, False, TREE)
    assert blocks(tmp_path, recording)["commit"] == (
        f"Recorded from commit `{COMMIT}`. Its identifier at Software Heritage is `{IDS[0]}`, and "
        f"that of the project's files in it `{IDS[1]}`."
    )
    without = blocks(tmp_path, replace(recording, tree=None))["commit"]
    assert without == f"Recorded from commit `{COMMIT}`."
