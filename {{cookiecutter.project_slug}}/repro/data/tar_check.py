"""Read every byte of tar files of samples once, shared by all processes, and name what is wrong.

A training checks the samples that it reads. Whoever wants to know beforehand that all are as they
were written asks for this: `verify --check full`.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

from repro.core.errors import UserError, refuse
from repro.core.progress import progress
from repro.data.digests import ALONE, Together, share_of
from repro.data.manifest import files_below
from repro.data.tar_index import TarIndex, held_by_indexes
from repro.data.tar_samples import END_OF_TAR, fault_of_sample, member_bytes, what_is_wrong


def check_tars(folder: Path, together: Together = ALONE) -> int:
    """Compare all that tar files below a folder hold with their indexes; return their bytes.

    All processes call this together; those that see the same files read a share of them each.
    UserError in all of them, with a line for each sample that is not as it was written, but for
    those that `refuse` counts.
    """
    parts = {}
    for name in held_by_indexes(folder, files_below(folder)):
        index = TarIndex(folder / name)
        refuse(index.faults_of_sizes())
        for number in range(len(index.head.parts)):
            parts[str(index.part_path(number).relative_to(folder))] = (index, number)
    size = sum(index.head.parts[number].size for index, number in parts.values())
    share = share_of(folder, [*parts], together)
    own = sum((folder / name).stat().st_size for name in share)
    faults: list[str] = []
    with progress(f"reading {len(share)} tar files", own, quiet=together.rank > 0) as advance:
        for name in share:
            faults += _faults_of_part(*parts[name], advance)
    told = [json.loads(text) for text in together.texts(json.dumps(faults))]
    refuse(sorted({line for theirs in told for line in theirs}))
    return size


def _faults_of_part(index: TarIndex, part: int, advance: Callable[[int], None]) -> Iterator[str]:
    """Read a tar file from its first byte to its last; yield a line for each fault."""
    path = index.part_path(part)
    try:
        with path.open("rb") as file:
            for number in index.head.samples_of(part):
                entry = index.entry(number)
                before, behind = member_bytes(entry.name, entry.length)
                header = file.read(len(before))
                data = file.read(entry.length)
                padding = file.read(len(behind))
                fault = what_is_wrong(entry, data)
                if not fault and (header, padding) != (before, behind):
                    fault = "what stands around it in the tar file changed"
                if not fault and file.tell() != entry.offset + entry.length + len(behind):
                    fault = f"it lies elsewhere than at byte {entry.offset}, where the index has it"
                if fault:
                    yield fault_of_sample(path, number, entry, fault)
                advance(len(before) + entry.length + len(behind))
            if file.read() != END_OF_TAR:
                yield f"{path}: its end changed: restore it, or prepare the data anew (make data)"
            advance(len(END_OF_TAR))
    except UserError as error:  # of the index
        yield from error.lines
    except OSError as error:
        yield f"{path}: {error.strerror}"
