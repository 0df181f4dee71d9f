"""Find the data of a recorded run: their manifest, and the files if they are packed as well."""

from collections.abc import Collection, Iterable
from itertools import chain
from pathlib import Path, PurePosixPath

from repro.core import layout
from repro.core.bounded import DamagedFile
from repro.core.errors import UserError
from repro.core.files import JsonObject, read_object
from repro.data.manifest import OWN_SETTING, data_digest
from repro.data.tar_index import held_by_indexes
from repro.publishing.contents import Files
from repro.runs.yaml_files import load_yaml

_LARGEST_MANIFEST = 2**28  # bytes, for some two million files; to parse it takes ten times that


def find_data(root: Path, run: Path, digest: str, with_data: bool) -> tuple[str, Files]:
    """Find the data of a run by their digest; return their manifest's name, and the files to pack.

    Without the data the manifest lies aside: in its place it would say that the data are damaged.
    A folder of the author's own files gets the name of the setting that says where it is, below
    data/own_files/, where the commands find it in the unpacked archive (runs/own_places.py).
    """
    used = run / layout.CONFIG_USED
    try:
        settings = load_yaml(used)
        folder = root / (settings.get("data_dir") or layout.DATA)  # a loop may have no such setting
        places = {**settings}
    except (OSError, DamagedFile, TypeError, AttributeError) as error:
        raise UserError(f"{used} is damaged: delete {run}, make record") from error
    for path in sorted(folder.rglob(layout.MANIFEST)):
        manifest = _read_manifest(path, digest)
        if not manifest:
            continue
        top = PurePosixPath(layout.DATA if with_data else "data-manifest")
        name = str(top / path.relative_to(folder).as_posix())
        if not with_data:
            return name, {name: path}
        own = _own_files(root, path, manifest, places)
        return name, {**_without_own_files(tree(folder, top)), **own}
    facts = run / layout.DATA_FACTS
    if data_digest(read_object(facts)) == digest:  # of an own loop; it is packed with its run
        return facts.relative_to(root).as_posix(), {}
    raise UserError(
        f"{folder} has no {layout.MANIFEST} of the recorded data, of at most "
        f"{_LARGEST_MANIFEST >> 20} MiB: make record"
    )


def _read_manifest(path: Path, digest: str) -> JsonObject | None:
    """Read the manifest of data by their digest; None for another, and for what is no manifest.

    Authors have files of that name, too: of any content and size.
    """
    try:
        if path.stat().st_size > _LARGEST_MANIFEST:
            return None
        manifest = read_object(path)
        return manifest if data_digest(manifest) == digest else None
    except (OSError, UserError, ValueError):
        return None


def _own_files(root: Path, path: Path, manifest: JsonObject, settings: JsonObject) -> Files:
    """Return the files of a manifest that stay where the author has them, by their new names."""
    names = manifest.get("files")
    if not isinstance(names, dict):
        return {}
    found = own_folder(root, path, names, settings)
    if not found:
        _refuse_to_leave_out(path, manifest, settings)
        return {}
    setting, folder = found
    held = held_by_indexes(folder, [*names])
    packed = [*names, *chain(*held.values())]
    return {f"{layout.own_place(setting)}/{file}": folder / file for file in packed}


def _without_own_files(files: Files) -> Files:
    """Leave out what lies in data/own_files/: only the files of the manifests go there."""
    place = PurePosixPath(layout.own_place("setting")).parent
    return {name: file for name, file in files.items() if place not in PurePosixPath(name).parents}


def _refuse_to_leave_out(path: Path, manifest: JsonObject, settings: JsonObject) -> None:
    """Raise UserError if the author's own files are neither where they were, nor in their place."""
    setting = manifest.get(OWN_SETTING)
    if isinstance(setting, str):
        raise UserError(
            f"--with-data: the files of {path} are not in {settings.get(setting)}, where they were "
            f"recorded: put them back, or into {layout.own_place(setting)}/, or leave the option "
            "out"
        )


def own_folder(
    root: Path, manifest: Path, names: Collection[str], settings: JsonObject
) -> tuple[str, Path] | None:
    """Return the folder where the author has the files of a manifest, and the setting that says so.

    None for files that the project prepared, and for those of a loop that keeps its data in its own
    way: they are in data_dir, or nowhere.
    """
    if _has_all(manifest.parent / layout.PREPARED, names):
        return None
    for setting, value in settings.items():
        for place in (value, layout.own_place(setting)):
            if isinstance(place, str) and _has_all(root / place, names):
                return setting, root / place
    return None


def _has_all(folder: Path, names: Iterable[str]) -> bool:
    return all((folder / name).is_file() for name in names)


def tree(folder: Path, top: PurePosixPath) -> Files:
    """Return the files below `folder` by their names below `top`.

    Hidden files and linked folders are left out.
    """
    files: dict[str, bytes | Path] = {}
    for path in folder.rglob("*"):
        parts = path.relative_to(folder).parts
        if path.is_file() and not any(part.startswith(".") for part in parts):
            files[str(top.joinpath(*parts))] = path
    return files
