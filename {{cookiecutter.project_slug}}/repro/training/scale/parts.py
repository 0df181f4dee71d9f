"""Checkpoints of sharded models (a stub, until the branch h2 is merged)."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from repro.training.processes import Processes


def save(folder: Path, state: Mapping[str, Any], processes: Processes) -> None:
    """Save."""
    raise NotImplementedError


def load(folder: Path, rank: int, size: int) -> dict[str, Any]:
    """Load."""
    raise NotImplementedError


def consolidate(folder: Path) -> None:
    """Consolidate."""
    raise NotImplementedError
