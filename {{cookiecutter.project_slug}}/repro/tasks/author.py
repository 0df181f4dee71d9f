"""Find what an author has written for a task: its class, its module of data, and the data.

[tool.repro] names them: `task = "experiment.task:MyTask"` and `data = "experiment.data"`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset

from repro.core.errors import UserError
from repro.core.project import author_module, author_object
from repro.data.prepared import Preparation, Prepared
from repro.runs.conditions import code_digests
from repro.tasks.task import Task


def preparation(root: Path, config: Any, code: Mapping[str, str] | None = None) -> Preparation:
    """Return what prepares and reads the data of a config.

    `code`: the SHA-256 of each file of code; None reads them now.
    """
    digests = code_digests(root) if code is None else code
    python = [digest for name, digest in digests.items() if name.endswith(".py")]
    return Preparation(root, config, author_module(root, "data"), python)


def task_class(root: Path) -> type[Task]:
    """Return the author's class of a task; UserError for what is none."""
    found = author_object(root, "task")
    if not isinstance(found, type) or not issubclass(found, Task):
        raise UserError(
            f"[tool.repro] task names {found!r}: expected a class that extends repro.tasks.Task"
        )
    return found


def datasets_of(
    root: Path, config: Any, preparation: Preparation, prepared: Prepared
) -> Mapping[str, Dataset[Any]]:
    """Return the data sets by name; UserError for none, or if they were prepared anew meanwhile."""
    author = author_module(root, "data")
    datasets = author.datasets(config, prepared.folder, prepared.facts)
    if not isinstance(datasets, Mapping) or "train" not in datasets:
        found = ", ".join(datasets) if isinstance(datasets, Mapping) else type(datasets).__name__
        raise UserError(
            f"datasets(config, folder, facts) returned {found}: expected data sets by name, with "
            "one called train"
        )
    for name, dataset in datasets.items():
        if hasattr(dataset, "__len__") and not len(dataset):
            raise UserError(
                f"the data set {name} has no samples: expected more data, or another split"
            )
    preparation.refuse_other(prepared)
    return datasets
