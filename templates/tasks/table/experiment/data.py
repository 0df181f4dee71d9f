"""Prepare a table, split its rows, and load the parts.

`prepare` gets the raw data, checks them, and returns what is known of them; `datasets` reads what
was prepared. The kit calls both (repro/data/prepared.py): it writes the manifest with the SHA-256
of every file, and names files that were changed. To add a table: write a function like `diabetes`,
name it in SOURCES, and add its settings in config.py and configs/dataset/.
"""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset

from experiment.config import Config, Dataset
from repro.core.errors import UserError
from repro.core.files import JsonObject, write_file
from repro.core.hashing import sha256_file
from repro.data.prepared import Folders
from repro.training.sampling import split_indices

TABLE = "table.csv"
Sample = tuple[Tensor, Tensor]  # a row's inputs, its target
Rows = npt.NDArray[np.float64]


class Table(TorchDataset[Sample]):
    """Rows of a table: inputs (rows, columns) and targets (rows), float32, in their own units."""

    def __init__(self, inputs: Tensor, targets: Tensor) -> None:
        self.inputs = inputs
        self.targets = targets

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> Sample:
        return self.inputs[index], self.targets[index]


DIABETES_FILES = {
    "diabetes_data_raw.csv.gz": "7fc0ded571454b1982210d3bb43f0aca44eae01a0b8654a3b24022bdb6b38009",
    "diabetes_target.csv.gz": "8e53f65eb811df43c206f3534bb3af0e5fed213bc37ed6ba36310157d6023803",
}


def diabetes() -> tuple[Rows, list[str], JsonObject]:
    """Read ten measurements of each of 442 patients with diabetes, from scikit-learn's wheel.

    The target measures how far the disease had progressed a year later, from 25 to 346.
    https://www4.stat.ncsu.edu/~boos/var.select/diabetes.html.
    """
    package = find_spec("sklearn")  # not imported: that takes a second
    folder = Path(package.origin if package and package.origin else "").parent / "datasets/data"
    paths = [checked(folder / name, digest) for name, digest in DIABETES_FILES.items()]
    inputs, targets = (np.loadtxt(path) for path in paths)
    facts: JsonObject = {
        "source": f"scikit-learn's wheel, datasets/data: {', '.join(DIABETES_FILES)}",
        "raw_sha256": [*DIABETES_FILES.values()],
    }
    names = ["age", "sex", "bmi", "bp", "s1", "s2", "s3", "s4", "s5", "s6", "progression"]
    return np.column_stack([inputs, targets]), names, facts


def checked(path: Path, expected: str) -> Path:
    """Return the path of a file of a wheel; UserError if it has another SHA-256."""
    there = sha256_file(path) if path.is_file() else "no file"
    if there != expected:
        raise UserError(f"{path}: SHA-256 {there}, expected {expected}: install scikit-learn again")
    return path


# A source returns the rows, the names of their columns, and facts for the manifest. The last column
# is the target.
SOURCES = {"diabetes": diabetes}


def prepare(settings: Dataset, folders: Folders) -> JsonObject:
    """Get the raw data and write what is read later; return what is to be known of them.

    The facts have `columns` (the names of the inputs) and `samples` (the number of rows). The rows
    are written as text with a line of names above them, which any other program reads, too; each
    number as the shortest text that is read as the same float64.
    """
    rows, names, facts = SOURCES[settings.name]()
    lines = [names, *rows.tolist()]
    text = "".join(",".join(map(str, line)) + "\n" for line in lines)
    write_file(folders.out / TABLE, text.encode())
    return {**facts, "columns": [*names[:-1]], "samples": len(rows)}


def datasets(config: Config, folder: Path, facts: Any) -> dict[str, Table]:
    """Load the prepared rows as train, validation and test samples, by seeds.data_split."""
    rows = torch.from_numpy(np.loadtxt(folder / TABLE, delimiter=",", skiprows=1, ndmin=2)).float()
    inputs = rows[:, :-1].contiguous()
    targets = rows[:, -1].contiguous()
    # The last part is the rest.
    fractions = (config.dataset.test_fraction, config.dataset.validation_fraction, 1.0)
    test, validation, train = split_indices(len(targets), fractions, config.seeds.data_split)
    parts = {"train": train, "validation": validation, "test": test}
    return {name: Table(inputs[part], targets[part]) for name, part in parts.items()}
