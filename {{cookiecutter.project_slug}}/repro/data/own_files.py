"""Know the folder of an author's own files again, which stay where they are.

The manifest has the files' digests and no folder, which is another one on each machine. A note
beside it has the folder, so that another folder is told from files that were changed.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from repro.core.errors import UserError
from repro.core.files import write_file
from repro.core.special_files import resolved
from repro.core.text import listed
from repro.data.manifest import command_to_prepare

_NOTE = ".own_files"  # where the author's files were; hidden, so that no archive has it


def setting_of(root: Path, config: Any, folder: Path | None) -> str:
    """Return the name of the setting that says where a folder is; "" for none."""
    named = (name for name, value in config if isinstance(value, str) and root / value == folder)
    return next(named, "") if folder else ""


def note_folder(folder: Path, manifest: Path) -> None:
    """Note which folder a manifest is of."""
    write_file(manifest.with_name(_NOTE), os.fsencode(resolved(folder)))


def refuse_another_folder(
    folder: Path,
    setting: str,
    recorded: Mapping[str, str],
    found: Mapping[str, str],
    manifest: Path,
) -> None:
    """Raise UserError if the author's folder is another one than before, with other files.

    `setting`: the name of the one that says which; "" for none. `recorded`: the digests in
    `manifest`.
    """
    if recorded == found:
        return
    own = resolved(folder)
    note = manifest.with_name(_NOTE)
    before = note.read_text(errors="replace") if note.is_file() else ""
    is_another = before != str(own) if before else not {*recorded.items()} & {*found.items()}
    if is_another:
        others = sorted({name for name, _ in {*recorded.items()} ^ {*found.items()}})
        given = f"{setting}={own}" if setting else "..."
        raise UserError(
            f"{given if setting else own} has other files ({listed(others, 2)}) than "
            f"{before or 'the folder before'}, which {manifest} is of: set it back; or "
            f"prepare these: {command_to_prepare(manifest.parent.name, given)}; "
            "or keep both: give these another data_dir"
        )
