"""Compare several runs: which conditions differ, and what metrics come of each.

Runs whose conditions differ in their seeds alone are one group, with a mean and a spread. Runs of
the same conditions and seed must have the same bits: if not, something in them is left to chance.
They must have the same metrics, too: if not, something outside the weights decided those.
Runs that are not finished are left out, and listed. Metrics of the last and of the best checkpoint
are never in one table: see `choose_origin`.
"""

import csv
import json
import math
import statistics
from dataclasses import asdict, astuple, dataclass, fields
from pathlib import Path

from rich.markup import escape
from rich.table import Table

from repro.core.errors import UserError
from repro.core.files import Json, JsonObject
from repro.core.layout import CONFIG_USED
from repro.core.special_files import resolved
from repro.runs.console import Console
from repro.runs.repeated import Repeated, judge_repeated, print_repeated
from repro.runs.run_result import MetricsOrigin, RunResult, choose_origin, read_result

_CONFIG = "config: "
_DIGESTS = ("code", "data", "lock")  # kinds of conditions that are shown shortened
_SHORT = 8  # digits of a digest


@dataclass(frozen=True)
class Spread:
    """A metric over the seeds; the standard deviation of a single one is None."""

    mean: float
    standard_deviation: float | None
    min: float
    max: float

    def __str__(self) -> str:
        if self.standard_deviation is None:
            return f"{self.mean:.4g}"
        spread = f"{self.standard_deviation:.2g} ({self.min:.4g} to {self.max:.4g})"
        return f"{self.mean:.4g} ± {spread}"


@dataclass(frozen=True)
class Group:
    """Runs that differ in their seeds alone: `runs` has one for each of `seeds` seeds.

    `conditions`: those that are not the same in all groups.
    """

    conditions: JsonObject
    seeds: int
    metrics: dict[str, Spread]
    repeated: list[Repeated]
    runs: list[RunResult]

    def as_json(self) -> JsonObject:
        """Return the JSON object that `compare --json` prints of a group."""
        return {
            "conditions": self.conditions,
            "seeds": self.seeds,
            "metrics": {name: asdict(spread) for name, spread in self.metrics.items()},
            "repeated": [asdict(repeated) for repeated in self.repeated],
            "runs": [run.as_json() for run in self.runs],
        }


@dataclass(frozen=True)
class RunsCompared:
    """What several runs gave.

    `origin`: what the metrics are of. `not_evaluated`: runs that made it a validation.
    `unfinished`: how far each of them came. `differing`: names of conditions.
    """

    origin: MetricsOrigin
    not_evaluated: list[str]
    unfinished: dict[str, str]
    differing: list[str]
    groups: list[Group]

    @property
    def equal_bits(self) -> bool:
        """Whether all runs of the same conditions and seed have the same bits."""
        return all(repeated.equal_bits for group in self.groups for repeated in group.repeated)

    @property
    def equal_metrics(self) -> bool:
        """Whether all runs of the same conditions, seed and bits have the same metrics."""
        return not any(
            repeated.other_metric for group in self.groups for repeated in group.repeated
        )

    def as_json(self) -> JsonObject:
        """Return the JSON object that `compare --json` prints."""
        return {
            **self.origin._asdict(),
            "not_evaluated": [*self.not_evaluated],
            "unfinished": {**self.unfinished},
            "differing": [*self.differing],
            "equal_bits": self.equal_bits,
            "equal_metrics": self.equal_metrics,
            "groups": [group.as_json() for group in self.groups],
        }


def compare_runs(folders: list[Path]) -> RunsCompared:
    """Compare the runs in `folders` (runs, or folders that hold some).

    UserError if there is nothing to compare.
    """
    results = [read_result(folder) for folder in _find(folders)]
    runs = [run for run in results if run.is_finished]
    unfinished = {
        run.run: f"step {run.step} of {run.goal or '?'}" for run in results if not run.is_finished
    }
    if not runs:
        raise UserError(
            [f"{run} is not finished ({state}): resume it" for run, state in unfinished.items()]
        )
    untested = [run.run for run in runs if not run.is_evaluated]
    origin = choose_origin(runs)
    _refuse_other_metrics(runs, origin)
    differing = _differing_conditions(runs)
    grouped: dict[str, list[RunResult]] = {}
    for run in runs:
        grouped.setdefault(json.dumps(run.conditions, sort_keys=True), []).append(run)
    return RunsCompared(
        origin=origin,
        not_evaluated=untested if len(untested) < len(runs) else [],
        unfinished=unfinished,
        differing=differing,
        groups=[_summary(group, origin.file, differing) for group in grouped.values()],
    )


def _refuse_other_metrics(runs: list[RunResult], origin: MetricsOrigin) -> None:
    """UserError if a run has no metrics, or others than the first one."""
    first = runs[0]
    expected = ", ".join(sorted(first.numbers(origin.file)))
    for run in runs:
        names = ", ".join(sorted(run.numbers(origin.file)))
        if not names:
            raise UserError(
                f"{run.run} has no {origin.source} metrics: evaluate all runs, or leave it out"
            )
        if names != expected:
            raise UserError(
                f"{first.run} has {expected}; {run.run} has {names}: expected the same metrics in "
                "all runs; leave some out"
            )


def _differing_conditions(runs: list[RunResult]) -> list[str]:
    """Return the names of the conditions that are not the same in all runs; choices come first."""
    names = {name for run in runs for name in run.conditions}
    differing = [
        name for name in names if len({json.dumps(run.conditions.get(name)) for run in runs}) > 1
    ]
    return sorted(differing, key=lambda name: (not name.endswith(".name"), name))


def _find(folders: list[Path]) -> list[Path]:
    """Return the runs, each once: folders themselves, in them, or in the folders in them."""
    runs: dict[Path, Path] = {}
    for folder in folders:
        # No deeper: there lie the copies that a tracker keeps.
        levels = (folder.glob(f"{level}{CONFIG_USED}") for level in ("*/*/", "*/", ""))
        inside = [path.parent for level in levels for path in sorted(level)]
        if not inside:
            raise UserError(f"{folder}: expected a run's folder, or one that holds some: runs/...")
        for run in inside:
            real = resolved(run)
            if real not in runs or runs[real].is_symlink():  # runs/latest is one
                runs[real] = run
    return list(runs.values())


def _summary(group: list[RunResult], file: str, differing: list[str]) -> Group:
    """Summarise the runs of the same conditions, each seed counted once."""
    by_seed: dict[str, list[RunResult]] = {}
    for run in group:
        by_seed.setdefault(json.dumps([run.seed, run.seeds]), []).append(run)
    one_of_each = [runs[0] for runs in by_seed.values()]
    metrics = {
        name: _spread([run.numbers(file)[name] for run in one_of_each])
        for name in group[0].numbers(file)
    }
    repeated = [judge_repeated(runs) for runs in by_seed.values() if len(runs) > 1]
    conditions = {name: group[0].conditions.get(name) for name in differing}
    return Group(conditions, len(by_seed), metrics, repeated, one_of_each)


def _spread(values: list[float]) -> Spread:
    deviation = None
    if len(values) > 1:  # statistics.stdev fails at NaN and infinity
        deviation = statistics.stdev(values) if all(map(math.isfinite, values)) else math.nan
    return Spread(statistics.fmean(values), deviation, min(values), max(values))


def print_comparison(compared: RunsCompared) -> None:
    """Print the groups as a table, and below it which runs were left out or are not repeatable."""
    Console(width_elsewhere=250).print(_table(compared))
    print(f"\nmetrics ({compared.origin}): mean ± standard deviation (min to max) over the seeds")
    for run in compared.not_evaluated:
        print(f"not evaluated, so validation is compared: {run}")
    for run, state in compared.unfinished.items():
        print(f"not finished, left out: {run} ({state})")
    for group in compared.groups:
        for repeated in group.repeated:
            print_repeated(repeated)


def _table(compared: RunsCompared) -> Table:
    names = [name.removeprefix(_CONFIG) for name in compared.differing]
    table = Table("", *names, "seeds", box=None)
    for metric in compared.groups[0].metrics:
        table.add_column(f"{compared.origin.source} {metric}")
    for number, group in enumerate(compared.groups, 1):
        cells = [escape(_cell(name, value)) for name, value in group.conditions.items()]
        numbers = [str(spread) for spread in group.metrics.values()]
        table.add_row(str(number), *cells, str(group.seeds), *numbers)
    return table


def _cell(name: str, value: Json) -> str:
    if value is None:
        return "not set"
    kind = name.partition(":")[0]
    return str(value)[:_SHORT] if kind in _DIGESTS else str(value)


def write_csv(compared: RunsCompared, path: Path) -> None:
    """Write a line for each group: the conditions that differ, the seeds, each metric's spread."""
    columns_of = [field.name for field in fields(Spread)]
    metrics = compared.groups[0].metrics
    columns = [
        f"{compared.origin.source}_{metric}_{name}" for metric in metrics for name in columns_of
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        names = [name.removeprefix(_CONFIG) for name in compared.differing]
        writer.writerow([*names, "seeds", *columns])
        for group in compared.groups:
            numbers = [number for spread in group.metrics.values() for number in astuple(spread)]
            writer.writerow([*group.conditions.values(), group.seeds, *numbers])
