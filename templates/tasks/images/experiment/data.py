"""Prepare data sets, split them, and load their parts; samples.py says what a sample is.

`prepare` gets the raw data, checks them, and returns what is known of them; `datasets` reads what
was prepared. The kit calls both (repro/data/prepared.py): it writes the manifest with the SHA-256
of every file, and names files that were changed. To add a data set: write a function like those in
sources.py, name it in SOURCES, and add its settings in config.py and configs/dataset/.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import torch as safetensors

from experiment.config import ROOT, Config, Dataset, ImageFolder
from experiment.images import checked, refuse_what_is_no_image
from experiment.samples import Augmentation, ImageFiles, Images
from experiment.sources import SOURCES
from repro.core.errors import UserError
from repro.core.files import JsonObject, write_file
from repro.data.manifest import files_below
from repro.data.prepared import Folders
from repro.training.sampling import split_indices
from repro.training.tensors import load_tensors

TENSORS = "data.safetensors"
# Makes a data set of the samples of these indices.
Select = Callable[[list[int], Augmentation], Images | ImageFiles]


class Indices(NamedTuple):
    """Which samples belong to each part of the data."""

    test: list[int]
    validation: list[int]
    train: list[int]


def own_files(config: Config) -> Path | None:
    """Return the folder of the author's own images, which stay where they are."""
    if config.dataset.name != "image_folder":
        return None
    root = ROOT / str(config.image_dir)
    if not root.is_dir():
        raise UserError(f"image_dir={root}: no such folder; expected one with a folder per class")
    return root


def prepare(settings: Dataset, folders: Folders) -> JsonObject:
    """Get the raw data and write what is read later; return what is to be known of them.

    The facts have `classes` (the names of the labels 0, 1, ...), `samples`, and `shape`, that of an
    image: channels, height, width.
    """
    if isinstance(settings, ImageFolder):
        assert folders.own
        names = files_below(folders.own)
        refuse_what_is_no_image(folders.own, names)
        classes: JsonObject = {"classes": [*sorted({class_of(path) for path in names})]}
        return {**classes, "samples": len(names), "shape": [3, settings.size, settings.size]}
    if settings.name not in SOURCES:
        raise UserError(f"dataset={settings.name}: expected it in SOURCES of experiment/sources.py")
    images, labels, facts = checked(*SOURCES[settings.name](folders.raw))
    data = safetensors.save({"images": images, "labels": labels})
    write_file(folders.out / TENSORS, data)
    return {**facts, "samples": len(labels), "shape": [*images.shape[1:]]}  # type: ignore[dict-item]


def datasets(config: Config, folder: Path, facts: Any) -> dict[str, Images | ImageFiles]:
    """Load the prepared data as train, validation and test samples."""
    settings = config.dataset
    if isinstance(settings, ImageFolder):
        select = _image_files(folder, settings, facts["classes"])
    else:
        select = _images_in_memory(folder, facts["maximum"])
    parts: dict[str, Images | ImageFiles] = {}
    for name, indices in split(config, facts)._asdict().items():
        if not indices:
            remedy = "expected more samples, or other values of dataset.*_fraction"
            raise UserError(f"no {name} samples of {facts['samples']}: {remedy}")
        augmentation = training_augmentation(config) if name == "train" else Augmentation()
        parts[name] = select(indices, augmentation)
    trained = set(parts["train"].labels.tolist())
    if unseen := [name for label, name in enumerate(facts["classes"]) if label not in trained]:
        print(f"warning: no training sample is of {', '.join(unseen)!a}", flush=True)
    return parts


def split(config: Config, facts: Any) -> Indices:
    """Return the indices of the samples of each part: a function of seeds.data_split."""
    settings = config.dataset
    samples = facts["samples"]
    own_test_samples = facts.get("test_samples", 0)
    first_test_sample = samples - own_test_samples
    test_fraction = getattr(settings, "test_fraction", 0.0)
    fractions = (test_fraction, settings.validation_fraction, 1.0)  # the last part is the rest
    parts = Indices(*split_indices(first_test_sample, fractions, config.seeds.data_split))
    if not own_test_samples:
        return parts
    if parts.test:
        raise UserError(f"dataset={settings.name} brings test samples: leave test_fraction out")
    return parts._replace(test=list(range(first_test_sample, samples)))


def training_augmentation(config: Config) -> Augmentation:
    """Return the augmentation of training samples.

    The settings of a data set may have neither `shift` nor `flip`.
    """
    settings = config.dataset
    return Augmentation(getattr(settings, "shift", 0), getattr(settings, "flip", False))


def _image_files(folder: Path, settings: ImageFolder, classes: list[str]) -> Select:
    """Return what makes a data set of some of the author's own image files."""
    names = files_below(folder)
    label_of = {name: label for label, name in enumerate(classes)}
    labels = torch.tensor([label_of[class_of(name)] for name in names])

    def select(indices: list[int], augmentation: Augmentation) -> ImageFiles:
        paths = [folder / names[index] for index in indices]
        return ImageFiles(paths, labels[indices], settings.size, augmentation)

    return select


def _images_in_memory(folder: Path, maximum: int) -> Select:
    """Read the prepared images, and return what makes a data set of some of them."""
    tensors = load_tensors(folder / TENSORS, "images", "labels")
    images = tensors["images"]
    labels = tensors["labels"]

    def select(indices: list[int], augmentation: Augmentation) -> Images:
        return Images(images[indices], labels[indices], maximum, augmentation)

    return select


def class_of(path: str) -> str:
    """Return the class of an image: the first folder of its path in image_dir."""
    return path.partition("/")[0]
