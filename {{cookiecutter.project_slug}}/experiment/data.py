"""Prepare data sets, split them, and load their parts; samples.py says what a sample is.

`prepare` promises the same bytes every time: it checks the raw data and writes a manifest with
SHA-256 of every file, and the split. `load` promises data that match the manifest. To add a data
set: write a function like those in sources.py, name it in SOURCES, and add its settings in
config.py and configs/dataset/.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, NotRequired, TypedDict, cast

import torch
from safetensors import torch as safetensors

from experiment.config import ROOT, Config, ImageFolder
from experiment.samples import Augmentation, ImageFiles, Images
from experiment.sources import SOURCES
from repro.core.errors import UserError
from repro.core.files import Json, JsonObject, write_file, write_json
from repro.core.hashing import sha256_bytes, sha256_file
from repro.data.images import checked, refuse_what_is_no_image
from repro.data.manifest import read_json, refuse_changes, tree_digests
from repro.runs.conditions import code_files
from repro.training.sampling import split_indices

TENSORS = "data.safetensors"
MANIFEST = "manifest.json"


class Manifest(TypedDict):
    """What manifest.json says of prepared data; a source's facts are a part of it."""

    dataset: str
    classes: list[str]  # the names of the labels 0, 1, ...
    samples: int
    files: dict[str, str]  # SHA-256 by path
    shape: NotRequired[list[int]]  # of an image
    maximum: NotRequired[int]  # the largest value of a pixel
    source: NotRequired[str]  # where the raw files are from
    raw_sha256: NotRequired[list[str]]  # of the raw files
    test_samples: NotRequired[int]  # if the data set brings its own: the last ones
    code: NotRequired[list[Json]]  # what the prepared data may depend on


class Indices(NamedTuple):
    """Which samples belong to each part of the data."""

    test: list[int]
    validation: list[int]
    train: list[int]


def as_json(manifest: Manifest) -> JsonObject:
    """Return a manifest as the JSON object that it is."""
    return cast("JsonObject", manifest)


def prepare(config: Config) -> Manifest:
    """Write manifest, split and, for SOURCES, data to data_dir/<dataset>/; return the manifest."""
    if config.dataset.name == "image_folder":
        manifest = _manifest_of_folder(config)
    else:
        manifest = _prepare_source(config)
    folder = data_folder(config)
    indices = split(config, manifest)
    write_json(folder / f"split-{config.seeds.data_split}.json", indices._asdict())
    write_json(folder / MANIFEST, manifest)
    return manifest


def _manifest_of_folder(config: Config) -> Manifest:
    """Check the author's own images, which stay where they are, and return their manifest."""
    root = image_dir(config)
    files = tree_digests(root)
    refuse_what_is_no_image(root, list(files))
    return {
        "dataset": config.dataset.name,
        "classes": sorted({class_of(path) for path in files}),
        "samples": len(files),
        "files": files,
    }


def _prepare_source(config: Config) -> Manifest:
    """Write the data of a source as one file, and return their manifest."""
    name = config.dataset.name
    if name not in SOURCES:
        raise UserError(f"dataset={name}: expected it in SOURCES of experiment/sources.py")
    folder = data_folder(config)
    images, labels, facts = checked(*SOURCES[name](folder / "raw"))
    data = safetensors.save({"images": images, "labels": labels})
    write_file(folder / TENSORS, data)
    return {
        **facts,
        "dataset": name,
        "samples": len(labels),
        "shape": list(images.shape[1:]),
        "files": {TENSORS: sha256_bytes(data)},
        "code": _made_with(config),
    }


def read_manifest(config: Config) -> Manifest:
    """Read the manifest and compare the data with it; prepare the data if they are not there."""
    folder = data_folder(config)
    path = folder / MANIFEST
    if not path.is_file():
        return prepare(config)
    manifest = cast("Manifest", read_json(path, {"files", "samples", "classes"}))
    if config.dataset.name == "image_folder":
        root = image_dir(config)
        refuse_changes(root, manifest["files"], tree_digests(root), path)
        return manifest
    if manifest.get("code") != _made_with(config):
        return prepare(config)  # anew, for it takes seconds; the raw data are checked
    tensors = folder / TENSORS
    there = {TENSORS: sha256_file(tensors)} if tensors.is_file() else {}
    refuse_changes(folder, manifest["files"], there, path)
    return manifest


def split(config: Config, manifest: Manifest) -> Indices:
    """Return the indices of the samples of each part: a function of seeds.data_split."""
    settings = config.dataset
    own_test_samples = manifest.get("test_samples", 0)
    first_test_sample = manifest["samples"] - own_test_samples
    test_fraction = getattr(settings, "test_fraction", 0.0)
    fractions = (test_fraction, settings.validation_fraction, 1.0)  # the last part is the rest
    parts = Indices(*split_indices(first_test_sample, fractions, config.seeds.data_split))
    if not own_test_samples:
        return parts
    if parts.test:
        raise UserError(f"dataset={settings.name} brings test samples: leave test_fraction out")
    return parts._replace(test=list(range(first_test_sample, manifest["samples"])))


@dataclass(frozen=True)
class Splits:
    """The three parts of the data, and what a model has to know of them."""

    train: Images | ImageFiles
    validation: Images | ImageFiles
    test: Images | ImageFiles
    shape: tuple[int, int, int]  # channels, height, width
    classes: list[str]  # the names of the labels 0, 1, ...


# Makes a data set of the samples of these indices.
Select = Callable[[list[int], Augmentation], Images | ImageFiles]


def load(config: Config, manifest: Manifest) -> Splits:
    """Load the prepared data, which `read_manifest` has checked."""
    settings = config.dataset
    if isinstance(settings, ImageFolder):
        select = _image_files(config, settings, manifest)
    else:
        select = _images_in_memory(config, manifest)
    parts: dict[str, Images | ImageFiles] = {}
    for name, indices in split(config, manifest)._asdict().items():
        if not indices:
            remedy = "expected more samples, or other values of dataset.*_fraction"
            raise UserError(f"no {name} samples of {manifest['samples']}: {remedy}")
        augmentation = training_augmentation(config) if name == "train" else Augmentation()
        parts[name] = select(indices, augmentation)
    classes = manifest["classes"]
    trained = set(parts["train"].labels.tolist())
    if unseen := [name for label, name in enumerate(classes) if label not in trained]:
        print(f"warning: no training sample is of {', '.join(unseen)!a}", flush=True)
    image, _ = parts["test"][0]
    channels, height, width = image.shape
    shape = (channels, height, width)
    return Splits(**parts, shape=shape, classes=classes)


def training_augmentation(config: Config) -> Augmentation:
    """Return the augmentation of training samples.

    The settings of a data set may have neither `shift` nor `flip`.
    """
    settings = config.dataset
    return Augmentation(getattr(settings, "shift", 0), getattr(settings, "flip", False))


def _image_files(config: Config, settings: ImageFolder, manifest: Manifest) -> Select:
    """Return what makes a data set of some of the author's own image files."""
    root = image_dir(config)
    names = list(manifest["files"])
    label_of = {name: label for label, name in enumerate(manifest["classes"])}
    labels = torch.tensor([label_of[class_of(name)] for name in names])

    def select(indices: list[int], augmentation: Augmentation) -> ImageFiles:
        paths = [root / names[index] for index in indices]
        return ImageFiles(paths, labels[indices], settings.size, augmentation)

    return select


def _images_in_memory(config: Config, manifest: Manifest) -> Select:
    """Read the prepared images, and return what makes a data set of some of them."""
    folder = data_folder(config)
    data = (folder / TENSORS).read_bytes()
    # Checked as they were read: another job may prepare others at this moment.
    refuse_changes(folder, manifest["files"], {TENSORS: sha256_bytes(data)}, folder / MANIFEST)
    tensors = safetensors.load(data)
    images = tensors["images"]
    labels = tensors["labels"]
    maximum = manifest["maximum"]

    def select(indices: list[int], augmentation: Augmentation) -> Images:
        return Images(images[indices], labels[indices], maximum, augmentation)

    return select


def class_of(path: str) -> str:
    """Return the class of an image: the first folder of its path in image_dir."""
    return path.partition("/")[0]


def _made_with(config: Config) -> list[Json]:
    """Return what prepared data may depend on: when it changes, they are prepared anew."""
    code = [ROOT / name for name in code_files(ROOT) if name.endswith(".py")]
    return [config.dataset.model_dump(mode="json"), *map(sha256_file, code)]


def data_folder(config: Config) -> Path:
    """Return the folder of the prepared data.

    A relative data_dir counts from the project's folder, wherever the command is started.
    """
    return ROOT / config.data_dir / config.dataset.name


def image_dir(config: Config) -> Path:
    """Return the folder of the author's own images, for dataset=image_folder."""
    root = ROOT / str(config.image_dir)
    if not root.is_dir():
        raise UserError(f"image_dir={root}: no such folder; expected one with a folder per class")
    return root
