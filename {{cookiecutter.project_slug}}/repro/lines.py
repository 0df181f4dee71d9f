"""Files of JSON objects, one on each line: what a run writes while it goes on."""

import json
from pathlib import Path
from typing import Any

METRICS, TRACE = "metrics.jsonl", "trace.jsonl"


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The lines of such a file; none if it is missing. A half-written last one (a crash) is left
    out.
    """
    lines = path.read_text().splitlines(keepends=True) if path.is_file() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]
