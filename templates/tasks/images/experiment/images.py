"""Check image data sets: folders of image files, arrays of pixels, the format of MNIST."""

import gzip
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from repro.core.errors import UserError, refuse
from repro.core.progress import progress
from repro.core.stand_ins import faults_of_stand_ins, stand_ins

Facts = TypeVar("Facts", bound=Mapping[str, object])  # of the author's own

# Folders of these names are parts of a data set, not classes.
_PARTS = {"train", "training", "val", "valid", "validation", "dev", "eval", "test", "testing"}

_BROKEN = (OSError, ValueError, SyntaxError, RuntimeError)  # by Pillow's readers


def refuse_what_is_no_image(root: Path, names: list[str]) -> None:
    """Name all files that are no whole images or lie outside a class's folder."""
    if not names:
        raise UserError(f"{root}: no files; expected a folder of images per class")
    no_data = stand_ins(root, names)  # such as pointers of git LFS
    faults = faults_of_stand_ins(root, no_data)
    in_their_place = [name for name in names if "/" in name or name not in no_data]
    faults += _faults_of_folders(root, in_their_place)
    names = [name for name in names if name not in no_data]
    with progress(f"reading {len(names)} images", len(names)) as advance:
        for name in names:
            faults += [f"{root / name}: {fault}" for fault in _faults_of_image(root / name)]
            advance(1)
    refuse(faults)


def _faults_of_folders(root: Path, names: list[str]) -> list[str]:
    """Return a line for each file outside of a class, and for each folder that is no class."""
    faults = [f"{root / name}: not in the folder of a class" for name in names if "/" not in name]
    classes = {name.partition("/")[0] for name in names if "/" in name}
    if len(classes) < 2 or {name.lower() for name in classes} <= _PARTS:
        there = ", ".join(sorted(classes)) or "no folder with files"
        wanted = "a folder for each of two classes or more: the split is made here"
        faults.append(f"{root}: found {there}; expected {wanted}")
    folders = {path.name for path in root.iterdir() if path.is_dir() and path.name[0] != "."}
    return faults + [
        f"{root / name}: no files in it: delete it?" for name in sorted(folders - classes)
    ]


def _faults_of_image(path: Path) -> list[str]:
    """Say what keeps a file from being read as one image of 8 bits per channel."""
    from PIL import Image  # only here: other data sets need no Pillow

    faults = []
    try:
        with Image.open(path) as image:
            layout = str(getattr(image, "tile", ""))  # of the file; gone when it is read
            if image.format == "TIFF" and getattr(image, "n_frames", 1) > 1:
                faults.append("several pages, expected a file for each")
            image.convert("RGB")
            # Such values would be cut off at white, or lose their lower half.
            if image.mode.startswith(("I", "F")) or re.search(";16[BLN]", layout):
                faults.append("more than 8 bits per channel: convert it")
    except (*_BROKEN, Image.DecompressionBombError) as error:
        faults.append(f"no image that can be read ({error}): repair it")
    return faults


def checked(images: Tensor, labels: Tensor, facts: Facts) -> tuple[Tensor, Tensor, Facts]:
    """Return what a source of data gives if it fits together; else UserError says what is expected.

    Images uint8 (samples, channels, height, width); labels int64 (samples), from 0, each of one of
    `facts["classes"]`; `facts["maximum"]` of a pixel.
    """
    there = labels.unique().tolist()
    classes = facts.get("classes")
    fits = (
        images.ndim == 4
        and images.dtype == torch.uint8
        and labels.dtype == torch.int64
        and labels.shape == images.shape[:1]
        and "maximum" in facts
        and isinstance(classes, list | tuple)
        and set(there) <= set(range(len(classes)))
    )
    if not fits:
        found = f"{images.dtype} {[*images.shape]}, {labels.dtype} {[*labels.shape]}"
        found += f", facts {[*facts]}, labels {there[:9]}"
        wanted = "uint8 [n, channels, height, width], int64 [n], facts with classes and maximum"
        raise UserError(f"the data set's source gives {found}: expected {wanted}, labels from 0")
    return images, labels, facts


def read_idx(path: Path) -> Tensor:
    """Read an array in the format of MNIST: two zeros, type 8 (uint8), dimensions, sizes, bytes."""
    data = gzip.decompress(path.read_bytes())
    sizes = np.frombuffer(data, ">u4", count=data[3], offset=4).astype(int)
    values = np.frombuffer(data, np.uint8, offset=4 + 4 * data[3])
    return torch.from_numpy(values.reshape(sizes).copy())
