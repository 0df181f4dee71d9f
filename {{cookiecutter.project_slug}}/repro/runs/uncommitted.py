"""Say what of the project's code is in no commit, also where git was told not to say it."""

from pathlib import Path

from repro.runs.code_files import code_files
from repro.runs.conditions import is_condition
from repro.runs.git import uncommitted_files
from repro.runs.git_index import not_as_committed


def uncommitted_code(root: Path, but: tuple[str, ...] = ()) -> list[str] | None:
    """List changed and untracked files, and code that git ignores; None if git cannot tell.

    Files in `but` are left out. A file that `git commit` alone would not take is listed with what
    makes git take it.
    """
    changed = uncommitted_files(root, but)
    if changed is None:
        return None
    told = {line.partition(" (")[0] for line in changed}
    folders = tuple(name for name in told if name.endswith("/"))
    code = [name for name in code_files(root) if is_condition(name)]
    code = [name for name in code if not name.startswith(folders)]
    try:
        others = not_as_committed(root, code)
    except OSError:  # before the first commit: all of it is listed
        return changed
    return [*changed, *(f"{name} ({why})" for name, why in others.items() if name not in told)]
