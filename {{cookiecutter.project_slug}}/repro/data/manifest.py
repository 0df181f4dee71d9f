"""Files and their SHA-256: what a data set consisted of, and which files are not the same any more.

Paths are sorted by characters, not in the order of the file system, so the same files give the same
manifest everywhere. Every file that was changed, is missing or is extra is named.
"""

import os
from pathlib import Path
from typing import Any, NoReturn

from repro.core.errors import UserError, refuse
from repro.core.files import read_object
from repro.core.hashing import sha256_file, sha256_json
from repro.core.progress import progress


def tree_digests(root: Path) -> dict[str, str]:
    """SHA-256 of every file below `root` by its path there, sorted; hidden ones are left out.

    Folders that are links are followed, once. OSError for a folder that cannot be read.
    """

    def refuse_unreadable(error: OSError) -> NoReturn:
        raise error

    names: list[str] = []
    for folder, below, files in os.walk(root, onerror=refuse_unreadable, followlinks=True):
        above = {os.path.realpath(path) for path in (Path(folder), *Path(folder).parents)}
        below[:] = [
            name
            for name in below
            if name[0] != "." and os.path.realpath(os.path.join(folder, name)) not in above
        ]
        start = Path(folder).relative_to(root)
        names += [(start / name).as_posix() for name in files if name[0] != "."]
    digests = {}
    with progress(f"checking {len(names)} files", len(names)) as advance:
        for name in sorted(names):
            digests[name] = sha256_file(root / name)
            advance(1)
    return digests


def refuse_changes(
    root: Path, recorded: dict[str, str], found: dict[str, str], manifest: Path
) -> None:
    """UserError with a line for each file that is not as `recorded` in `manifest`."""
    faults = []
    for name in sorted(recorded.keys() | found.keys()):
        if recorded.get(name) != found.get(name):
            state = "missing" if name not in found else "changed" if name in recorded else "extra"
            faults.append(f"{root / name}: {state}, says {manifest}: {_remedy(manifest)}")
    refuse(faults)


def read_json(path: Path, keys: set[str]) -> dict[str, Any]:
    """What `write_json` wrote; UserError if that is damaged or lacks one of `keys`."""
    value = read_object(path)
    if not keys <= value.keys():
        raise UserError(f"{path} is damaged: {_remedy(path)}")
    return value


def _remedy(manifest: Path) -> str:
    """What to do; a data set's manifest lies in the folder with its name."""
    name = manifest.parent.name
    return f'make data ARGS="dataset={name} ..." writes it anew; other data take another data_dir'


def data_digest(manifest: dict[str, Any]) -> str:
    """The SHA-256 that stands for the data; not of "code", which has digests of its own."""
    return sha256_json({key: value for key, value in manifest.items() if key != "code"})
