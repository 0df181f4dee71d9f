"""Get the raw data of each data set, each file known by its SHA-256.

A source takes a folder for raw files and returns images (uint8: samples, channels, height, width),
labels (int64) and facts for the manifest. Formats that need pickle are avoided: torchvision's
CIFAR10 reads one.
"""

import tarfile
from importlib.util import find_spec
from pathlib import Path
from typing import NotRequired, TypedDict

import numpy as np
import torch
from torch import Tensor

from experiment.images import read_idx
from repro.core.errors import UserError
from repro.core.hashing import sha256_file
from repro.data.download import fetch


class Facts(TypedDict):
    """What a source tells of its data; it becomes a part of the manifest."""

    classes: list[str]  # the names of the labels 0, 1, ...
    maximum: int  # the largest value of a pixel
    source: NotRequired[str]  # where the raw files are from
    raw_sha256: NotRequired[list[str]]  # of the raw files
    license: NotRequired[str]  # of the data, by its name at spdx.org; left out where none is stated
    test_samples: NotRequired[int]  # if the data set brings its own: the last ones


Raw = tuple[Tensor, Tensor, Facts]  # images, labels, facts


def digits(folder: Path) -> Raw:
    """Read 8 x 8 images of 1,797 handwritten digits, values 0 to 16, from scikit-learn's wheel.

    https://archive.ics.uci.edu/dataset/80.
    """
    package = find_spec("sklearn")  # not imported: that takes a second
    code = Path(package.origin if package and package.origin else "").parent
    raw = (code / "datasets" / "data" / "digits.csv.gz").resolve()
    expected = "09f66e6debdee2cd2b5ae59e0d6abbb73fc2b0e0185d2e1957e9ebb51e23aa22"
    there = sha256_file(raw) if raw.is_file() else "no file"
    if there != expected:
        raise UserError(f"{raw}: SHA-256 {there}, expected {expected}: install scikit-learn again")
    table = torch.from_numpy(np.loadtxt(raw, delimiter=",").astype(np.int64))
    facts: Facts = {
        "source": "scikit-learn's wheel, datasets/data/digits.csv.gz",
        "raw_sha256": [expected],
        "license": "CC-BY-4.0",
        "maximum": 16,
        "classes": [str(digit) for digit in range(10)],
    }
    return table[:, :64].to(torch.uint8).reshape(-1, 1, 8, 8), table[:, 64].contiguous(), facts


FASHION_MNIST = "https://fashion-mnist.s3.eu-central-1.amazonaws.com/"
FASHION_MNIST_FILES = {
    "train-images-idx3-ubyte": "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
    "train-labels-idx1-ubyte": "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
    "t10k-images-idx3-ubyte": "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
    "t10k-labels-idx1-ubyte": "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
}


def fashion_mnist(folder: Path) -> Raw:
    """Get 28 x 28 grey images of 70,000 pieces of clothing, the last 10,000 for testing.

    https://github.com/zalandoresearch/fashion-mnist.
    """
    paths = [
        fetch(f"{FASHION_MNIST}{name}.gz", digest, folder / f"{name}.gz")
        for name, digest in FASHION_MNIST_FILES.items()
    ]
    images, labels, test_images, test_labels = map(read_idx, paths)
    names = "T-shirt/top Trouser Pullover Dress Coat Sandal Shirt Sneaker Bag Ankle-boot"
    facts: Facts = {
        "source": FASHION_MNIST,
        "raw_sha256": list(FASHION_MNIST_FILES.values()),
        "license": "MIT",
        "maximum": 255,
        "classes": names.split(),
        "test_samples": len(test_labels),
    }
    return (
        torch.cat([images, test_images])[:, None],
        torch.cat([labels, test_labels]).long(),
        facts,
    )


CIFAR10 = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
CIFAR10_SHA256 = "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"


def cifar10(folder: Path) -> Raw:
    """Get 32 x 32 colour images of 60,000 things, the last 10,000 for testing.

    https://www.cs.toronto.edu/~kriz/cifar.html, the binary version: a byte of label and 3,072 of
    image per sample.
    """
    path = fetch(CIFAR10, CIFAR10_SHA256, folder / "cifar-10-binary.tar.gz")
    contents = {}
    with tarfile.open(path) as archive:
        for member in archive.getmembers():
            if file := archive.extractfile(member):  # None for a folder
                contents[Path(member.name).name] = file.read()
    names = [*(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin"]
    batches = [np.frombuffer(contents[name], np.uint8).reshape(-1, 3073) for name in names]
    table = torch.from_numpy(np.concatenate(batches))
    facts: Facts = {
        "source": CIFAR10,
        "raw_sha256": [CIFAR10_SHA256],
        "maximum": 255,
        "classes": contents["batches.meta.txt"].decode().split(),
        "test_samples": len(batches[-1]),
    }
    return table[:, 1:].reshape(-1, 3, 32, 32).contiguous(), table[:, 0].long(), facts


SOURCES = {"digits": digits, "fashion_mnist": fashion_mnist, "cifar10": cifar10}
