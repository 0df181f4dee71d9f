"""Prepare a text, split its files, and cut it into windows of characters.

`prepare` gets the raw data, checks them, and returns what is known of them; `datasets` reads what
was prepared. The kit calls both (repro/data/prepared.py): it writes the manifest with the SHA-256
of every file, and names files that were changed. To add a text: write a function like `networkx`,
name it in SOURCES, and add its settings in config.py and configs/dataset/.
"""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import torch as safetensors
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset

from experiment.config import Config, Dataset
from repro.core.errors import UserError
from repro.core.files import JsonObject, write_file
from repro.core.hashing import sha256_file, sha256_json
from repro.data.manifest import files_below
from repro.data.prepared import Folders
from repro.training.sampling import split_indices
from repro.training.tensors import load_tensors

TENSORS = "data.safetensors"
NETWORKX_SHA256 = "b1d989057baa168d1663fdcb085678371c04e58432a2ebb4b5cc142b5f630928"


class Windows(TorchDataset[Tensor]):
    """A text in windows, one after the other; a sample is int64, of `context` + 1 characters.

    Each window begins with the last character of the one before, so every character but the first
    is predicted once. The last characters, too few for a window, are left out.
    """

    def __init__(self, text: Tensor, context: int) -> None:
        self.text = text
        self.context = context

    def __len__(self) -> int:
        return max(0, len(self.text) - 1) // self.context

    def __getitem__(self, index: int) -> Tensor:
        start = index * self.context
        return self.text[start : start + self.context + 1].long()


class RandomWindows(TorchDataset[Tensor]):
    """A text in windows of `context` + 1 characters, one for each place where it may begin.

    The kit asks `batch` for the samples of a step, and has seeded the generators for that step.
    """

    def __init__(self, text: Tensor, context: int, batch_size: int) -> None:
        self.text = text
        self.context = context
        self.batch_size = batch_size

    def __len__(self) -> int:
        return max(0, len(self.text) - self.context)

    def __getitem__(self, index: int) -> Tensor:
        return self.text[index : index + self.context + 1].long()

    def batch(self, seed: int, step: int) -> list[int]:
        """Draw where the windows of a step begin."""
        starts: list[int] = torch.randint(len(self), (self.batch_size,)).tolist()
        return starts


def networkx() -> tuple[list[str], JsonObject]:
    """Read the Python files of networkx, its tests left out: 288 files, 4.0 MB.

    networkx is a package that torch needs. One SHA-256 stands for the paths and contents of all.
    """
    package = find_spec("networkx")  # not imported: that takes half a second
    folder = Path(package.origin if package and package.origin else "").parent
    names = [name for name in files_below(folder) if name.endswith(".py")]
    names = [name for name in names if "tests" not in Path(name).parts]
    there = sha256_json({name: sha256_file(folder / name) for name in names})
    if there != NETWORKX_SHA256:
        raise UserError(
            f"{folder}: {len(names)} Python files of the SHA-256 {there}, expected "
            f"{NETWORKX_SHA256}: install the version of networkx that requirements.lock names"
        )
    facts: JsonObject = {
        "source": f"networkx's wheel, {len(names)} Python files",
        "raw_sha256": [there],
        "license": "BSD-3-Clause",
    }
    return [(folder / name).read_text(encoding="utf-8") for name in names], facts


# A source returns the files' texts, always in the same order, and facts for the manifest.
SOURCES = {"networkx": networkx}


def prepare(settings: Dataset, folders: Folders) -> JsonObject:
    """Get the files and write what is read later; return what is to be known of them.

    The facts have `vocabulary` (the characters 0, 1, ...) and `samples` (the number of files). A
    character that is not ASCII is taken for a question mark.
    """
    texts, facts = SOURCES[settings.name]()
    codes = np.frombuffer("".join(texts).encode("ascii", errors="replace"), dtype=np.uint8)
    vocabulary, characters = np.unique(codes, return_inverse=True)
    tensors = {
        "characters": torch.from_numpy(characters.astype(np.uint8)),
        "lengths": torch.tensor([len(text) for text in texts]),
    }
    write_file(folders.out / TENSORS, safetensors.save(tensors))
    return {**facts, "samples": len(texts), "vocabulary": [chr(code) for code in vocabulary]}


def datasets(config: Config, folder: Path, facts: Any) -> dict[str, Windows | RandomWindows]:
    """Load the text as train, validation and test samples: by FILE, with seeds.data_split.

    Windows of one file in two parts would share lines, and the test would measure what was learnt
    by heart.
    """
    tensors = load_tensors(folder / TENSORS, "characters", "lengths")
    files = tensors["characters"].split(tensors["lengths"].tolist())
    # The last part is the rest.
    fractions = (config.dataset.test_fraction, config.dataset.validation_fraction, 1.0)
    parts = split_indices(len(files), fractions, config.seeds.data_split)
    nothing = torch.empty(0, dtype=torch.uint8)  # a part may have no file: the kit says so
    test, validation, train = (torch.cat([nothing, *(files[i] for i in part)]) for part in parts)
    context = config.model.context
    return {
        "train": RandomWindows(train, context, config.training.batch_size),
        "validation": Windows(validation, context),
        "test": Windows(test, context),
    }
