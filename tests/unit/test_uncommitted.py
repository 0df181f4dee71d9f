"""What of the code is in no commit: also edits that git was told to keep quiet about."""

import os
import subprocess
from pathlib import Path

import pytest
from conftest import TEMPLATE
from recorded_claims import recorded_claim
from repro.core.errors import UserError
from repro.publishing.committed import read_commit, refuse_what_git_left_out
from repro.results import record
from repro.runs.code_files import code_files
from repro.runs.conditions import Conditions, conditions_on_disk
from repro.runs.git import get_git_info, uncommitted_changes, uncommitted_files
from repro.runs.uncommitted import uncommitted_code
from test_provenance import _only_our_settings, apply, commit, git, tree, write

__all__ = ["_only_our_settings"]  # a fixture

FILES: dict[str, bytes | str] = {
    "pyproject.toml": "[tool.repro]\n",
    "requirements.lock": "",
    "configs/config.yaml": "seed: 1\n",
    "experiment/model.py": "WIDTH = 1\n",
    "docs/notes.md": "old\n",
}
MARKS = ["--skip-worktree", "--assume-unchanged"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A project below the top of its repository."""
    commit(tmp_path / "top", {f"paper/{name}": text for name, text in FILES.items()})
    return tmp_path / "top" / "paper"


@pytest.mark.parametrize("marks", [*([mark] for mark in MARKS), MARKS])
@pytest.mark.parametrize("name", ["configs/config.yaml", "docs/notes.md"])
def test_an_edit_that_git_was_told_to_skip_is_named(
    root: Path, name: str, marks: list[str]
) -> None:
    for mark in marks:
        git(root, "update-index", mark, name)
    assert uncommitted_files(root) == []
    assert get_git_info(root).is_dirty is False
    (root / name).write_text("another one\n")
    assert git(root, "status", "--porcelain") == ""
    index = (root.parent / ".git/index").read_bytes()
    (line,) = uncommitted_files(root) or []
    assert line.startswith(f"{name} (git does not look at it: git update-index --no-")
    info = get_git_info(root)
    assert info.is_dirty
    assert info.diff_stat
    assert name in info.diff_stat
    git(root.parent, "clone", "--quiet", ".", "../clone")
    apply(uncommitted_changes(root), root.parent.parent / "clone")
    assert tree(root.parent.parent / "clone") == tree(root.parent)
    assert (root.parent / ".git/index").read_bytes() == index
    remedy = line.partition(": ")[2].removesuffix(")")
    subprocess.run(remedy, shell=True, cwd=root, check=True)
    assert uncommitted_files(root) == [name]


def test_a_hidden_file_that_was_deleted_is_named(root: Path) -> None:
    git(root, "update-index", "--assume-unchanged", "docs/notes.md")
    git(root, "update-index", "--skip-worktree", "experiment/model.py")
    (root / "experiment/model.py").unlink()
    (line,) = uncommitted_files(root) or []
    assert line.startswith("experiment/model.py (")


def test_a_sparse_checkout_lacks_what_is_no_code(root: Path) -> None:
    git(root.parent, "sparse-checkout", "set", "--no-cone", "/*", "!docs")
    assert not (root / "docs").exists()
    assert uncommitted_files(root) == []
    git(root.parent, "sparse-checkout", "set", "--no-cone", "/*", "!configs")
    (line,) = uncommitted_files(root) or []
    assert line.startswith("configs/config.yaml (")


def test_an_edit_within_the_second_is_seen(root: Path) -> None:
    """With the size and the time of before: git itself does not see it."""
    for name, value in (("core.trustctime", "false"), ("core.checkStat", "minimal")):
        git(root, "config", name, value)
    path = root / "experiment/model.py"
    os.utime(path, (1, 1))
    git(root, "update-index", "--refresh")
    path.write_text("WIDTH = 2\n")
    os.utime(path, (1, 1))
    (line,) = uncommitted_code(root) or []
    assert line.startswith("experiment/model.py")


@pytest.mark.parametrize("place", [".gitignore", "../.git/info/exclude"])
def test_code_that_git_ignores_is_in_no_commit(root: Path, place: str) -> None:
    with (root / place).open("a") as file:
        file.write("mine.*\n")
    if place == ".gitignore":
        commit(root.parent, {})
    write(root, {"experiment/mine.py": "", "mine.txt": ""})
    assert uncommitted_files(root) == []
    (line,) = uncommitted_code(root) or []
    assert line == "experiment/mine.py (git ignores it: git add --force experiment/mine.py)"
    with pytest.raises(UserError, match="not committed: experiment/mine"):
        record._refuse_what_others_lack(root, [line])


def test_code_of_a_submodule_is_committed(root: Path, tmp_path: Path) -> None:
    commit(tmp_path / "library", {"library.py": ""})
    allow = ("-c", "protocol.file.allow=always")
    git(root, *allow, "submodule", "--quiet", "add", str(tmp_path / "library"), "library")
    git(root, "commit", "--quiet", "--message=library")
    assert uncommitted_code(root) == []


def test_a_worktree_of_the_project_is_no_code_and_no_change(root: Path) -> None:
    before = code_files(root)
    git(root, "worktree", "add", "--quiet", "try/other", "-b", "other")
    assert (root / "try/other/paper/experiment/model.py").is_file()
    assert code_files(root) == before
    assert uncommitted_code(root) == []
    assert get_git_info(root).is_dirty is False
    assert uncommitted_changes(root) is None
    inside = root / "try/other/paper"  # itself is a project like the first one
    (inside / "experiment/model.py").write_text("WIDTH = 2\n")
    assert code_files(inside) == before
    assert uncommitted_code(inside) == ["experiment/model.py"]


def test_a_repository_of_its_own_is_code_and_named_with_what_to_do(root: Path) -> None:
    """Training may import it; `git add` alone would commit no file of it."""
    commit(root / "library", {"library.py": ""})
    assert "library/library.py" in code_files(root)
    (line,) = uncommitted_code(root) or []
    remedy = "delete library/.git, then git add library/"
    assert line == f"library/ (a repository of its own: {remedy})"


def test_what_editors_and_merges_leave_is_no_code(root: Path) -> None:
    before = code_files(root)
    left = ["a.py.orig", "a.py~", "a.py.rej", "a.py.BAK", "#a.py#", ".#a.py", "a.py.swp"]
    for folder in ("experiment", "configs", "repro", "."):
        write(root, {f"{folder}/{name}": "" for name in [*left, "Thumbs.db", "desktop.ini"]})
    assert code_files(root) == before
    write(root, {"experiment/words.txt": "", "experiment/original.py": ""})
    assert len(code_files(root)) == len(before) + 2


def test_a_project_ignores_what_is_no_code(root: Path) -> None:
    (root / ".gitignore").write_text((TEMPLATE / ".gitignore").read_text())
    commit(root.parent, {})
    names = ("a.py.orig", "a.py~", "a.py.rej", "a.py.bak", ".a.py.swp")
    write(root, {f"experiment/{name}": "" for name in names})
    assert uncommitted_code(root) == []


ATTRIBUTES: dict[str, bytes | str] = {
    ".gitattributes": "configs/config.yaml export-ignore\nexperiment/model.py export-subst\n",
    "experiment/model.py": "COMMIT = '$Format:%H$'\n",
}


def test_an_archive_says_why_it_lacks_recorded_code(root: Path, tmp_path: Path) -> None:
    """Each with its remedy: `git add --force` is for ignored files alone."""
    commit(tmp_path / "library", {"library.py": ""})
    allow = ("-c", "protocol.file.allow=always")
    git(root, *allow, "submodule", "--quiet", "add", str(tmp_path / "library"), "library")
    (root / ".gitignore").write_text("mine.py\n")
    write(root, {"experiment/mine.py": "", **ATTRIBUTES})
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "--message=all")
    conditions = conditions_on_disk(root)
    recorded = recorded_claim(conditions=Conditions(conditions.code, {}, "", conditions.lock, {}))
    with pytest.raises(UserError) as refused:
        refuse_what_git_left_out(root, read_commit(root).files, {"it": recorded})
    lines = {line.partition(" ")[0]: line for line in refused.value.lines}
    assert "git ignores it: git add --force" in lines.pop("experiment/mine.py")
    assert "export-ignore in .gitattributes" in lines.pop("configs/config.yaml")
    assert "other bytes" in lines.pop("experiment/model.py")
    line = lines.pop("library/library.py")
    assert "is in a submodule" in line
    assert "git rm --cached library, delete library/.git, git add library" in line
    assert not lines
    git(root, "rm", "--quiet", "--cached", "library")
    (root / "library/.git").unlink()
    git(root, "add", "library")
    git(root, "commit", "--quiet", "--message=files")
    with pytest.raises(UserError) as refused:
        refuse_what_git_left_out(root, read_commit(root).files, {"it": recorded})
    assert "library" not in str(refused.value)


def test_the_image_is_told_of_hidden_edits(root: Path) -> None:
    """By make, without Python: `make image` needs no setup."""
    lines = (TEMPLATE / "Makefile").read_text().split("\n")
    first = next(number for number, line in enumerate(lines) if line.startswith("commit = "))
    last = next(number for number, line in enumerate(lines) if line.startswith("dirty = "))
    (root / "Makefile").write_text("\n".join([*lines[first : last + 1], "all:; @echo $(dirty)"]))
    commit(root.parent, {})

    def dirty() -> str:
        return subprocess.check_output(["make", "--silent"], cwd=root, text=True).strip()

    assert dirty() == "false"
    git(root, "update-index", "--skip-worktree", "configs/config.yaml")
    assert dirty() == "false"
    (root / "configs/config.yaml").write_text("seed: 2\n")
    assert dirty() == "true"
    git(root, "update-index", "--no-skip-worktree", "configs/config.yaml")
    git(root, "checkout", "--quiet", ".")
    (root / "new.py").write_text("")
    assert dirty() == "true"
