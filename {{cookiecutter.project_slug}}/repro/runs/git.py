"""Ask git what code a run was made of: the commit, the state of the work tree, the patch.

Promises that the user's settings of git change no answer, that the user's index stays as it is,
and that no secret that can be recognised gets into the patch.
"""

import os
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from repro.core.hashing import sha256_file
from repro.core.redaction import MASK, is_secret_file, redact_text, redact_url

_MIB = 2**20
_TIMEOUT = 20.0  # seconds per call of git: a hanging disk stops no run

# Settings of users that change what git prints, or run programs, are overruled.
_GIT = """git -c core.fsmonitor=false -c core.hooksPath=/dev/null -c core.quotePath=false
-c core.safecrlf=false -c diff.noprefix=false -c diff.mnemonicPrefix=false -c diff.relative=false
-c diff.context=3 -c diff.renames=false -c diff.submodule=short"""

_STATUS = ("status", "--porcelain", "-z", "-uall", "--no-renames", "--", ".")

_DIFF = ("diff", "--no-ext-diff", "--no-textconv", "--no-color")

# Set while git runs a hook or `rebase --exec`: they may point at another repository or index.
_NOT_OURS = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX", "GIT_DIFF_OPTS")


def _git(root: Path, *arguments: str, stdin: str = "", **variables: str) -> str:
    """Return what git prints in `root`, else OSError; bytes that are no UTF-8 are escaped."""
    env = {name: value for name, value in os.environ.items() if name not in _NOT_OURS}
    env |= {"GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"} | variables
    given = stdin.encode("utf-8", "surrogateescape")  # text mode would turn CRLF into LF
    command = [*_GIT.split(), *arguments]
    try:
        done = subprocess.run(
            command,
            cwd=root,
            env=env,
            input=given,
            capture_output=True,
            check=True,
            timeout=_TIMEOUT,
        )
    except subprocess.CalledProcessError as error:
        reason = error.stderr.decode("utf-8", "replace").split()  # it names the remedy, if any
        raise OSError(f"git {arguments[0]}: {' '.join(reason)}") from None
    except (OSError, subprocess.TimeoutExpired) as error:
        raise OSError(f"git is not installed or hangs: {type(error).__name__}") from None
    return str(done.stdout, "utf-8", "surrogateescape")


def _repository(root: Path) -> tuple[Path, str]:
    """Return the top of the work tree that tracks `root`, and what changes are counted against.

    That is HEAD, or the empty tree before the first commit. OSError where git gives no answer.
    """
    top = Path(_git(root, "rev-parse", "--show-toplevel").removesuffix("\n"))
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

    def ask(missing: str, *arguments: str) -> str | None:
        try:
            return _git(root, *arguments).removesuffix("\n")
        except OSError as error:
            notes.append(missing or str(error))
            return None

    commit = ask("no commit yet", "rev-parse", "--verify", "--quiet", "HEAD")
    branch = ask("detached HEAD", "symbolic-ref", "--short", "--quiet", "HEAD")
    # Names in full: a part of a token is not recognised as one.
    diff_stat = ask("", *_DIFF, "--stat=5000", "--stat-graph-width=20", base, "--", ".")
    remote = ask("no remote named origin", "remote", "get-url", "origin")
    status = ask("", *_STATUS)
    known = status is not None  # empty is clean, no answer is unknown
    files = (status or "").split("\0")
    return GitInfo(
        commit_hash=commit,
        branch=branch,
        is_dirty=status != "" if known else None,
        diff_stat=diff_stat,
        remote_url=redact_url(remote) if remote else remote,
        untracked=sum(name.startswith("?? ") for name in files) if known else None,
        source="git",
        note="; ".join(notes) or None,
    )


def _info_without_git(root: Path, note: str) -> GitInfo:
    """Return the commit that a source archive or the image brings, if one does."""
    archival = root / ".git_archival.txt"
    text = archival.read_text("utf-8", "replace") if archival.is_file() else ""
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


def uncommitted_files(root: Path, but: tuple[str, ...] = ()) -> list[str] | None:
    """List changed and untracked files below `root` but those in `but`; None if git cannot tell."""
    leave = [f":(exclude){name}" for name in but]
    try:
        _repository(root)
        folder = _git(root, "rev-parse", "--show-prefix").removesuffix("\n")
        status = _git(root, *_STATUS, *leave)
    except OSError:
        return None
    return [line[3:].removeprefix(folder) for line in status.split("\0") if line]


def _left_out(path: Path, limit: int, is_binary: bool = False) -> str | None:
    """Say why a changed file stays out of the patch; None if it goes in."""
    if is_secret_file(path.name):
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
    original = root / _git(root, "rev-parse", "--git-path", "index").removesuffix("\n")
    if original.exists():
        shutil.copy2(original, index)  # with its time: git compares it with the files' times
    others = _git(root, "ls-files", "--others", "--exclude-standard", "--full-name", "-z")
    names = [name for name in others.split("\0") if name]
    left_out = {name: reason for name in names if (reason := _left_out(top / name, _MIB))}
    if new := "".join(f":(top,literal){name}\0" for name in names if name not in left_out):
        add = ("add", "--intent-to-add", "--pathspec-from-file=-", "--pathspec-file-nul")
        _git(root, *add, stdin=new, GIT_INDEX_FILE=str(index))
    numstat = (*_DIFF, "--numstat", "-z", base, "--", ".")
    excluded = []
    for change in filter(None, _git(root, *numstat, GIT_INDEX_FILE=str(index)).split("\0")):
        added, _, name = change.split("\t", 2)  # git counts "-" lines in a binary file
        if reason := _left_out(top / name, 8 * _MIB, is_binary=added == "-"):
            left_out[name] = reason
            excluded.append(f":(top,exclude,literal){name}")
    diff = (*_DIFF, "--binary", "--full-index", base, "--", ".", *excluded)
    patch = _git(root, *diff, GIT_INDEX_FILE=str(index))
    shown = {name if name.isprintable() else ascii(name): why for name, why in left_out.items()}
    return "".join(f"# left out: {name} ({why})\n" for name, why in shown.items()), patch


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
