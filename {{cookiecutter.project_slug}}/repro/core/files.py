"""Read and write whole files: a reader sees the old bytes or the new ones, never half of them."""

import json
import os
import tempfile
from pathlib import Path
from typing import Any


def read_object(path: Path) -> dict[str, Any]:
    """The object that is all of a file; empty if the file is missing or holds none."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        found = None
    return found if isinstance(found, dict) else {}


def write_json(path: Path, value: Any) -> None:
    """The same bytes for the same value."""
    write_file(path, (json.dumps(value, indent=1, sort_keys=True) + "\n").encode())


def write_file(path: Path, data: bytes) -> None:
    """Write a file as a whole or not at all: another job may read it meanwhile."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".partial")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        os.chmod(temporary, 0o644)  # mkstemp makes it private
        os.replace(temporary, path)
    except BaseException:  # a full disk, Ctrl-C
        Path(temporary).unlink(missing_ok=True)
        raise
