"""Call git so that no setting changes its answer, and so that no file is hidden from it.

`git update-index --skip-worktree` and `--assume-unchanged` keep edits out of `git status` and out
of every commit. In a copy of git's index these marks are taken off; the user's own stays as it is.
"""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from repro.core.layout import CODE

_TIMEOUT = 120.0  # seconds per call of git: a hanging disk stops no run
_SUBMODULE = "160000"  # modes of a commit and of a link in a tree
_LINK = "120000"

# Settings of users that change what git prints, or run programs, are overruled.
_GIT = """git -c core.fsmonitor=false -c core.hooksPath=/dev/null -c core.quotePath=false
-c core.safecrlf=false -c core.splitIndex=false -c core.trustctime=true
-c core.checkStat=default -c diff.noprefix=false -c diff.mnemonicPrefix=false
-c diff.relative=false -c diff.context=3 -c diff.renames=false -c diff.submodule=short"""

# Set while git runs a hook or `rebase --exec`: they may point at another repository or index.
_NOT_OURS = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX", "GIT_DIFF_OPTS")


def run_git(root: Path, *arguments: str, stdin: str = "", **variables: str) -> str:
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


def hidden_files(root: Path) -> dict[str, list[str]]:
    """Return the tracked files whose edits git was told not to look for, and what undoes that.

    A sparse checkout hides all files that it lacks: of these only code is returned.
    """
    hidden = {}
    for entry in filter(None, run_git(root, "ls-files", "-v", "-z").split("\0")):
        tag, name = entry[0], entry[2:]
        is_code = name.partition("/")[0] in CODE or name.endswith(".py")
        if (tag.islower() or tag == "S") and (is_code or os.path.lexists(root / name)):
            options = ["--no-assume-unchanged"] if tag.islower() else []
            hidden[name] = [*options, "--no-skip-worktree"] if tag in "sS" else options
    return hidden


def show_hidden(root: Path, index: Path) -> None:
    """Take the marks of `hidden_files` off in a copy of git's index."""
    hidden = hidden_files(root)
    for option in ("--no-assume-unchanged", "--no-skip-worktree"):
        names = "".join(f"{name}\0" for name, options in hidden.items() if option in options)
        if names:
            arguments = ("update-index", option, "-z", "--stdin")
            run_git(root, *arguments, stdin=names, GIT_INDEX_FILE=str(index))


def copy_index(root: Path, index: Path) -> None:
    """Copy the index of the repository around `root`, if it has one."""
    original = root / run_git(root, "rev-parse", "--git-path", "index").removesuffix("\n")
    if original.exists():
        shutil.copy2(original, index)  # with its time: git compares it with the files' times


@contextmanager
def nothing_hidden(root: Path) -> Iterator[dict[str, str]]:
    """Yield variables with which git sees all edits; the user's index stays as it is."""
    if not hidden_files(root):
        yield {}
        return
    with tempfile.TemporaryDirectory() as folder:
        index = Path(folder, "index")
        copy_index(root, index)
        show_hidden(root, index)
        yield {"GIT_INDEX_FILE": str(index)}


def shown_again(name: str, hidden: Mapping[str, list[str]]) -> str:
    """Return the words that say how git sees a file again, if it is hidden."""
    if name not in hidden:
        return ""
    commands = [f"git update-index {option} {name}" for option in hidden[name]]
    return f" (git does not look at it: {' && '.join(commands)})"


class _Entry(NamedTuple):
    """What a commit has of a file: its mode, and the digest of its content."""

    mode: str
    digest: str


def _files_of_head(root: Path) -> dict[str, _Entry]:
    files = {}
    for entry in filter(None, run_git(root, "ls-tree", "-r", "-z", "HEAD").split("\0")):
        head, _, name = entry.partition("\t")
        mode, _, digest = head.split(" ")
        files[name] = _Entry(mode, digest)
    return files


def _submodule_of(name: str, committed: Mapping[str, _Entry]) -> str | None:
    """Return the submodule in which a file lies; None for other files."""
    above = [str(folder) for folder in Path(name).parents if str(folder) in committed]
    return above[0] if above and committed[above[0]].mode == _SUBMODULE else None


def why_not_archived(root: Path, name: str, archived: Collection[str]) -> str:
    """Say why `git archive`, which has those `archived`, lacks a file, and what to do."""
    committed = _files_of_head(root)
    if submodule := _submodule_of(name, committed):
        remedy = f"git rm --cached {submodule}, delete {submodule}/.git, git add {submodule}"
        return f"is in a submodule, which no archive of a commit holds: {remedy}"
    if name not in committed:
        return f"git ignores it: git add --force {name}"
    if name not in archived:
        return "export-ignore in .gitattributes keeps it out: delete that line, and commit"
    return (
        f"git archives other bytes of it (.gitattributes or core.autocrlf): write '{name} -text "
        "-ident -export-subst' into .gitattributes, and commit"
    )


def not_as_committed(root: Path, names: list[str]) -> dict[str, str]:
    """Return those of `names` whose content is not that of HEAD, and why; links are left alone.

    By content alone: `git status` goes by times and sizes. Files of submodules have commits of
    their own.
    """
    committed = _files_of_head(root)
    files = [name for name in names if name in committed and committed[name].mode != _LINK]
    listed = [name for name in files if "\n" not in name]
    above, folder = run_git(root, "rev-parse", "--show-cdup", "--show-prefix").split("\n")[:2]
    paths = "\n".join(f"{folder}{name}" for name in listed)
    top = root / above  # git reads these paths from there, wherever it is started
    digests = run_git(top, "hash-object", "--stdin-paths", stdin=paths).split()
    found = dict(zip(listed, digests, strict=True))
    faults = {}
    for name in names:
        if name not in committed and not _submodule_of(name, committed):
            faults[name] = f"git ignores it: git add --force {name}"
        elif name in found and found[name] != committed[name].digest:
            faults[name] = f"git takes it for unchanged: touch {name}, then git add it"
    return faults
