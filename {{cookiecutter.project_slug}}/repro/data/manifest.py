"""Record files by their SHA-256, and name the files that are not the same any more.

Paths are sorted by characters, not in the order of the file system, so the same files give the same
manifest everywhere. Every file that was changed, is missing or is extra is named.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

from repro.core.bounded import DamagedFile, read_json_file
from repro.core.errors import UserError, refuse
from repro.core.files import Json, JsonObject, write_json
from repro.core.hashing import sha256_json
from repro.core.layout import CONFIGS
from repro.core.special_files import fault_of_kind
from repro.core.stand_ins import faults_of_stand_ins, stand_in, stand_ins
from repro.data.digests import ALONE, Together, digests_of
from repro.data.known_digests import Memory, memory_of_command
from repro.data.tar_index import TarIndex, held_by_indexes

_ROOT = Path(__file__).resolve().parents[2]  # of the project
SEAL = "manifest_sha256"  # of all else that a manifest says
OWN_SETTING = "setting_of_own_files"  # the name of the one that says where an author's files are


def files_below(root: Path) -> list[str]:
    """Return the path of every file below `root`, sorted; hidden ones are left out.

    Folders that are links are followed, once. OSError for a folder that cannot be read, UserError
    for what is no file: a named pipe, a socket, a device, a link that leads nowhere.
    """

    def refuse_unreadable(error: OSError) -> NoReturn:
        raise error

    names: list[str] = []
    faults: list[str] = []
    for place, folders, files in os.walk(root, onerror=refuse_unreadable, followlinks=True):
        here = Path(place)
        above = {os.path.realpath(path) for path in (here, *here.parents)}
        folders[:] = [
            name
            for name in folders
            if name[0] != "." and os.path.realpath(here / name) not in above
        ]
        below = here.relative_to(root)
        shown = [name for name in files if name[0] != "."]
        names += [(below / name).as_posix() for name in shown]
        faults += [fault for name in shown if (fault := _fault_of(here / name))]
    refuse(sorted(faults))
    return sorted(names)


def hashed_files(root: Path) -> list[str]:
    """Return the files of `files_below` that a manifest has.

    Not those that an index of tar files speaks for: their samples are checked when they are read.
    """
    names = files_below(root)
    held = {name for of_index in held_by_indexes(root, names).values() for name in of_index}
    return [name for name in names if name not in held]


def _fault_of(path: Path) -> str | None:
    """Say why a path of a listing cannot be read as a file; None if it can."""
    if not path.exists():
        if what := stand_in(path):
            return f"{path}: {what}"
        return f"{path} is a link that leads nowhere: expected a file; remove it, or mend it"
    return fault_of_kind(path)


class Manifest(dict[str, Json]):
    """A manifest that is known to be JSON: it was read from a file, or is written into one."""


def tree_digests(
    root: Path,
    memory: Memory | None = None,
    together: Together = ALONE,
    known: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """Return the SHA-256 of every file of `hashed_files`, by its path.

    More than `root` is for `digests_of`: what is known already, and the processes that share the
    work.
    """
    return digests_of(root, hashed_files(root), memory or memory_of_command(), together, known)


def refuse_changes(
    root: Path, recorded: Mapping[str, str], found: Mapping[str, str], manifest: Path
) -> None:
    """Raise UserError with a line for each file that is not as `recorded` in `manifest`.

    Files that stand for content which is not there, and what desktops leave, have a line a kind.
    Of what an index speaks for, the sizes are compared.
    """
    others = {name for name, digest in found.items() if recorded.get(name) != digest}
    without_content = stand_ins(root, sorted(others))
    faults = faults_of_stand_ins(root, without_content)
    for name in sorted(recorded.keys() | found.keys()):
        if recorded.get(name) == found.get(name) or name in without_content:
            continue
        if name not in found:
            state = "missing"
        elif name in recorded:
            state = "changed"
        else:
            state = "extra"
        faults.append(f"{root / name}: {state}, says {manifest}: {_remedy(manifest)}")
    for name in held_by_indexes(root, sorted(found.keys() - others)):
        faults += TarIndex(root / name).faults_of_sizes()
    refuse(faults)


def write_manifest(path: Path, manifest: JsonObject) -> Manifest:
    """Write a manifest with the digest of all that it says, and return it as it is written."""
    sealed = Manifest({**manifest, SEAL: _seal_of(manifest)})
    write_json(path, sealed)
    return sealed


def read_manifest(path: Path) -> Manifest:
    """Read what `write_manifest` wrote; UserError if it is damaged, empty if an older kit wrote it.

    An author's code takes the facts in it for those that the author's `prepare` returned.
    """
    try:
        manifest = read_json_file(path, _remedy(path))
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}: {_remedy(path)}") from error
    if isinstance(manifest, dict) and SEAL not in manifest and {"files", "code"} <= manifest.keys():
        return Manifest()
    if not isinstance(manifest, dict) or manifest.get(SEAL) != _seal_of(manifest):
        raise DamagedFile(path, "it is not as it was written", _remedy(path))
    return Manifest(manifest)


def files_of(manifest: Manifest, path: Path) -> dict[str, str]:
    """Return the SHA-256 of each file of a manifest; UserError if it has no such list."""
    files = manifest.get("files")
    if isinstance(files, dict):
        digests = {name: digest for name, digest in files.items() if isinstance(digest, str)}
        if len(digests) == len(files):
            return digests
    raise DamagedFile(path, "no SHA-256 of each file", _remedy(path))


def _seal_of(manifest: JsonObject) -> str:
    return sha256_json({name: value for name, value in manifest.items() if name != SEAL})


def _remedy(manifest: Path) -> str:
    """Say what to do; a data set's manifest lies in the folder with its name."""
    command = command_to_prepare(manifest.parent.name, "...")
    return f"{command} writes it anew; other data take another data_dir"


def command_to_prepare(dataset: str, settings: str, root: Path = _ROOT) -> str:
    """Return the command that prepares a data set with these settings.

    It names the data set where that is a choice of the project in `root`: one whose settings stand
    in config.yaml itself cannot be chosen.
    """
    is_choice = (root / CONFIGS / "dataset" / f"{dataset}.yaml").is_file()
    return f'make data ARGS="{f"dataset={dataset} " if is_choice else ""}{settings}"'


def data_digest(manifest: Mapping[str, Json]) -> str:
    """Return the SHA-256 that stands for the data.

    It leaves out "code", which has digests of its own among the conditions, and what changes no
    bit: "license", and the name of a setting.
    """
    left_out = ("code", "license", OWN_SETTING, SEAL)
    return sha256_json({key: value for key, value in manifest.items() if key not in left_out})
