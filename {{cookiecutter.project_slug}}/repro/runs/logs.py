"""Read the JSON Lines files of a run: metrics.jsonl, and trace.jsonl with its headers.

Each line is a JSON object with a whole number under "step". A line that a crash left half written,
the last one, is left out.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeAlias

from repro.core.bounded import Budget, DamagedFile, json_lines
from repro.core.errors import UserError
from repro.core.files import Json, JsonObject
from repro.core.layout import TRACE

_LAST_STEP = 1 << 53  # what every reader of JSON takes for the same number

Entry: TypeAlias = "dict[str, float | int | str]"  # a line of metrics.jsonl
Line: TypeAlias = "Mapping[str, Json]"  # one that was read; the author may write other values, too


@dataclass(frozen=True)
class TraceLine:
    """A step of a trace: its fingerprints and numbers by name, in causal order."""

    step: int
    quantities: dict[str, str]

    def as_json(self) -> JsonObject:
        """Return the line's JSON object."""
        return {"step": self.step, **self.quantities}


@dataclass(frozen=True)
class Header:
    """What a trace says of the steps after `step`: the run's conditions, flags and seeds."""

    step: int
    content: JsonObject


class RunTrace(NamedTuple):
    """A whole trace: its headers, and its other lines by step."""

    headers: list[Header]
    lines: dict[int, TraceLine]


def is_validation(line: Line) -> bool:
    """Tell whether a line of metrics.jsonl is of a validation; the others are of steps."""
    return line.get("split") == "validation"


def read_lines(path: Path) -> list[JsonObject]:
    """Read the whole lines of a file; none if it is missing, UserError if one is damaged.

    UserError, too, for a file that does not fit into memory as a list.
    """
    return [*each_line(path, Budget(path))] if path.is_file() else []


def each_line(path: Path, budget: Budget | None = None) -> Iterator[JsonObject]:
    """Yield the whole lines of a file, as `read_lines` reads them, one at a time.

    `budget`: for whoever keeps them all.
    """
    if not path.is_file():
        return
    for number, entry in json_lines(path):
        if not is_line(entry):
            raise DamagedFile(path, "it has no step", line=number)
        if budget:
            budget.spend(len(entry))
        yield entry


def is_line(entry: Json) -> bool:
    """Tell whether a value is an object with a step that a training can have."""
    step = entry.get("step") if isinstance(entry, dict) else None
    return type(step) is int and 0 <= step < _LAST_STEP


def line_step(line: Line) -> int:
    """Return the step of a line that `read_lines` read."""
    step = line["step"]
    assert isinstance(step, int)
    return step


def read_trace(run: Path) -> RunTrace:
    """Read the trace of a run; UserError if it has none, or one without a step."""
    trace = _split(read_lines(run / TRACE))
    if not trace.headers or not trace.lines:
        raise UserError(
            f"{run} has no {TRACE} with a step: expected the folder of a run with output.trace=true"
        )
    return trace


def read_trace_lines(path: Path) -> dict[int, TraceLine]:
    """Read the steps of a trace file, which may have no header; empty if it is missing."""
    return _split(read_lines(path)).lines


def header_at(headers: Sequence[Header], step: int) -> JsonObject:
    """Return the header under which `step` was done: a resumed run may have got another one.

    Step 0, before training, has the first header; it is empty where there is none.
    """
    if not headers:
        return {}
    before = [header for header in headers if header.step < step]
    header = before[-1] if before else headers[0]
    return header.content


def trace_line(line: Line) -> TraceLine:
    """Return a step's line as it was read from a trace; all but its step are quantities."""
    quantities = {name: str(value) for name, value in line.items() if name != "step"}
    return TraceLine(line_step(line), quantities)


def _split(lines: Sequence[Line]) -> RunTrace:
    trace = RunTrace([], {})
    for line in lines:
        step = line_step(line)
        if "header" not in line:
            trace.lines[step] = trace_line(line)
        elif isinstance(content := line["header"], dict):
            trace.headers.append(Header(step, content))
    return trace
