"""Load the task of a checkpoint, for a notebook or to predict what is new.

Promises the weights of the checkpoint in the model of its own settings, whatever those of the
project are by now. Nothing is seeded or recorded, and the bits of a prediction are promised only
with the profile in force.
"""

from pathlib import Path
from typing import Any

from repro.core import layout
from repro.core.files import JsonObject, read_object
from repro.core.project import author_object
from repro.core.special_files import resolved
from repro.data.prepared import facts_of
from repro.runs.configuration import settings_beside, settings_of
from repro.runs.saved_state import load_state
from repro.tasks.author import preparation, task_class
from repro.tasks.task import Task
from repro.tasks.task_in_session import made_task
from repro.training import model_state


def load_task(checkpoint: str | Path, root: str | Path = ".") -> Task:
    """Return the task with the weights of a checkpoint, on the CPU, in eval mode.

    `root`: the project's folder. The data are not needed where the checkpoint lies in its run: it
    keeps the facts that `prepare` returned. `task.model(...)` and `task.evaluate(batch)` predict;
    `with torch.no_grad():` around them saves memory. UserError for what is no checkpoint.
    """
    root = resolved(Path(root))
    folder = resolved(Path(checkpoint))
    loader = author_object(root, "config")
    config = loader.revive({**settings_beside(folder, loader.free), **settings_of(folder)})
    task = made_task(task_class(root), config, _facts(root, config, folder))
    model_state.restore(load_state(folder), task.model)
    task.model.eval()
    return task


def _facts(root: Path, config: Any, folder: Path) -> JsonObject:
    """Return the facts of the data: those that the run keeps, or those of the data here."""
    run = layout.run_of(folder)
    kept = run / layout.DATA_FACTS if run else None
    if kept and kept.is_file():
        return facts_of(read_object(kept))
    return preparation(root, config).read().facts
