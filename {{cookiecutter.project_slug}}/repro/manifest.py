"""Files and their SHA-256: what a data set consisted of, and which files are not the same any more.

Paths are sorted by characters, not in the order of the file system, so the same files give the same
manifest everywhere. Every file that was changed, is missing or is extra is named.
"""

import json
import os
import re
import tempfile
from pathlib import Path
from typing import Any, NoReturn

from PIL import Image

from repro.command import UserError
from repro.hashing import sha256_file, sha256_json
from repro.lines import read_object
from repro.progress import progress

# No names of classes.
_PARTS = {"train", "training", "val", "valid", "validation", "dev", "eval", "test", "testing"}
_BROKEN = (OSError, ValueError, SyntaxError, RuntimeError)  # by Pillow's readers
SHOWN = 20  # faults of files, one line each; more are counted


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


def refuse(faults: list[str]) -> None:
    """UserError if there are faults: the first SHOWN, and how many more there are."""
    if faults:
        more = [f"... and {len(faults) - SHOWN} more"] if len(faults) > SHOWN else []
        raise UserError(faults[:SHOWN] + more)


def refuse_what_is_no_image(root: Path, names: list[str]) -> None:
    """Name all files that are no whole images or lie outside a class's folder."""
    if not names:
        raise UserError(f"{root}: no files; expected a folder of images per class")
    faults = [f"{root / name}: not in the folder of a class" for name in names if "/" not in name]
    classes = {name.partition("/")[0] for name in names if "/" in name}
    if len(classes) < 2 or {name.lower() for name in classes} <= _PARTS:
        there = ", ".join(sorted(classes)) or "no folder with files"
        wanted = "a folder for each of two classes or more: the split is made here"
        faults.append(f"{root}: found {there}; expected {wanted}")
    empty = {path.name for path in root.iterdir() if path.is_dir() and path.name[0] != "."}
    faults += [f"{root / name}: no files in it: delete it?" for name in sorted(empty - classes)]
    with progress(f"reading {len(names)} images", len(names)) as advance:
        for name in names:
            try:
                with Image.open(root / name) as image:
                    layout = str(getattr(image, "tile", ""))  # of the file; gone when it is read
                    if image.format == "TIFF" and getattr(image, "n_frames", 1) > 1:
                        faults.append(f"{root / name}: several pages, expected a file for each")
                    image.convert("RGB")
                    # Such values would be cut off at white, or lose their lower half.
                    if image.mode.startswith(("I", "F")) or re.search(";16[BLN]", layout):
                        faults.append(f"{root / name}: more than 8 bits per channel: convert it")
            except (*_BROKEN, Image.DecompressionBombError) as error:
                faults.append(f"{root / name}: no image that can be read ({error}): repair it")
            advance(1)
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


def checked(images: Any, labels: Any, facts: dict[str, Any]) -> tuple[Any, Any, dict[str, Any]]:
    """What a source of data gives, if it fits together; else UserError says what is expected.

    Images uint8 (samples, channels, height, width); labels int64 (samples), from 0, each of one of
    `facts["classes"]`; `facts["maximum"]` of a pixel.
    """
    found = f"{images.dtype} {[*images.shape]}, {labels.dtype} {[*labels.shape]}, facts {[*facts]}"
    found += f", labels {labels.unique().tolist()[:9]}"
    kinds = (images.ndim, str(images.dtype), str(labels.dtype)) == (4, "torch.uint8", "torch.int64")
    fits = kinds and labels.shape == images.shape[:1] and {"classes", "maximum"} <= facts.keys()
    if not fits or not {*labels.unique().tolist()} <= {*range(len(facts["classes"]))}:
        wanted = "uint8 [n, channels, height, width], int64 [n], facts with classes and maximum"
        raise UserError(f"the data set's source gives {found}: expected {wanted}, labels from 0")
    return images, labels, facts


def write_json(path: Path, value: Any) -> None:
    """The same bytes for the same value."""
    write_file(path, (json.dumps(value, indent=1, sort_keys=True) + "\n").encode())


def write_file(path: Path, data: bytes) -> None:
    """Write a file as a whole or not at all: another job may read it meanwhile."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".partial")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        os.chmod(temporary, 0o644)  # mkstemp makes it private
        os.replace(temporary, path)
    except BaseException:  # a full disk, Ctrl-C
        Path(temporary).unlink(missing_ok=True)
        raise
