"""Ask git what code a run was made of: the commit, the state of the work tree, the patch.

Promises that the user's settings of git change no answer, that the user's index stays as it is,
and that no secret that can be recognised gets into the patch.
"""

import os
import re
import tempfile
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from repro.core.bounded import read_whole
from repro.core.hashing import sha256_file
from repro.core.redaction import MASK, is_secret_file, redact_text, redact_url
from repro.core.special_files import resolved
from repro.runs.checkouts import is_worktree
from repro.runs.git_index import copy_index, hidden_files, nothing_hidden, show_hidden, shown_again
from repro.runs.git_index import run_git as _git

_MIB = 2**20


_STATUS = ("status", "--porcelain", "-z", "-uall", "--no-renames", "--", ".")

_DIFF = ("diff", "--no-ext-diff", "--no-textconv", "--no-color")


def _top(root: Path) -> Path:
    return Path(_git(root, "rev-parse", "--show-toplevel").removesuffix("\n"))


def _repository(root: Path) -> tuple[Path, str]:
    """Return the top of the work tree that tracks `root`, and what changes are counted against.

    That is HEAD, or the empty tree before the first commit. OSError where git gives no answer.
    """
    top = _top(root)
    if not top.samefile(root) and not _git(root, "ls-files", "--", "pyproject.toml"):
        raise OSError("no git repository: the one around the project does not track it")
    try:
        return top, _git(root, "rev-parse", "--verify", "--quiet", "HEAD").strip()
    except OSError:
        return top, _git(root, "hash-object", "-t", "tree", "--stdin").strip()


@dataclass(frozen=True)
class GitInfo:
    """The project's commit and state; an unknown value is None, and `note` says why.

    `is_dirty` counts staged, unstaged and untracked files below the project; `untracked` is a
    number. `source` is "git", "archive" (`git archive` filled .git_archival.txt in), "environment"
    (REPRO_GIT_COMMIT, REPRO_GIT_DIRTY: the image sets them) or "none".
    """

    commit_hash: str | None = None
    branch: str | None = None
    is_dirty: bool | None = None
    diff_stat: str | None = None
    remote_url: str | None = None
    untracked: int | None = None
    source: str = "none"
    note: str | None = None


def get_git_info(root: Path) -> GitInfo:
    """Ask for the project's commit and state. Never raises."""
    try:
        _, base = _repository(root)
    except OSError as error:
        return _info_without_git(root, note=str(error))
    notes: list[str] = []

    def ask(missing: str, *arguments: str, all_edits: bool = False) -> str | None:
        edits: AbstractContextManager[dict[str, str]] = nullcontext({})
        try:
            if all_edits:
                edits = nothing_hidden(root)
            with edits as variables:
                return _git(root, *arguments, **variables).removesuffix("\n")
        except OSError as error:
            notes.append(missing or str(error))
            return None

    commit = ask("no commit yet", "rev-parse", "--verify", "--quiet", "HEAD")
    branch = ask("detached HEAD", "symbolic-ref", "--short", "--quiet", "HEAD")
    # Names in full: a part of a token is not recognised as one.
    stat = ("--stat=5000", "--stat-graph-width=20")
    diff_stat = ask("", *_DIFF, *stat, base, "--", ".", all_edits=True)
    remote = ask("no remote named origin", "remote", "get-url", "origin")
    status = ask("", *_STATUS, all_edits=True)
    changed = _without_worktrees(root, status) if status else []
    known = status is not None  # empty is clean, no answer is unknown
    return GitInfo(
        commit_hash=commit,
        branch=branch,
        is_dirty=bool(changed) if known else None,
        diff_stat=diff_stat,
        remote_url=redact_url(remote) if remote else remote,
        untracked=sum(line.startswith("?? ") for line in changed) if known else None,
        source="git",
        note="; ".join(notes) or None,
    )


def _without_worktrees(root: Path, status: str) -> list[str]:
    """Return the lines of `git status`, but other checkouts of this repository (git worktree)."""
    top = _top(root)
    lines = filter(None, status.split("\0"))
    return [line for line in lines if not is_worktree(top, Path(line[3:]))]


def _info_without_git(root: Path, note: str) -> GitInfo:
    """Return the commit that a source archive or the image brings, if one does."""
    archival = root / ".git_archival.txt"
    text = read_whole(archival).decode(errors="replace") if archival.is_file() else ""
    if re.search(r"(?m)^commit: anonymous\s*$", text):
        return GitInfo(source="archive", note="an anonymous archive names no commit")
    if archived := re.search(r"(?m)^commit: ([0-9a-f]{40})\s*$", text):
        return GitInfo(commit_hash=archived[1], source="archive", note=note)
    commit = os.environ.get("REPRO_GIT_COMMIT", "")
    if not re.fullmatch("[0-9a-f]{40}", commit):
        return GitInfo(source="none", note=note)
    dirty = os.environ.get("REPRO_GIT_DIRTY", "").lower()
    is_dirty = {"true": True, "false": False}.get(dirty)
    return GitInfo(commit_hash=commit, is_dirty=is_dirty, source="environment", note=note)


def committed_files(root: Path) -> bytes:
    """Return the files of HEAD below `root` as a tar, its commit filled in; OSError without one."""
    return _git(root, "archive", "--format=tar", "HEAD").encode("utf-8", "surrogateescape")


def committed_names(root: Path) -> list[str]:
    """List the files of HEAD below `root`; OSError without one."""
    return _git(root, "ls-tree", "-r", "-z", "--name-only", "HEAD").split("\0")[:-1]


def project_tree(root: Path, commit: str | None) -> str | None:
    """Return the id of the tree that `root` is in a commit; None where git has no answer.

    It is that of the commit as it was made: what `git replace` shows instead is left aside.
    """
    if not commit:
        return None
    try:
        _repository(root)
        folder = f"{commit}:./"
        return _git(root, "rev-parse", "--verify", folder, GIT_NO_REPLACE_OBJECTS="1").strip()
    except OSError:  # no git, or a commit that is not here, or is without this folder
        return None


def is_in_history(root: Path, commit: str) -> bool:
    """Tell whether HEAD comes from a commit; False where git cannot tell, as in a shallow clone."""
    try:
        _repository(root)
        _git(root, "merge-base", "--is-ancestor", commit, "HEAD")
    except OSError:
        return False
    return True


def is_tracked(root: Path, path: Path) -> bool:
    """Tell whether git has a file of the project, or would take it with the next commit."""
    try:
        _repository(root)
        return bool(_git(root, "ls-files", "--", str(path)))
    except OSError:  # no repository, or no git
        return False


def uncommitted_files(root: Path, but: tuple[str, ...] = ()) -> list[str] | None:
    """List changed and untracked files below `root` but those in `but`; None if git cannot tell.

    A changed file that git was told not to look at is listed with what makes git see it.
    """
    leave = [f":(exclude){name}" for name in but]
    try:
        _repository(root)
        folder = _git(root, "rev-parse", "--show-prefix").removesuffix("\n")
        hidden = hidden_files(root)
        with nothing_hidden(root) as variables:
            status = _git(root, *_STATUS, *leave, **variables)
        lines = _without_worktrees(root, status)
    except OSError:
        return None
    names = [line[3:].removeprefix(folder) for line in lines]
    return [f"{name}{_remedy(name, hidden)}" for name in names]


def _remedy(name: str, hidden: Mapping[str, list[str]]) -> str:
    """Return what a commit needs before it takes a file; nothing if `git commit` is enough."""
    if name.endswith("/"):
        return f" (a repository of its own: delete {name}.git, then git add {name})"
    return shown_again(name, hidden)


def _left_out(top: Path, name: str, limit: int, is_binary: bool = False) -> str | None:
    """Say why a changed file stays out of the patch; None if it goes in."""
    path = top / name
    if is_secret_file(name):
        return "secret by its name"  # no digest: that of a short secret can be guessed
    if path.is_symlink() or not path.exists():  # the text of a link; a deletion
        return None
    if (path / ".git").exists() or not os.access(path, os.R_OK):
        return "a repository of its own" if path.is_dir() else "not readable"
    size = path.stat().st_size
    if size > limit:
        digest = sha256_file(path) if size < 512 * _MIB else "not taken"
        return f"{size} bytes, sha256 {digest}"
    if is_binary:  # nothing can be masked in it; without zero bytes UTF-16 reads as ASCII
        text = path.read_bytes().replace(b"\0", b"").decode("utf-8", "surrogateescape")
        return "binary that holds a secret" if redact_text(text) != text else None
    return None


def _read_changes(root: Path, top: Path, base: str, index: Path) -> tuple[str, str]:
    """Return the lines about files left out, and the patch, read through a copy of git's index.

    In the copy untracked files are marked "to be added": one `git diff` then shows everything, and
    the user's index stays as it is.
    """
    copy_index(root, index)
    show_hidden(root, index)
    others = _git(root, "ls-files", "--others", "--exclude-standard", "--full-name", "-z")
    names = [name for name in others.split("\0") if name and not is_worktree(top, Path(name))]
    left_out = {name: reason for name in names if (reason := _left_out(top, name, _MIB))}
    not_added = ""
    if new := [name for name in names if name not in left_out]:
        try:
            _add_to_copy(root, new, index)
        except OSError as error:  # the tracked part is kept
            not_added = f"# left out: {len(new)} untracked files: {error}\n"
    numstat = (*_DIFF, "--numstat", "-z", base, "--", ".")
    excluded = []
    for change in filter(None, _git(root, *numstat, GIT_INDEX_FILE=str(index)).split("\0")):
        added, _, name = change.split("\t", 2)  # git counts "-" lines in a binary file
        if reason := _left_out(top, name, 8 * _MIB, is_binary=added == "-"):
            left_out[name] = reason
            excluded.append(f":(top,exclude,literal){name}")
    diff = (*_DIFF, "--binary", "--full-index", base, "--", ".", *excluded)
    patch = _git(root, *diff, GIT_INDEX_FILE=str(index))
    shown = {name if name.isprintable() else ascii(name): why for name, why in left_out.items()}
    head = "".join(f"# left out: {name} ({why})\n" for name, why in shown.items())
    return not_added + head, patch


def _add_to_copy(root: Path, names: list[str], index: Path) -> None:
    """Mark untracked files "to be added" in a copy of git's index.

    git then writes an object (an empty one): beside the copy, because .git may be read-only.
    """
    objects = root / _git(root, "rev-parse", "--git-path", "objects").removesuffix("\n")
    beside = index.with_name("objects")
    beside.mkdir()
    quoted = str(resolved(objects)).replace("\\", "\\\\").replace('"', '\\"')  # it may hold a colon
    _git(
        root,
        *("add", "--intent-to-add", "--pathspec-from-file=-", "--pathspec-file-nul"),
        stdin="".join(f":(top,literal){name}\0" for name in names),
        GIT_INDEX_FILE=str(index),
        GIT_OBJECT_DIRECTORY=str(beside),
        GIT_ALTERNATE_OBJECT_DIRECTORIES=f'"{quoted}"',
    )


def uncommitted_changes(root: Path) -> str | None:
    """Return the patch that makes a clean clone this work tree (`git apply`); None without changes.

    Staged, unstaged and untracked files below `root`; paths count from the repository's top. Write
    it with errors="surrogateescape". Lines with "#" at the top say what is missing: files left out
    (secret by name, binary with a secret, over 1 MiB untracked or 8 MiB tracked), values redacted.
    """
    try:
        top, base = _repository(root)
    except OSError:
        return None
    try:
        with tempfile.TemporaryDirectory() as folder:
            head, patch = _read_changes(root, top, base, Path(folder, "index"))
    except OSError as error:
        return f"# the uncommitted changes could not be read: {error}\n"
    # Binary hunks are compressed: a match in them would be chance.
    parts = re.split(r"(?m)(^(?:literal|delta) \d+\n(?:[A-Za-z].+\n)+)", head + patch)
    parts[::2] = [redact_text(part) for part in parts[::2]]
    text = "".join(parts)
    if count := text.count(MASK) - (head + patch).count(MASK):
        text = f"# {count} values redacted: the patch will not apply exactly\n{text}"
    return text or None
