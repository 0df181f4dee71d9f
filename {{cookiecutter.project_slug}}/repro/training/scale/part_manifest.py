"""The manifest of a checkpoint in parts: which rows of which tensor each process wrote.

`parts.json` holds for each sharded tensor its type, its shape and at which rows one file ends and
the next begins, and for each file its SHA-256 and size. Promises that a manifest which is read is
one that can be: each row of each tensor is in one file, and no file lies elsewhere.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path
from typing import Any

from repro.core.bounded import DamagedFile, read_json_file, read_whole, refuse_unreadable
from repro.core.errors import UserError
from repro.core.layout import PARTS, STATE, part_file
from repro.training.tensors import TYPES

REMEDY = "take another checkpoint"
_MOST_DIMENSIONS = 64
_MOST_VALUES = 1 << 60  # of a tensor: more have no place in 64 bits


@dataclass(frozen=True)
class ShardedTensor:
    """A tensor in parts: file k holds the rows from `edges[k]` to `edges[k + 1]`."""

    dtype: str
    shape: list[int]
    edges: list[int]

    def rows_of(self, file: int) -> int:
        return self.edges[file + 1] - self.edges[file]


@dataclass(frozen=True)
class FileFacts:
    """What identifies a file."""

    sha256: str
    size: int


@dataclass(frozen=True)
class PartManifest:
    """The files of a checkpoint in parts by their names, and its sharded tensors by theirs."""

    files: dict[str, FileFacts]
    tensors: dict[str, ShardedTensor]

    @property
    def size(self) -> int:
        """Of how many processes it is."""
        return len(self.files) - 1

    def text(self) -> str:
        """Return what `parts.json` holds; UserError for more than this kit would read again."""
        value = asdict(self)
        text = json.dumps(value, indent=1, sort_keys=True) + "\n"
        refuse_unreadable(PARTS, text, value)
        return text


def merged(written: Sequence[Any]) -> PartManifest:
    """Put together what all processes told of their files and parts, as JSON.

    UserError, the same in all, if it is not one state. The names of process 0 count: one without
    rows of a tensor cannot tell that it is tied to another one.
    """
    names = {name: None for each in written for name, part in each["parts"].items() if part[-1]}
    tensors = {}
    for name in {**written[0]["parts"], **names}:
        parts: list[Any] = [each["parts"].get(name) for each in written]
        edges = [0]
        for process, part in enumerate(parts):
            dtype, shape, start, rows = part or [None, None, 0, 0]
            if [dtype, shape] != (parts[0] or [])[:2] or (rows and start != edges[-1]):
                raise UserError(
                    f"{name.lstrip('.')}: the part of process {process} does not go on where that "
                    "of the one before ends, or is of another type or shape: expected one model"
                )
            edges.append(start + rows if rows else edges[-1])
        tensors[name] = ShardedTensor(dtype, shape, edges)
        if fault := _fault_of_tensor(asdict(tensors[name]), len(written)):
            raise UserError(f"{name.lstrip('.')}: {fault}")
    files = {name: FileFacts(*facts) for each in written for name, facts in each["files"].items()}
    return PartManifest(files, tensors)


def read_parts(folder: Path) -> PartManifest:
    """Read the manifest of a checkpoint; DamagedFile for one that nobody can have written."""
    path = folder / PARTS
    manifest = _manifest_of(read_json_file(path, REMEDY))
    if isinstance(manifest, str):
        raise DamagedFile(path, manifest, REMEDY)
    if read_whole(path) != manifest.text().encode():
        raise DamagedFile(path, "it is not as it was written", REMEDY)
    return manifest


def _manifest_of(value: Any) -> PartManifest | str:
    """Return a manifest; what is wrong with it, where it is none."""
    if not _has(value, files=dict, tensors=dict):
        return "expected files and tensors"
    size = len(value["files"]) - 1
    for number in range(max(size, 1)):  # stops at the first name that it lacks
        if part_file(number, size) not in value["files"]:
            return f"its {size + 1} files are not {STATE} and the parts of {size} processes"
    if STATE not in value["files"]:
        return f"{STATE} is not among its files"
    for name, facts in value["files"].items():
        if not _has(facts, sha256=str, size=int):
            return f"{name}: expected sha256 and size"
    for name, entry in value["tensors"].items():
        if fault := _fault_of_tensor(entry, size):
            return f"tensor {name[:80]!a}: {fault}"
    return PartManifest(
        {name: FileFacts(**facts) for name, facts in value["files"].items()},
        {name: ShardedTensor(**entry) for name, entry in value["tensors"].items()},
    )


def _fault_of_tensor(entry: Any, size: int) -> str | None:
    """Say what is wrong with the entry of a tensor."""
    if not _has(entry, dtype=str, shape=list, edges=list):
        return "expected dtype, edges, shape"
    shape, edges = entry["shape"], entry["edges"]
    if entry["dtype"] not in TYPES:
        return f"no type of torch's: {entry['dtype'][:40]!a}"
    if not 1 <= len(shape) <= _MOST_DIMENSIONS or not all(_is_count(count) for count in shape):
        return "its shape is no list of sizes"
    if prod(max(count, 1) for count in shape) > _MOST_VALUES:
        return f"its shape {shape!s:.60} is too large"
    if len(edges) != size + 1 or not all(_is_count(edge) for edge in edges):
        return f"expected {size + 1} edges"
    if edges[0] != 0 or edges[-1] != shape[0] or edges != sorted(edges):
        return f"its files overlap, or do not hold the rows from 0 to {shape[0]}"
    return None


def _has(value: Any, **kinds: type) -> bool:
    """Tell whether a value is an object with these keys, no others, and such values."""
    if not isinstance(value, Mapping) or value.keys() != kinds.keys():
        return False
    return all(type(value[key]) is kind for key, kind in kinds.items())


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value <= _MOST_VALUES
