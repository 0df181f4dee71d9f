"""Data sets: how raw data are kept and split, and what a sample is.

`prepare` promises the same bytes every time: it checks the raw data and writes a manifest with
SHA-256 of every file, and the split. `load` promises data that match the manifest. To add a data
set: write a function like those in sources.py, name it in SOURCES, and add its settings in
config.py and configs/dataset/.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from safetensors import torch as safetensors
from torch import Tensor
from torch.nn import functional
from torch.utils.data import Dataset

from experiment.config import ROOT, Config
from experiment.sources import SOURCES
from repro.core.errors import UserError
from repro.core.files import write_file, write_json
from repro.core.hashing import sha256_bytes, sha256_file
from repro.data.images import checked, refuse_what_is_no_image
from repro.data.manifest import read_json, refuse_changes, tree_digests
from repro.runs.conditions import code_files
from repro.training.sampling import split_indices

TENSORS, MANIFEST = "data.safetensors", "manifest.json"

Sample = tuple[Tensor, Tensor]


def prepare(config: Config) -> dict[str, Any]:
    """Write manifest, split and, for SOURCES, data to data_dir/<dataset>/; return the manifest."""
    folder, name = data_folder(config), config.dataset.name
    if name == "image_folder":
        files = tree_digests(image_dir(config))
        refuse_what_is_no_image(image_dir(config), list(files))
        manifest: dict[str, Any] = {
            "classes": sorted({path.partition("/")[0] for path in files}),
            "samples": len(files),
            "files": files,
        }
    else:
        if name not in SOURCES:
            raise UserError(f"dataset={name}: expected it in SOURCES of experiment/sources.py")
        images, labels, facts = checked(*SOURCES[name](folder / "raw"))
        data = safetensors.save({"images": images, "labels": labels})
        manifest = {
            **facts,
            "samples": len(labels),
            "shape": list(images.shape[1:]),
            "files": {TENSORS: sha256_bytes(data)},
            "code": _made_with(config),
        }
        write_file(folder / TENSORS, data)
    manifest["dataset"] = name
    write_json(folder / f"split-{config.seeds.data_split}.json", split(config, manifest))
    write_json(folder / MANIFEST, manifest)
    return manifest


def read_manifest(config: Config) -> dict[str, Any]:
    """The manifest, after comparing the data with it; prepares what is not there."""
    path = data_folder(config) / MANIFEST
    if not path.is_file():
        return prepare(config)
    manifest = read_json(path, {"files", "samples", "classes"})
    recorded = manifest["files"]
    if config.dataset.name == "image_folder":
        where, found = image_dir(config), tree_digests(image_dir(config))
    else:
        if manifest.get("code") != _made_with(config):
            return prepare(config)  # anew, for it takes seconds; the raw data are checked
        where, file = path.parent, path.parent / TENSORS
        found = {TENSORS: sha256_file(file)} if file.is_file() else {}
    refuse_changes(where, recorded, found, path)
    return manifest


def split(config: Config, manifest: dict[str, Any]) -> dict[str, list[int]]:
    """Indices of the training, validation and test samples: a function of seeds.data_split."""
    settings, samples = config.dataset, manifest["samples"] - manifest.get("test_samples", 0)
    # The last part is the rest.
    fractions = (getattr(settings, "test_fraction", 0.0), settings.validation_fraction, 1.0)
    parts = split_indices(samples, fractions, config.seeds.data_split)
    named = dict(zip(("test", "validation", "train"), parts, strict=True))
    if named["test"] and "test_samples" in manifest:
        raise UserError(f"dataset={settings.name} brings test samples: leave test_fraction out")
    return {**named, "test": named["test"] or list(range(samples, manifest["samples"]))}


class Images(Dataset[Sample]):
    """Images in memory, uint8; a sample is float32 in 0 to 1 with its label."""

    def __init__(
        self, images: Tensor, labels: Tensor, maximum: int, shift: int, flip: bool
    ) -> None:
        self.padded = functional.pad(images, (shift,) * 4)
        self.labels, self.maximum, self.shift, self.flip = labels, maximum, shift, flip

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Sample:
        image = augment(self.padded[index], self.shift, self.flip)
        return image.float() / self.maximum, self.labels[index]


class ImageFiles(Dataset[Sample]):
    """Images read when they are needed, upright, as RGB of size x size pixels, with labels."""

    def __init__(
        self, paths: list[Path], labels: Tensor, size: int, shift: int, flip: bool
    ) -> None:
        self.paths, self.labels, self.size = paths, labels, size
        self.shift, self.flip = shift, flip

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Sample:
        with Image.open(self.paths[index]) as file:
            ImageOps.exif_transpose(file, in_place=True)  # as its camera was held
            # Pillow resizes in integers: the same bits on every CPU.
            size = self.size, self.size
            pixels = np.array(file.convert("RGB").resize(size, Image.Resampling.BILINEAR))
        image = functional.pad(torch.from_numpy(pixels).permute(2, 0, 1), (self.shift,) * 4)
        return augment(image, self.shift, self.flip).float() / 255, self.labels[index]


def augment(image: Tensor, shift: int, flip: bool) -> Tensor:
    """Cut `shift` pixels off each side, moved at random, and mirror half of the images.

    Draws from torch's global generator, which is seeded for each sample
    (repro/training/sampling.py).
    """
    if shift:
        height, width = image.shape[-2] - 2 * shift, image.shape[-1] - 2 * shift
        y, x = torch.randint(2 * shift + 1, (2,)).tolist()
        image = image[:, y : y + height, x : x + width]
    if flip and torch.rand(()) < 0.5:
        image = image.flip(-1)
    return image


@dataclass(frozen=True)
class Splits:
    train: Images | ImageFiles
    validation: Images | ImageFiles
    test: Images | ImageFiles
    shape: tuple[int, int, int]  # channels, height, width
    classes: list[str]  # the names of the labels 0, 1, ...
    manifest: dict[str, Any]


def load(config: Config) -> Splits:
    """The prepared data, checked against the manifest; only training samples are augmented."""
    manifest, settings, folder = read_manifest(config), config.dataset, data_folder(config)
    if settings.name == "image_folder":
        root, files = image_dir(config), list(manifest["files"])
        place = {name: label for label, name in enumerate(manifest["classes"])}
        labels = torch.tensor([place[file.partition("/")[0]] for file in files])
    else:
        data = (folder / TENSORS).read_bytes()  # checked as read: another job may prepare others
        refuse_changes(folder, manifest["files"], {TENSORS: sha256_bytes(data)}, folder / MANIFEST)
        tensors = safetensors.load(data)
        labels = tensors["labels"]
    parts: dict[str, Images | ImageFiles] = {}
    for name, indices in split(config, manifest).items():
        if not indices:
            parting = "expected more samples, or other values of dataset.*_fraction"
            raise UserError(f"no {name} samples of {manifest['samples']}: {parting}")
        train, own = name == "train", labels[indices]
        how = getattr(settings, "shift", 0) * train, train and getattr(settings, "flip", False)
        if settings.name == "image_folder":
            parts[name] = ImageFiles([root / files[i] for i in indices], own, settings.size, *how)
        else:
            parts[name] = Images(tensors["images"][indices], own, manifest["maximum"], *how)
    seen, classes = set(parts["train"].labels.tolist()), manifest["classes"]
    if unseen := [name for label, name in enumerate(classes) if label not in seen]:
        print(f"warning: no training sample is of {', '.join(unseen)!a}", flush=True)
    channels, height, width = parts["test"][0][0].shape
    return Splits(**parts, shape=(channels, height, width), classes=classes, manifest=manifest)


def _made_with(config: Config) -> list[Any]:
    """What prepared data may depend on: when it changes, they are prepared anew."""
    code = [ROOT / name for name in code_files(ROOT) if name.endswith(".py")]
    return [config.dataset.model_dump(mode="json"), *map(sha256_file, code)]


def data_folder(config: Config) -> Path:
    """A relative data_dir counts from the project's folder, wherever the command is started."""
    return ROOT / config.data_dir / config.dataset.name


def image_dir(config: Config) -> Path:
    """The folder of the author's own images, for dataset=image_folder."""
    root = ROOT / str(config.image_dir)
    if not root.is_dir():
        raise UserError(f"image_dir={root}: no such folder; expected one with a folder per class")
    return root
