"""The bodies of the author's commands: `train_command` and `evaluate_command`.

A command's module calls one of them, so nothing is imported here that needs the profile in force.
"""

from repro.tasks.commands import evaluate_command as evaluate_command
from repro.tasks.commands import train_command as train_command

__all__ = ["evaluate_command", "train_command"]
