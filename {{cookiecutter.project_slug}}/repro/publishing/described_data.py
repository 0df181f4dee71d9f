"""Find out what is known of the data of the recorded trainings: files, origin, licence, split.

All of it is read from what is packed: the data's manifest, the config of a training, and the files
themselves. What nobody stated is left out. The sizes of the parts come from the author's own
`datasets`, which made them for the training, too: an archive is made of the code that was recorded.
It is asked once for each claim, however many forms describe the data (`with_parts`).
"""

import sys
from collections.abc import Mapping, Sized
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from repro.core import layout
from repro.core.bounded import parse_json, read_json_file
from repro.core.files import JsonObject
from repro.core.project import author_module, author_object, tool_settings
from repro.data.manifest import OWN_SETTING
from repro.data.prepared import facts_of
from repro.publishing.contents import Contents, PackedTraining
from repro.publishing.packed_data import own_folder
from repro.results.recording import RecordedClaim
from repro.runs.yaml_files import load_yaml


@dataclass(frozen=True)
class DataFile:
    """A file of data: its name in the archive, where it lies here, and whether it is packed.

    A file that is not packed has the name that it gets in the unpacked archive once it is prepared.
    `below`: its name in the manifest.
    """

    name: str
    below: str
    sha256: str
    path: Path | None
    is_packed: bool


@dataclass(frozen=True)
class DescribedData:
    """The data of some trainings.

    `own`: the name of the setting that says where the author's own files are; empty for files that
    the project prepared. `folder`: where the files lie here; None if that is not known. `splits`:
    by claim, the number of samples of each part.
    """

    name: str
    manifest_name: str
    manifest: JsonObject
    files: list[DataFile]
    own: str
    folder: Path | None
    splits: Mapping[str, Mapping[str, int]]

    def texts(self, name: str) -> list[str]:
        """Return what the manifest says under a name: a text, or several."""
        value = self.manifest.get(name)
        values = value if isinstance(value, list) else [value]
        return [item for item in values if isinstance(item, str)]


def data_of(contents: Contents) -> list[DescribedData]:
    """Return the data of all trainings, each once, in the order of their manifests' names."""
    first = {training.manifest: training for training in reversed(contents.trainings)}
    return [_described(contents, first[name]) for name in sorted(first)]


def with_parts(contents: Contents) -> Contents:
    """Return contents that know how many samples each part of their data has, by claim."""
    parts = {}
    for data in data_of(contents):
        for name in _claims_on(contents, data.manifest_name):
            claim = contents.recording.claims[name]
            if data.folder:
                parts[name] = _sizes(contents.root, claim, data.folder, facts_of(data.manifest))
    return replace(contents, parts={name: sizes for name, sizes in parts.items() if sizes})


def _described(contents: Contents, training: PackedTraining) -> DescribedData:
    manifest = _read_manifest(contents, training.manifest)
    recorded = manifest.get("files")
    digests = recorded if isinstance(recorded, dict) else {}
    own, folder = _find_folder(contents, training, digests)
    files = []
    if own or folder:  # else it is an own loop's, which keeps its data in its own way
        top = PurePosixPath(layout.own_place(own)) if own else _prepared(training.manifest)
        for name, digest in sorted(digests.items()):
            if not _is_utf8(name):
                continue  # no address can have it; the manifest has
            packed = str(top / name)
            path = folder / name if folder else None
            files.append(DataFile(packed, name, str(digest), path, packed in contents.files))
    named = manifest.get("dataset")
    return DescribedData(
        name=named if isinstance(named, str) else "data",
        manifest_name=training.manifest,
        manifest=manifest,
        files=files,
        own=own,
        folder=folder,
        splits={
            name: contents.parts[name]
            for name in _claims_on(contents, training.manifest)
            if name in contents.parts
        },
    )


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _read_manifest(contents: Contents, name: str) -> JsonObject:
    content = contents.files[name]
    value = read_json_file(content) if isinstance(content, Path) else parse_json(content)
    return value if isinstance(value, dict) else {}


def _prepared(manifest: str) -> PurePosixPath:
    """Return where the prepared files lie in the unpacked archive, packed or prepared there."""
    below = PurePosixPath(*PurePosixPath(manifest).parent.parts[1:])
    return layout.DATA / below / layout.PREPARED


def _find_folder(
    contents: Contents, training: PackedTraining, digests: JsonObject
) -> tuple[str, Path | None]:
    """Return the setting that says where the author's own files are, and the folder of the data."""
    path = contents.files[training.manifest]
    if not isinstance(path, Path) or path.name != layout.MANIFEST:
        return "", None
    config = contents.files[f"{training.place}/{layout.CONFIG_USED}"]
    settings = load_yaml(config) if isinstance(config, Path) else {}
    if own := own_folder(contents.root, path, digests, settings):
        return own
    setting = _read_manifest(contents, training.manifest).get(OWN_SETTING)
    if isinstance(setting, str):  # they are not where they were when they were recorded
        return setting, None
    return "", path.parent / layout.PREPARED


def _claims_on(contents: Contents, manifest: str) -> list[str]:
    """Return the claims that were trained with the data of a manifest."""
    trained = {training.name for training in contents.trainings if training.manifest == manifest}
    return [
        name
        for name, claim in contents.recording.claims.items()
        if trained & {f"{name}-seed-{seed}" for seed in claim.values}
    ]


def _sizes(root: Path, claim: RecordedClaim, folder: Path, facts: JsonObject) -> dict[str, int]:
    """Ask the author's module of data for the parts of a claim, and count their samples."""
    if not {"config", "data"} <= tool_settings(root).keys():
        return {}
    with redirect_stdout(sys.stderr):  # the author's code may print
        config = author_object(root, "config").load(claim.arguments)
        parts = author_module(root, "data").datasets(config, folder, facts)
    return {name: len(part) for name, part in parts.items() if isinstance(part, Sized)}
