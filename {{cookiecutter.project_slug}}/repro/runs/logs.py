"""What a run wrote: an object of JSON, or one on each line while it goes on."""

import json
from pathlib import Path
from typing import Any

from repro.core.errors import UserError
from repro.core.layout import TRACE


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The lines of such a file; none if it is missing. A half-written last one (a crash) is left
    out; UserError if another one is damaged.
    """
    found = []
    lines = path.read_text(errors="replace").splitlines(keepends=True) if path.is_file() else []
    for number, line in enumerate(lines, 1):
        if not line.endswith("\n"):
            continue
        try:
            entry = json.loads(line)
        except ValueError:
            entry = None
        if not isinstance(entry, dict) or not isinstance(entry.get("step"), int):
            raise UserError(f"{path}: line {number} is damaged; restore the file, or move it away")
        found.append(entry)
    return found


def read_trace(run: Path) -> tuple[list[dict[str, Any]], dict[int, dict[str, Any]]]:
    """Lines with headers, and the others by step, of a run's trace; UserError if it has none."""
    lines = read_lines(run / TRACE)
    heads = [line for line in lines if "header" in line]
    steps = {line["step"]: line for line in lines if "header" not in line}
    if not heads or not steps:
        raise UserError(
            f"{run} has no {TRACE} with a step: expected the folder of a run with output.trace=true"
        )
    return heads, steps


def header_at(heads: list[dict[str, Any]], step: int) -> dict[str, Any]:
    """The header under which `step` was done: a run that is resumed may get another one."""
    before = [line for line in heads if line["step"] < step]
    return dict((before or heads[:1] or [{"header": {}}])[-1]["header"])
