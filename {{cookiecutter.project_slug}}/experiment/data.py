"""Data sets: where the raw data come from, how they are split, what a sample is.

`prepare` promises the same bytes every time: it checks the SHA-256 of the raw data and writes them
in one simple format, with a manifest and the split. `load` promises data that match the manifest.
To add a data set: write a function like `_digits`, name it in SOURCES, and add its settings in
config.py and configs/dataset/.
"""

import json
import os
import tempfile
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save
from torch import Tensor
from torch.nn import functional
from torch.utils.data import Dataset

from experiment.config import ROOT, Config
from repro.command import UserError
from repro.hashing import sha256_bytes, sha256_file
from repro.sampling import split_indices

TENSORS = "data.safetensors"


def _digits() -> tuple[Tensor, Tensor, dict[str, Any]]:
    """8 x 8 images of 1,797 handwritten digits, values 0 to 16, from scikit-learn's wheel.

    https://archive.ics.uci.edu/dataset/80. Returns images uint8 (n, 1, 8, 8), labels int64 (n) and
    facts for the manifest.
    """
    package = find_spec("sklearn")  # not imported: that takes a second
    raw = Path(package.origin if package and package.origin else "") / "../datasets/data"
    raw = (raw / "digits.csv.gz").resolve()
    expected = "09f66e6debdee2cd2b5ae59e0d6abbb73fc2b0e0185d2e1957e9ebb51e23aa22"
    found = sha256_file(raw) if raw.is_file() else "no file"
    if found != expected:
        raise UserError(f"{raw}: SHA-256 {found}, expected {expected}: install scikit-learn again")
    table = torch.from_numpy(np.loadtxt(raw, delimiter=",").astype(np.int64))
    facts = {
        "source": "scikit-learn: sklearn/datasets/data/digits.csv.gz",
        "raw_sha256": expected,
        "maximum": 16,
        "classes": [str(digit) for digit in range(10)],
    }
    return table[:, :64].to(torch.uint8).reshape(-1, 1, 8, 8), table[:, 64].contiguous(), facts


SOURCES = {"digits": _digits}


def prepare(config: Config) -> dict[str, Any]:
    """Write data, manifest and split to data_dir/<dataset>/ and return the manifest."""
    folder, name = data_folder(config), config.dataset.name
    images, labels, facts = SOURCES[name]()
    data = save({"images": images, "labels": labels})
    manifest = {
        "dataset": name,
        **facts,
        "samples": len(labels),
        "shape": list(images.shape[1:]),
        "files": {TENSORS: sha256_bytes(data)},
        "code": sha256_file(Path(__file__)),
    }
    _write(folder / TENSORS, data)
    _write(folder / f"split-{config.seeds.data_split}.json", _json(split(config, len(labels))))
    _write(folder / "manifest.json", _json(manifest))
    return manifest


def read_manifest(config: Config) -> dict[str, Any]:
    """The manifest, after comparing the data with it; prepares what is not there."""
    path = data_folder(config) / "manifest.json"
    if not path.is_file():
        return prepare(config)
    try:
        manifest: dict[str, Any] = json.loads(path.read_text())
        files = manifest["files"].items()
        code = manifest["code"]
        manifest["samples"], manifest["shape"], manifest["maximum"], manifest["classes"]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is damaged: make data writes it anew") from error
    if code != sha256_file(Path(__file__)):
        return prepare(config)  # the code that made the data was changed
    for name, expected in files:
        file = path.parent / name
        found = sha256_file(file) if file.is_file() else "no file"
        if found != expected:
            raise UserError(
                f"{file}: SHA-256 {found}, the manifest says {expected}: make data writes it anew"
            )
    return manifest


def split(config: Config, samples: int) -> dict[str, list[int]]:
    """Indices of the training, validation and test samples: a function of seeds.data_split."""
    fractions = {
        "test": config.dataset.test_fraction,
        "validation": config.dataset.validation_fraction,
        "train": 1.0,  # the rest
    }
    parts = split_indices(samples, list(fractions.values()), config.seeds.data_split)
    return dict(zip(fractions, parts, strict=True))


class Images(Dataset[tuple[Tensor, Tensor]]):
    """Images in memory, float32 in 0 to 1, and labels; moved at random by up to `shift` pixels."""

    def __init__(self, images: Tensor, labels: Tensor, maximum: int, shift: int = 0) -> None:
        self.size = images.shape[-2:]
        self.padded = functional.pad(images.float() / maximum, (shift, shift, shift, shift))
        self.labels, self.shift = labels, shift

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Image (channels, height, width) and label; draws from torch's global generator."""
        image, (height, width) = self.padded[index], self.size
        if self.shift:
            y, x = torch.randint(2 * self.shift + 1, (2,)).tolist()
            image = image[:, y : y + height, x : x + width]
        return image, self.labels[index]


@dataclass(frozen=True)
class Splits:
    train: Images
    validation: Images
    test: Images
    shape: tuple[int, int, int]  # channels, height, width
    classes: list[str]


def load(config: Config) -> Splits:
    """The prepared data, checked against the manifest."""
    manifest = read_manifest(config)
    tensors = load_file(data_folder(config) / TENSORS)
    parts = {}
    for name, indices in split(config, manifest["samples"]).items():
        if not indices:
            raise UserError(f"no {name} samples of {manifest['samples']}: raise dataset.*_fraction")
        shift = config.dataset.shift if name == "train" else 0
        images, labels = tensors["images"][indices], tensors["labels"][indices]
        parts[name] = Images(images, labels, manifest["maximum"], shift)
    return Splits(**parts, shape=tuple(manifest["shape"]), classes=manifest["classes"])


def data_folder(config: Config) -> Path:
    """A relative data_dir counts from the project's folder, wherever the command is started."""
    return ROOT / config.data_dir / config.dataset.name


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=1, sort_keys=True) + "\n").encode()


def _write(path: Path, data: bytes) -> None:
    """Write a file as a whole or not at all: another job may read it meanwhile."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".partial")
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
    os.chmod(temporary, 0o644)  # mkstemp makes it private
    os.replace(temporary, path)
