"""Where two runs part: the condition, the step, the quantity, the operation.

Two traces are compared line by line: the conditions in their headers first, then the quantities of
each step in causal order. Where all of that agrees, the metrics that both runs have are compared:
the same weights must have the same scores. With a replay (repro/diagnosis/replay_pair.py) the first
step that differs is done again in both runs, and their operations are compared in the order in
which they ran. Files of a step that two people wrote with `repro trace-step` are compared in the
same way.
"""

from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

from repro.core.errors import UserError
from repro.core.files import Json, JsonObject
from repro.core.text import flatten
from repro.diagnosis.metric_difference import MetricDifference, find_metric_difference
from repro.diagnosis.replay_pair import Replayed, judge_replays
from repro.diagnosis.step_file import StepRecord, read_step
from repro.runs.context import read_context
from repro.runs.logs import RunTrace, TraceLine, header_at, read_trace


class Change(NamedTuple):
    """A value that is another one in the two runs; None where a run has none of that name."""

    name: str
    a: Json
    b: Json


@dataclass(frozen=True)
class Parting:
    """The first quantity that differs, of the first step that does.

    `agree`: the quantities before it in causal order. `differing`: all of the step that differ.
    `values`: its values in A and B, a float with its exact form; None where a run has none.
    """

    step: int
    quantity: str
    agree: list[str]
    differing: list[str]
    values: tuple[str | None, str | None]


@dataclass(frozen=True)
class Comparison:
    """What differs between two runs.

    `context`: what should not matter. `compared`: how many steps both runs have. `span`: the first
    and the last of those (0 is before training). `last`: the last step of each run. `parting`: None
    if all steps agree. `replayed`: None without a replay. `metrics`: None if they are equal, or
    were not compared. `metrics_not_compared`: why not; None where they were, and for files of a
    step, which have none.
    """

    conditions: list[Change]
    context: list[Change]
    compared: int
    span: tuple[int, int]
    last: tuple[int, int]
    parting: Parting | None
    replayed: Replayed | None = None
    metrics: MetricDifference | None = None
    metrics_not_compared: str | None = None

    @property
    def is_identical(self) -> bool:
        """Whether all steps agree, and all metrics that were compared."""
        return self.parting is None and self.metrics is None

    def as_json(self) -> JsonObject:
        """Return what `diff --json` prints."""
        told: JsonObject = {
            "conditions": [[*change] for change in self.conditions],
            "context": [[*change] for change in self.context],
            "compared": self.compared,
            "span": [*self.span],
            "last": [*self.last],
            "step": None,
            "metrics": asdict(self.metrics) if self.metrics else None,
            "metrics_not_compared": self.metrics_not_compared,
        }
        if self.parting:
            told |= asdict(self.parting)
        if self.replayed:
            told |= self.replayed.as_json()
        return told


def compare_traces(a: Path, b: Path) -> Comparison:
    """Compare the traces of two runs; UserError if they cannot be compared."""
    trace_a = read_trace(a)
    trace_b = read_trace(b)
    common = sorted(trace_a.lines.keys() & trace_b.lines.keys())
    if not common:
        raise UserError(f"{a} and {b} have no step in common: nothing to compare")
    parting = None
    for step in common:
        parting = first_difference(trace_a.lines[step], trace_b.lines[step])
        if parting:
            break
    last = parting.step if parting else common[-1]
    conditions = _changes_at(trace_a, trace_b, last)
    reason = None
    if parting:
        reason = "the runs part"
    elif conditions:
        reason = "the conditions differ"
    elif earlier := _earlier_change(trace_a, trace_b, last):
        reason = f"the conditions of step {earlier} differ"
    return Comparison(
        conditions=conditions,
        context=_changes(_context(a), _context(b)),
        compared=len(common),
        span=(common[0], common[-1]),
        last=(max(trace_a.lines), max(trace_b.lines)),
        parting=parting,
        metrics=None if reason else find_metric_difference(a, b, last),
        metrics_not_compared=reason,
    )


def compare_steps(a: Path, b: Path) -> Comparison:
    """Compare two files that `repro trace-step` wrote, perhaps on two machines."""
    one = read_step(a)
    two = read_step(b)
    if one.step != two.step:
        raise UserError(f"{a} is of step {one.step}, {b} of step {two.step}: not comparable")
    replayed = judge_replays(one, two)
    return Comparison(
        conditions=_changes(_conditions(one.header), _conditions(two.header)),
        context=[],
        compared=1,
        span=(one.step, one.step),
        last=(one.step, one.step),
        parting=_parting_of_records(one, two, replayed),
        replayed=replayed,
    )


def first_difference(one: TraceLine, two: TraceLine) -> Parting | None:
    """Find the first quantity in which two lines of a step differ; None if they are the same."""
    names = [*one.quantities, *(name for name in two.quantities if name not in one.quantities)]
    differing = [n for n in names if one.quantities.get(n) != two.quantities.get(n)]
    if not differing:
        return None
    first = differing[0]
    return Parting(
        step=one.step,
        quantity=first,
        agree=names[: names.index(first)],
        differing=differing,
        values=(_shown(one.quantities.get(first)), _shown(two.quantities.get(first))),
    )


def _parting_of_records(one: StepRecord, two: StepRecord, replayed: Replayed) -> Parting | None:
    """Compare what the runs did if both files tell it, else what the replays did."""
    if one.recorded and two.recorded:
        parting = first_difference(one.recorded, two.recorded)
    else:
        parting = first_difference(one.line, two.line)
    mixed = replayed.compiled[0] != replayed.compiled[1]  # nothing was compared
    if parting is None and (replayed.operation or replayed.samples or mixed):
        return Parting(one.step, "operations", agree=[], differing=[], values=("", ""))
    return parting


def _changes_at(a: RunTrace, b: RunTrace, step: int) -> list[Change]:
    """Compare the headers under which both runs did a step."""
    header_a = header_at(a.headers, step)
    header_b = header_at(b.headers, step)
    return _changes(_conditions(header_a), _conditions(header_b))


def _earlier_change(a: RunTrace, b: RunTrace, last: int) -> int | None:
    """Find the first step before `last` that the runs did under other conditions; None if none.

    A run that was resumed has a header for each time; only their first steps need to be looked at.
    """
    firsts = {header.step + 1 for header in (*a.headers, *b.headers)}
    for step in sorted(first for first in firsts if first < last):
        if _changes_at(a, b, step):
            return step
    return None


def _conditions(header: JsonObject) -> JsonObject:
    """Return the header's conditions and what else it holds, by kind."""
    conditions = header.get("conditions")
    rest = {name: value for name, value in header.items() if name != "conditions"}
    return {**conditions, **rest} if isinstance(conditions, dict) else rest


def _context(run: Path) -> JsonObject:
    """Return what a person would ask about a run's surroundings: versions and the machine.

    What an older run did not write down is None.
    """
    context = read_context(run)
    if context is None:  # the comparison does without
        return {}
    hardware: JsonObject = {
        "cpu_model": context.hardware.cpu_model or None,
        "gpus": [*context.hardware.gpus],
        "gpu_driver": context.hardware.gpu_driver,
    }
    versions = asdict(context.software)
    software = {name: None if text == "" else text for name, text in versions.items()}
    commit: JsonObject = {"commit": context.git.commit_hash}
    return {"software": software, "hardware": hardware, "git": commit}


def _changes(one: JsonObject, two: JsonObject) -> list[Change]:
    then = flatten(one)
    now = flatten(two)
    names = sorted(then.keys() | now.keys())
    changes = [Change(name, then.get(name), now.get(name)) for name in names]
    return [change for change in changes if change.a != change.b]


def _shown(value: str | None) -> str | None:
    """Put the decimal value before the exact form of a float; leave a fingerprint as it is."""
    if value is not None and "0x" in value:
        with suppress(ValueError, OverflowError):  # a trace that somebody edited
            return f"{float.fromhex(value):.9g} ({value})"
    return value
