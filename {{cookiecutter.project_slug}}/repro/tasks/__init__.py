"""What a project learns: the class `Task`, the loop that trains it, the author's commands.

`__all__` holds what an author may call. Some modules import torch, so a name is imported only when
it is used: a command's module is imported before the profile is in force.
"""

from typing import TYPE_CHECKING

from repro.core.lazy import importer, listed_names

_NAMES = {
    "repro.tasks.commands": ("evaluate_command", "prepare_command", "train_command"),
    "repro.tasks.loading": ("load_task",),
    "repro.tasks.loop": ("evaluate_task", "train_task"),
    "repro.tasks.outputs": ("Outputs",),
    "repro.tasks.rates": ("warmup_and_cosine",),
    "repro.tasks.task": ("Task",),
}

if TYPE_CHECKING:
    from repro.tasks.commands import evaluate_command as evaluate_command
    from repro.tasks.commands import prepare_command as prepare_command
    from repro.tasks.commands import train_command as train_command
    from repro.tasks.loading import load_task as load_task
    from repro.tasks.loop import evaluate_task as evaluate_task
    from repro.tasks.loop import train_task as train_task
    from repro.tasks.outputs import Outputs as Outputs
    from repro.tasks.rates import warmup_and_cosine as warmup_and_cosine
    from repro.tasks.task import Task as Task
else:
    __getattr__ = importer(__name__, _NAMES)

__all__ = listed_names(_NAMES)
