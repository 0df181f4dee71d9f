"""Save checkpoints that survive a crash at any moment, and read them without running code.

A checkpoint is a folder: `tensors.safetensors` holds every tensor, `state.json` the rest of the
state, `SHA256SUMS` the digests of both (`sha256sum -c SHA256SUMS` checks it by hand). It is written
under a temporary name, flushed to disk and renamed, so that a folder with the final name is whole.
Equal state gives equal bytes. `load` verifies the digests first; `newest_whole` goes back to the
newest checkpoint that is whole, and says which ones are not. What several processes wrote, each its
part of a sharded model, has other files (repro/training/scale/parts.py): all here but `save` know
both kinds. No pickle anywhere.
"""

import os
import shutil
import tempfile
from importlib import import_module
from pathlib import Path
from types import ModuleType

from repro.core.errors import UserError
from repro.core.files import read_object
from repro.core.hashing import sha256_bytes, sha256_file
from repro.core.layout import (
    ANY_PART,
    BEST,
    CHECKPOINTS,
    LAST,
    LATEST,
    PARTS,
    STATE,
    SUMS,
    TENSORS,
    names_a_step,
    step_folder,
    step_of,
    steps_newest_first,
)
from repro.core.special_files import resolved
from repro.core.stand_ins import stand_in
from repro.core.text import listed
from repro.training.durable import flush_to_disk, go_on_without, replacing_folder
from repro.training.packing import LoadedState, State, pack, unpack_file
from repro.training.part import own_tensors
from repro.training.tensors import load_tensors, write_tensors

_FILES = (STATE, TENSORS)


def save(folder: Path, state: State) -> None:
    """Write `state` (nested dicts and lists of tensors, numbers, strings, None) to `folder`.

    An existing checkpoint of that name is replaced only once the new one is on disk.
    """
    text, tensors, parts = pack(state)
    assert not parts, "repro/training/scale/parts.py saves these"
    with replacing_folder(folder) as temporary:
        written = write_tensors(temporary / TENSORS, tensors, flush_to_disk)
        (temporary / STATE).write_bytes(text.encode())
        (temporary / SUMS).write_text(sums_text(sha256_bytes(text.encode()), written))


def copy(source: Path, target: Path) -> None:
    """Copy a checkpoint as a whole or not at all."""
    with replacing_folder(target) as temporary:
        for path in source.iterdir():
            shutil.copyfile(path, temporary / path.name)  # not its mode, which some disks refuse


def point(link: Path, target: Path) -> None:
    """Make `link` a relative symbolic link to `target`, replacing an older link in one step.

    Where the file system has no links, it goes without, and says so once.
    """
    # In a folder of its own: other trainings may do the same at this moment.
    with tempfile.TemporaryDirectory(prefix=f".{link.name}.", dir=link.parent) as folder:
        temporary = Path(folder, "link")
        try:
            temporary.symlink_to(os.path.relpath(resolved(target), resolved(link.parent)))
        except OSError as error:
            words = (
                f"no {LATEST}, {LAST} and {BEST} there; name the run (run_dir=, resume=) and the "
                f"checkpoint (--checkpoint RUN/{CHECKPOINTS}/step-N)"
            )
            go_on_without("symbolic links", link.parent, error, words)
            return
        temporary.replace(link)


def load(folder: Path) -> LoadedState:
    """Read the state that `save` wrote, tensors on the CPU; UserError if something is wrong.

    What several processes wrote in parts is put together: all tensors are whole.
    """
    if fault := find_fault(folder):
        raise UserError(f"checkpoint {folder}: {fault}")
    if is_in_parts(folder):
        return dict(own_tensors(_parts(folder).load(folder, 0, 1)))
    return unpack_file(folder / STATE, load_tensors(folder / TENSORS))


def is_in_parts(folder: Path) -> bool:
    """Tell whether several processes wrote a checkpoint, each its part, and it still is so.

    While `consolidate` makes it whole, the sums come last, and then the parts are removed.
    """
    return (folder / PARTS).is_file() and not (folder / SUMS).is_file()


def _parts(folder: Path) -> ModuleType:
    """Return the module that knows checkpoints in parts; UserError where a project has none."""
    try:
        return import_module("repro.training.scale.parts")
    except ModuleNotFoundError as error:
        raise UserError(
            f"checkpoint {folder} was written in parts by several processes ({PARTS}), and this "
            "project was made with scale=one: take a project that was made with scale=many"
        ) from error


def find_fault(folder: Path) -> str | None:
    """Say in a few words what is wrong with a checkpoint; None if it is whole."""
    if not folder.is_dir():
        return "there is no such folder"
    fault = _parts(folder).find_fault(folder) if is_in_parts(folder) else _fault_of_files(folder)
    if fault:
        return str(fault)
    step = read_object(folder / STATE).get("step")
    if names_a_step(folder) and isinstance(step, int) and step != step_of(folder):
        return f"a copy of another one: its name says step {step_of(folder)}, its state {step}"
    return None


def _fault_of_files(folder: Path) -> str | None:
    """Say what is wrong with the files of a checkpoint that one process wrote."""
    for name in (SUMS, *_FILES):
        if not (folder / name).is_file():
            of_parts = name == SUMS and any(folder.glob(ANY_PART))
            return f"{PARTS if of_parts else name} is missing"
        if what := stand_in(folder / name):
            return f"{name} is {what}"
    if not _are_sums(folder):
        return f"changed or cut: its files and {SUMS} do not agree"
    return None


def _are_sums(folder: Path) -> bool:
    """Tell whether SHA256SUMS holds what it should."""
    expected = _sums(folder).encode()
    with (folder / SUMS).open("rb") as file:
        return file.read(len(expected) + 1) == expected


def _sums(folder: Path) -> str:
    """Return what SHA256SUMS should hold."""
    return sums_text(*(sha256_file(folder / name) for name in _FILES))


def sums_text(*digests: str) -> str:
    """Return what SHA256SUMS holds for the digests of the state and of the tensors."""
    return "".join(f"{digest}  {name}\n" for digest, name in zip(digests, _FILES, strict=True))


def newest_whole(checkpoints: Path) -> Path:
    """Return a run's newest whole checkpoint, with a warning for each newer one that is damaged.

    UserError if none is whole: a fresh start would silently throw a training away.
    """
    damaged: list[str] = []
    for folder in steps_newest_first(checkpoints):
        fault = find_fault(folder)
        if fault is None:
            for line in damaged:
                print(f"warning: {line}; going back to {folder.name}", flush=True)
            return resolved(folder)
        damaged.append(f"checkpoint {folder} is damaged ({fault})")
    raise UserError(f"{checkpoints}: no whole checkpoint to resume from: {listed(damaged)}")


def is_newest_whole(start: Path) -> bool:
    """Tell whether a checkpoint that is known to be whole is the newest such one of its run.

    It is not read again: that takes as long as the disk needs for it.
    """
    for folder in steps_newest_first(start.parent):
        if os.path.realpath(folder) == str(start):
            return True
        if find_fault(folder) is None:
            return False
    return False


def prune(checkpoints: Path, keep: int, step: int, best: int = 0) -> None:
    """Remove all but the newest `keep` checkpoints, never those of `step`, `best` and the links.

    `step`: that which the training has come to. A checkpoint of a later one is not its own: it is
    left, and takes no other one's place. `best`: the step of the best one, 0 if there is none.
    """
    places = [checkpoints / name for name in (BEST, LAST)]
    places += [step_folder(checkpoints, number) for number in (step, best)]  # without links
    kept = {os.path.realpath(place) for place in places}
    own = [folder for folder in steps_newest_first(checkpoints) if step_of(folder) <= step]
    for folder in own[keep:]:
        if os.path.realpath(folder) not in kept:
            shutil.rmtree(folder)
