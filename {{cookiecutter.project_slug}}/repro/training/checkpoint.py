"""Save checkpoints that survive a crash at any moment, and read them without running code.

A checkpoint is a folder: `tensors.safetensors` holds every tensor, `state.json` the rest of the
state, `SHA256SUMS` the digests of both (`sha256sum -c SHA256SUMS` checks it by hand). It is written
under a temporary name, flushed to disk and renamed, so that a folder with the final name is whole.
Equal state gives equal bytes. `load` verifies the digests first; `newest_whole` goes back to the
newest checkpoint that is whole, and says which ones are not. No pickle anywhere.
"""

import errno
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from repro.core.bounded import DamagedFile, read_json_file, refuse_unreadable
from repro.core.errors import UserError
from repro.core.files import read_object
from repro.core.hashing import sha256_bytes, sha256_file
from repro.core.layout import (
    BEST,
    CHECKPOINTS,
    LAST,
    LATEST,
    STATE,
    SUMS,
    TENSORS,
    names_a_step,
    step_folder,
    step_of,
    steps_newest_first,
)
from repro.core.stand_ins import stand_in
from repro.core.text import listed
from repro.training.tensors import load_tensors, write_tensors

_FILES = (STATE, TENSORS)
_OTHER = "take another checkpoint"  # its sums agree, so no disk has damaged it

# What file systems answer that cannot do a thing: CIFS, exFAT, FAT, some of FUSE and of clusters.
_CANNOT = {
    *(errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP),
    *(errno.EPERM, errno.EACCES, errno.EBADF, errno.EISDIR),
}
_said: set[str] = set()  # in this process, so that a training does not say it at each checkpoint


class _Malformed(Exception):
    """A state that `save` did not write."""


def save(folder: Path, state: Mapping[str, Any]) -> None:
    """Write `state` (nested dicts and lists of tensors, numbers, strings, None) to `folder`.

    An existing checkpoint of that name is replaced only once the new one is on disk.
    """
    tensors: dict[str, Tensor] = {}
    packed = _pack(state, "", tensors, {})
    text = json.dumps(packed, indent=1, sort_keys=True) + "\n"
    refuse_unreadable("the state of the training", text, packed)
    with _replacing_folder(folder) as temporary:
        written = write_tensors(temporary / TENSORS, tensors, _flush)
        (temporary / STATE).write_bytes(text.encode())
        (temporary / SUMS).write_text(
            _lines({STATE: sha256_bytes(text.encode()), TENSORS: written})
        )


def copy(source: Path, target: Path) -> None:
    """Copy a checkpoint as a whole or not at all."""
    with _replacing_folder(target) as temporary:
        for path in source.iterdir():
            shutil.copyfile(path, temporary / path.name)  # not its mode, which some disks refuse


@contextmanager
def _replacing_folder(folder: Path) -> Iterator[Path]:
    """Yield an empty folder beside `folder`, which takes its place once all of it is on disk.

    What `folder` held is removed last, so one whole folder is there at every moment but one, when
    it is there under the name `.NAME.replaced`.
    """
    temporary = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(temporary, ignore_errors=True)  # left behind by a crash
    temporary.mkdir(parents=True)
    try:
        yield temporary
        for path in (*temporary.iterdir(), temporary):
            _flush(path)
    except OSError:  # a full disk: leave room for what comes next
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    replaced = folder.with_name(f".{folder.name}.replaced")
    shutil.rmtree(replaced, ignore_errors=True)
    if folder.exists():
        folder.rename(replaced)
    temporary.rename(folder)
    shutil.rmtree(replaced, ignore_errors=True)
    _flush(folder.parent)


def point(link: Path, target: Path) -> None:
    """Make `link` a relative symbolic link to `target`, replacing an older link in one step.

    Where the file system has no links, it goes without, and says so once.
    """
    # In a folder of its own: other trainings may do the same at this moment.
    with tempfile.TemporaryDirectory(prefix=f".{link.name}.", dir=link.parent) as folder:
        temporary = Path(folder, "link")
        try:
            temporary.symlink_to(os.path.relpath(target.resolve(), link.parent.resolve()))
        except OSError as error:
            words = (
                f"no {LATEST}, {LAST} and {BEST} there; name the run (run_dir=, resume=) and the "
                f"checkpoint (--checkpoint RUN/{CHECKPOINTS}/step-N)"
            )
            _go_on_without("symbolic links", link.parent, error, words)
            return
        temporary.replace(link)


def _go_on_without(what: str, folder: Path, error: OSError, words: str) -> None:
    """Say once that a file system cannot do a thing; raise any other error again."""
    if error.errno not in _CANNOT:
        raise error
    if what not in _said:
        _said.add(what)
        print(f"warning: {folder}: this file system has no {what} ({error.strerror}): {words}")


def load(folder: Path) -> dict[str, Any]:
    """Read the state that `save` wrote, tensors on the CPU; UserError if something is wrong."""
    if fault := find_fault(folder):
        raise UserError(f"checkpoint {folder}: {fault}")
    state = read_json_file(folder / STATE)
    tensors = load_tensors(folder / TENSORS)
    if not isinstance(state, dict):
        raise DamagedFile(folder / STATE, "it holds no JSON object", _OTHER)
    try:
        return dict(_unpack(state, tensors))
    except _Malformed as error:
        raise DamagedFile(folder / STATE, str(error), _OTHER) from error


def find_fault(folder: Path) -> str | None:
    """Say in a few words what is wrong with a checkpoint; None if it is whole."""
    if not folder.is_dir():
        return "there is no such folder"
    for name in (SUMS, *_FILES):
        if not (folder / name).is_file():
            return f"{name} is missing"
        if what := stand_in(folder / name):
            return f"{name} is {what}"
    if not _are_sums(folder):
        return f"changed or cut: its files and {SUMS} do not agree"
    step = read_object(folder / STATE).get("step")
    if names_a_step(folder) and isinstance(step, int) and step != step_of(folder):
        return f"a copy of another one: its name says step {step_of(folder)}, its state {step}"
    return None


def _are_sums(folder: Path) -> bool:
    """Tell whether SHA256SUMS holds what it should."""
    expected = _sums(folder).encode()
    with (folder / SUMS).open("rb") as file:
        return file.read(len(expected) + 1) == expected


def _sums(folder: Path) -> str:
    """Return what SHA256SUMS should hold."""
    return _lines({name: sha256_file(folder / name) for name in _FILES})


def _lines(digests: Mapping[str, str]) -> str:
    return "".join(f"{digests[name]}  {name}\n" for name in _FILES)


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
            return folder.resolve()
        damaged.append(f"checkpoint {folder} is damaged ({fault})")
    raise UserError(f"{checkpoints}: no whole checkpoint to resume from: {listed(damaged)}")


def prune(checkpoints: Path, keep: int, step: int, best: int = 0) -> None:
    """Remove all but the newest `keep` checkpoints, never those of `step`, `best` and the links.

    `step`: that which the training has come to. A checkpoint of a later one is not its own: it is
    left, and takes no other one's place. `best`: the step of the best one, 0 if there is none.
    """
    kept = {(checkpoints / name).resolve() for name in (BEST, LAST)}
    kept |= {step_folder(checkpoints, number).resolve() for number in (step, best)}  # without links
    own = [folder for folder in steps_newest_first(checkpoints) if step_of(folder) <= step]
    for folder in own[keep:]:
        if folder.resolve() not in kept:
            shutil.rmtree(folder)


def _flush(path: Path) -> None:
    """fsync a file or a folder: a rename must not reach the disk before the bytes do.

    Where the file system has no such thing, it goes on without, and says so once.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        words = "a power cut may take the newest checkpoint; resume=auto then takes an older one"
        _go_on_without("fsync of files and folders", path.parent, error, words)


def _pack(value: Any, name: str, tensors: dict[str, Tensor], seen: dict[Any, str]) -> Any:
    """Return `value` as JSON, and put its tensors into `tensors` under names made from `name`."""
    if isinstance(value, Tensor):
        return {"$tensor": _pack_tensor(value, name, tensors, seen)}
    if isinstance(value, Mapping):
        items = [(key, _pack(item, f"{name}.{key}", tensors, seen)) for key, item in value.items()]
        if all(isinstance(key, str) and not key.startswith("$") for key in value):
            return dict(items)
        return {"$items": [list(item) for item in items]}  # JSON has strings for keys only
    if isinstance(value, (list, tuple)):
        return [_pack(item, f"{name}.{i}", tensors, seen) for i, item in enumerate(value)]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise UserError(
        f"{name.lstrip('.')}: a {type(value).__name__} cannot be stored without pickle: expected "
        "tensors, numbers, text and None, in dicts and lists"
    )


def _pack_tensor(value: Tensor, name: str, tensors: dict[str, Tensor], seen: dict[Any, str]) -> str:
    """Put a tensor into `tensors` and return its name there; one met twice (tied weights) once."""
    identity = (value.data_ptr(), value.dtype, value.shape, value.stride(), value.device)
    empty = value.numel() == 0  # without memory of its own
    if not empty and identity in seen:
        return seen[identity]
    seen[identity] = name
    if _is_as_written(value):
        tensors[name] = value.detach()
        return name
    copied = torch.empty(value.shape, dtype=value.dtype, device="cpu")
    tensors[name] = copied.copy_(value.detach())
    return name


def _is_as_written(value: Tensor) -> bool:
    """Tell whether a tensor lies in memory as its bytes in the file: then it needs no copy."""
    return (
        type(value) in (Tensor, torch.nn.Parameter)
        and (value.device.type, value.layout) == ("cpu", torch.strided)
        and value.is_contiguous()
        and not (value.is_conj() or value.is_neg())
    )


def _unpack(value: Any, tensors: dict[str, Tensor]) -> Any:
    """Undo `_pack`."""
    if isinstance(value, list):
        return [_unpack(item, tensors) for item in value]
    if isinstance(value, dict):
        if "$tensor" in value:
            return _tensor_of(value["$tensor"], tensors)
        if "$items" in value:
            return {key: _unpack(item, tensors) for key, item in _pairs_of(value["$items"])}
        return {key: _unpack(item, tensors) for key, item in value.items()}
    return value


def _tensor_of(name: Any, tensors: dict[str, Tensor]) -> Tensor:
    if not isinstance(name, str) or name not in tensors:
        raise _Malformed(f"{TENSORS} lacks the tensor {str(name)[:80]!a}")
    return tensors[name]


def _pairs_of(items: Any) -> list[list[Any]]:
    """Return what `_pack` wrote of a dict whose keys are not all texts: keys and values."""
    pairs: list[Any] = items if isinstance(items, list) else [None]
    for pair in pairs:
        if not isinstance(pair, list) or len(pair) != 2 or isinstance(pair[0], list | dict):
            raise _Malformed("$items holds no pairs of a key and a value")
    return pairs
