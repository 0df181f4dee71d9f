"""Tell another checkout of the project's own repository from code: what `git worktree` made."""

import os
from pathlib import Path

from repro.core.bounded import read_text
from repro.core.errors import UserError
from repro.core.special_files import resolved


def is_worktree(root: Path, folder: Path) -> bool:
    """Tell whether `folder`, below `root`, is another checkout of the repository around `root`.

    A submodule or a clone within the project is none: training may import it.
    """
    place = root / folder
    if not os.path.isfile(place / ".git"):  # Path.is_file raises where nobody may look, lost+found
        return False
    around = next((above for above in (root, *root.parents) if (above / ".git").exists()), None)
    return around is not None and _repository(place) == _repository(around)


def _repository(checkout: Path) -> Path | None:
    """Return the folder with the history of a checkout, which its worktrees share."""
    git = checkout / ".git"
    try:
        if git.is_file():
            text = read_text(git).removeprefix("gitdir:").strip()
            git = checkout / text
        common = git / "commondir"
        return resolved(git / read_text(common).strip() if common.is_file() else git)
    except (OSError, ValueError, UserError):
        return None
