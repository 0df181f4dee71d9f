"""Save and load checkpoints of models of which each process holds a part.

Such a checkpoint is a folder, too: `part-R-of-W.safetensors` has the rows that process R of W held
(and of process 0 what is not sharded), `state.json` the rest of the state, `parts.json` the digests
of these files and which rows are where. Each process writes and flushes its own file, all tell the
others whether that went well, and process 0 writes the manifest and renames the folder: a folder
without a manifest is no checkpoint. Equal states in as many processes give equal bytes.

Where one process fails, all end with its line. Of a process's part nothing is copied as a whole.
Any number of processes can load; each reads its own rows and no others. `consolidate` makes of it
the files that checkpoint.save would have written.
"""

import json
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TypeAlias, TypeVar

import torch
from torch import Tensor

from repro.core.bounded import DamagedFile
from repro.core.errors import UserError
from repro.core.files import partial_files, replacing
from repro.core.hashing import sha256_bytes, sha256_file
from repro.core.layout import ANY_PART, PARTS, STATE, SUMS, TENSORS, part_file
from repro.core.stand_ins import stand_in
from repro.core.text import listed
from repro.training import checkpoint, durable
from repro.training.packing import LoadedState, State, pack, unpack_file
from repro.training.part import Part
from repro.training.processes import Processes
from repro.training.scale.part_manifest import (
    REMEDY,
    PartManifest,
    merged,
    read_parts,
)
from repro.training.tensors import (
    TYPES,
    OpenTensors,
    Source,
    Streamed,
    name_of_type,
    write_tensors,
)

Result = TypeVar("Result")
Shape: TypeAlias = tuple[int, ...]


def save(folder: Path, state: State, processes: Processes) -> None:
    """Write `state`, in which a `Part` stands for each sharded tensor; all processes call it.

    What is no `Part` is written by process 0. UserError, the same in all, if any of them fails:
    `folder` is what it was then.
    """
    temporary = durable.partial_folder(folder)
    is_first = processes.rank == 0

    def attempt(work: Callable[[], Result]) -> Result:
        try:
            return work()
        except OSError as error:
            place = error.filename or temporary / part_file(processes.rank, processes.size)
            raise UserError(
                f"process {processes.rank} cannot write its part of a checkpoint: {place}: "
                f"{error.strerror}: free some space there, and start all again with resume=auto"
            ) from error

    def begin() -> None:
        if is_first:
            durable.begin_folder(folder)

    def write() -> str:
        return _write(temporary, state, processes.rank, processes.size)

    def finish() -> None:
        if is_first:
            (temporary / PARTS).write_text(manifest.text())
            durable.flush_folder(temporary)
            durable.put_in_place(temporary, folder)

    try:
        processes.together(lambda: attempt(begin))
        told = processes.together(lambda: attempt(write))
        manifest = merged([json.loads(text) for text in processes.texts(told)])
        processes.together(lambda: attempt(finish))
    except UserError:
        if is_first:  # leave room for what comes next
            shutil.rmtree(temporary, ignore_errors=True)
        raise


def _write(folder: Path, state: State, rank: int, size: int) -> str:
    """Write a process's own file, and as the first one the state, too; return what others hear."""
    text, tensors, parts = pack(state)
    sources = {name: part.tensor for name, part in parts.items() if len(part.tensor)}
    if rank == 0:
        sources |= tensors
    told = {
        name: [name_of_type(each.tensor.dtype), [*each.shape], each.start, len(each.tensor)]
        for name, each in parts.items()
    }
    path = folder / part_file(rank, size)
    digest = write_tensors(path, sources, durable.flush_to_disk)
    files = {path.name: [digest, path.stat().st_size]}
    if rank == 0:
        (folder / STATE).write_bytes(text.encode())
        files[STATE] = [sha256_bytes(text.encode()), len(text.encode())]
    return json.dumps({"files": files, "parts": told})


def find_fault(folder: Path) -> str | None:
    """Say in a few words what is wrong with a checkpoint in parts; None if it is whole.

    Reads each file once. Whoever loads it afterwards verifies no digest again.
    """
    try:
        manifest = read_parts(folder)
        there = sorted(path.name for path in folder.glob(ANY_PART))
        if foreign := [name for name in there if name not in manifest.files]:
            return f"{listed(foreign)}: foreign, {PARTS} is of {manifest.size} processes"
        for name, facts in manifest.files.items():
            path = folder / name
            if not path.is_file():
                return f"{name} is missing"
            if what := stand_in(path):
                return f"{name} is {what}"
            if path.stat().st_size != facts.size or sha256_file(path) != facts.sha256:
                return f"{name} is changed, cut or of another checkpoint: {PARTS} does not agree"
        for number in range(manifest.size):
            _Files(folder, manifest).opened(number)
    except DamagedFile as error:
        return f"{error.path.name} is damaged: {error.reason}"
    return None


def load(
    folder: Path, rank: int, size: int, is_cut: Callable[[str, Shape], bool] = lambda *_: False
) -> LoadedState:
    """Read the state that process `rank` of `size` needs: of a sharded tensor its own rows.

    They are cut as torch.chunk does; how many processes saved it does not matter. Of a checkpoint
    that is whole, `is_cut(name, shape)` tells which tensors are sharded now. UserError for files
    that are not those of the manifest. No digest is verified again: find_fault has done so, in one
    process for all.
    """
    if checkpoint.is_in_parts(folder):
        return unpack_file(folder / STATE, _own_tensors(folder, rank, size))
    file = OpenTensors(folder / TENSORS)
    tensors: dict[str, Tensor | Part] = {}
    for name, (_, shape) in file.kinds.items():
        if is_cut(name, shape):
            own = _own_rows(shape[0], rank, size)
            tensors[name] = Part(file.rows(name, own.start, own.stop).clone(), shape, own.start)
        else:
            tensors[name] = file.tensor(name).clone()
    return unpack_file(folder / STATE, tensors)


def _own_tensors(folder: Path, rank: int, size: int) -> dict[str, Tensor | Part]:
    manifest = read_parts(folder)
    files = _Files(folder, manifest)
    tensors: dict[str, Tensor | Part] = {
        name: tensor.clone() for name, tensor in files.unsharded().items()
    }
    for name, tensor in manifest.tensors.items():
        own = _own_rows(tensor.shape[0], rank, size)
        pieces = [*files.rows(name, own.start, own.stop)]
        none = torch.empty(0, *tensor.shape[1:], dtype=TYPES[tensor.dtype])
        tensors[name] = Part(torch.cat(pieces) if pieces else none, tuple(tensor.shape), own.start)
    return tensors


def _own_rows(count: int, rank: int, size: int) -> range:
    """Return which of so many rows process `rank` of `size` holds."""
    most = -(-count // size)  # rounded up
    start = min(rank * most, count)
    return range(start, min(start + most, count))


def consolidate(folder: Path) -> None:
    """Turn a checkpoint in parts into one of whole tensors; a whole one stays as it is.

    One process does it. The bytes are those that checkpoint.save writes of the same state with
    whole tensors. No tensor is held as a whole. The parts count until SHA256SUMS is on the disk,
    and are removed then; what a kill left of either is put right by the next call.
    """
    try:
        for path in (*partial_files(folder / TENSORS), *partial_files(folder / SUMS)):
            path.unlink()  # left behind by a kill
        if checkpoint.is_in_parts(folder):
            _write_whole(folder)
        for path in (folder / PARTS, *folder.glob(ANY_PART)):
            path.unlink(missing_ok=True)
        durable.flush_to_disk(folder)
    except OSError as error:
        raise UserError(
            f"checkpoint {folder}: its parts cannot be put together: {error.strerror}: free some "
            "space there, and resume"
        ) from error


def _write_whole(folder: Path) -> None:
    """Write, beside the parts, what makes a checkpoint whole."""
    if fault := checkpoint.find_fault(folder):  # else the sums would make good of it
        raise UserError(f"checkpoint {folder}: {fault}")
    manifest = read_parts(folder)
    files = _Files(folder, manifest)
    sources: dict[str, Source] = {**files.unsharded()}
    for name, tensor in manifest.tensors.items():
        read = partial(files.rows, name, 0, tensor.shape[0])
        sources[name] = Streamed(TYPES[tensor.dtype], tuple(tensor.shape), read)
    with replacing(folder / TENSORS) as temporary:
        digest = write_tensors(temporary, sources, durable.flush_to_disk)
    durable.flush_to_disk(folder)
    sums = checkpoint.sums_text(manifest.files[STATE].sha256, digest)
    with replacing(folder / SUMS) as temporary:
        temporary.write_text(sums)
        durable.flush_to_disk(temporary)
    durable.flush_to_disk(folder)


class _Files:
    """The open files of a checkpoint; DamagedFile for one that is not as the manifest says."""

    def __init__(self, folder: Path, manifest: PartManifest) -> None:
        self._folder = folder
        self._manifest = manifest
        self._open: dict[int, OpenTensors] = {}

    def opened(self, number: int) -> OpenTensors:
        """Return the file of one process."""
        if number not in self._open:
            path = self._folder / part_file(number, self._manifest.size)
            file = OpenTensors(path, REMEDY)
            if fault := self._fault_of(number, file):
                raise DamagedFile(path, fault, REMEDY)
            self._open[number] = file
        return self._open[number]

    def _fault_of(self, number: int, file: OpenTensors) -> str | None:
        for name, tensor in self._manifest.tensors.items():
            rows = tensor.rows_of(number)
            expected = (tensor.dtype, (rows, *tensor.shape[1:])) if rows else None
            if file.kinds.get(name) != expected:
                return f"tensor {name[:80]!a} is not as in {PARTS}"
        if number and (more := file.kinds.keys() - self._manifest.tensors.keys()):
            return f"tensor {min(more)[:80]!a} is not in {PARTS}"
        return None

    def rows(self, name: str, start: int, stop: int) -> Iterator[Tensor]:
        """Yield the rows of a sharded tensor, those of each file together."""
        tensor = self._manifest.tensors[name]
        for number, (first, end) in enumerate(pairwise(tensor.edges)):
            own = range(max(start, first) - first, min(stop, end) - first)
            if own:
                yield self.opened(number).rows(name, own.start, own.stop)

    def unsharded(self) -> dict[str, Tensor]:
        """Return what process 0 wrote for all."""
        file = self.opened(0)
        names = file.kinds.keys() - self._manifest.tensors.keys()
        return {name: file.tensor(name) for name in names}
