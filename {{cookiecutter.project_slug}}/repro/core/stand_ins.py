"""Name what lies among data and is none: notes in the place of content, and what desktops leave."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from repro.core.text import listed

# What file managers put into each folder that they show; others of the kind are hidden files.
OF_THE_DESKTOP = ("thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "icon\r")

# git LFS: https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md; an older version has hawser.
# git-annex: https://git-annex.branchable.com/internals/pointer_file/. Both are far below 1 KiB.
_NOTES = (
    (b"version https://git-lfs.github.com/spec/", "a pointer of git LFS", "git lfs pull"),
    (b"version https://hawser.github.com/spec/", "a pointer of git LFS", "git lfs pull"),
    (b"/annex/objects/", "a pointer of git-annex", "git annex get ."),
)
_LONGEST_NOTE = 1024  # bytes


def stand_in(path: Path) -> str | None:
    """Say what a file is that is no content, and what helps; None for a file like any other."""
    name = path.name.lower()
    if name in OF_THE_DESKTOP or name in (".ds_store", ".directory") or name.startswith("._"):
        return "left by a file manager, and no data: delete it"
    if name.endswith(".dvc"):
        return "a note of DVC and no data: dvc pull gets them; keep the note outside of them"
    if not path.is_file():  # also a named pipe, which would never end
        return _not_there(path)
    content = path.read_bytes() if path.stat().st_size <= _LONGEST_NOTE else b""
    for beginning, what, command in _NOTES:
        if content.startswith(beginning):
            return f"{what} in the place of the content: {command} gets it"
    return None


def _not_there(path: Path) -> str | None:
    if path.is_symlink() and "/annex/objects/" in str(path.readlink()):
        return "a link of git-annex, whose content is not there: git annex get . gets it"
    return None


def stand_ins(root: Path, names: Iterable[str]) -> dict[str, str]:
    """Return what those files below `root` are that are no content, by name."""
    found = {name: stand_in(root / name) for name in names}
    return {name: what for name, what in found.items() if what}


def faults_of_stand_ins(root: Path, found: Mapping[str, str]) -> list[str]:
    """Return a line for each kind of them, with the first names: often it is every file."""
    kinds: dict[str, list[str]] = {}
    for name, what in found.items():
        kinds.setdefault(what, []).append(str(root / name))
    return [f"{listed(names)}: {what}" for what, names in kinds.items()]
