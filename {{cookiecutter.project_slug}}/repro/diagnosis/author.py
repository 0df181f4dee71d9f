"""What replay and audit ask of the author's code, by the names in [tool.repro] of pyproject.toml.

`config` names the loader of settings, `train` the function that trains in a session.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from repro.core.files import JsonObject
from repro.core.project import author_object

if TYPE_CHECKING:  # torch waits until the profile is in force
    from repro.runs.session import Session
    from repro.runs.session_settings import SessionSettings


class SettingsReader(Protocol):
    """Reads settings and checks them."""

    def load(self, overrides: list[str], /) -> "SessionSettings":
        """Return the config that the command line's `overrides` make."""

    def revive(self, values: JsonObject, /) -> "SessionSettings":
        """Return the config of an older run from its settings."""


def loader_of(root: Path) -> SettingsReader:
    """Import the author's loader of settings."""
    loader: SettingsReader = author_object(root, "config")
    return loader


def train_function_of(root: Path) -> "Callable[[Session], object]":
    """Import the author's function that trains, and torch with it: the profile is in force."""
    function: Callable[[Session], object] = author_object(root, "train")
    return function
