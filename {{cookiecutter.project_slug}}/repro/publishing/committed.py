"""Read the commit that an archive is made of, and refuse one that others must not or cannot use."""

import io
import stat
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from repro.core.errors import UserError, refuse
from repro.core.hashing import sha256_bytes
from repro.core.redaction import is_secret_file, redact_name
from repro.core.secret_values import refuse_secret_names
from repro.core.text import listed
from repro.environment.locks import LOCK
from repro.results.recording import RecordedClaim
from repro.runs.git import committed_files, get_git_info, uncommitted_files
from repro.runs.git_index import why_not_archived


class Commit(NamedTuple):
    """The files of a commit, which of them are executable, and its time in seconds."""

    files: dict[str, bytes]
    executable: set[str]
    moment: int


def find_commit(root: Path, allow_dirty: bool) -> str:
    """Return the commit to pack; UserError without one, or with changes that nobody allowed."""
    git = get_git_info(root)
    changed = uncommitted_files(root)
    if git.source != "git" or not git.commit_hash or changed is None:
        raise UserError(f"an archive is made of a commit, and there is none: {git.note}")
    if changed and not allow_dirty:
        raise UserError(
            f"not committed: {listed(changed)}; git commit, or --allow-dirty: they go in as a patch"
        )
    return git.commit_hash


def read_commit(root: Path) -> Commit:
    """Read the files of HEAD below `root`; UserError for a link to no file of the commit."""
    commit = Commit({}, set(), 0)
    with tarfile.open(fileobj=io.BytesIO(committed_files(root))) as tar:
        for member in tar:
            if member.isdir():
                continue
            try:
                file = tar.extractfile(member)  # of a link: what it points to, in the commit
            except (KeyError, RecursionError):
                file = None
            if not file:
                raise UserError(f"{member.name} is a link to no file of the commit: git rm it")
            commit.files[member.name] = file.read()
            if member.mode & stat.S_IXUSR and member.isreg():
                commit.executable.add(member.name)
            commit = commit._replace(moment=int(member.mtime))  # all have the commit's time
    return commit


def refuse_what_git_left_out(
    root: Path, committed: Mapping[str, bytes], claims: Mapping[str, RecordedClaim]
) -> None:
    """Raise UserError if the commit is not what was recorded: an ignored file is in no commit."""
    recorded: dict[str, str] = {}
    for claim in claims.values():
        recorded |= {**claim.conditions.code, LOCK: claim.conditions.lock}
    there = {name: sha256_bytes(content) for name, content in committed.items()}
    missing = sorted(name for name in recorded if there.get(name) != recorded[name])
    refuse(
        [f"{name} was recorded and {why_not_archived(root, name, committed)}" for name in missing]
    )


def refuse_secrets(committed: Mapping[str, bytes]) -> None:
    """Raise UserError for each file of the commit that is, or holds, a secret: others get it.

    Looked for are tokens and private keys by their shape, the logins of URLs that are the
    environment's, and its other secrets; not what is only named like a secret, as in an example.
    """
    refuse_secret_names(committed, " of the commit")
    faults = []
    for name, content in committed.items():
        if is_secret_file(name):
            faults.append(f"{name} holds secrets, by its name, and others get the archive: git rm")
        elif redact_name(text := content.decode("utf-8", "surrogateescape")) != text:
            faults.append(f"{name} holds a secret, and others get the archive: take it out")
    refuse(faults)
