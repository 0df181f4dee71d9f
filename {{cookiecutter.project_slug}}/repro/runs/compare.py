"""Several runs side by side: which conditions differ, and what metrics come of each.

Runs whose conditions differ in their seeds alone are one group, with a mean and a spread. Runs of
the same conditions and seed must have the same bits: if not, something in them is left to chance.
Runs that are not finished are left out, and listed.
"""

import csv
import json
import shlex
import statistics
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from repro.core.errors import UserError
from repro.core.layout import METRICS
from repro.core.text import flatten
from repro.runs.logs import read_lines

Run = dict[str, Any]
STATISTICS = ("mean", "standard_deviation", "min", "max")


def compare(folders: list[Path]) -> dict[str, Any]:
    """What the runs in `folders` (runs, or folders that hold some) gave, as a JSON value.

    `source`: what the metrics are of. `differing`: names of conditions. `groups`: their
    `conditions` of these names, `metrics` with statistics over the `seeds` (standard deviation None
    for one), a run of each seed, and of the `repeated` ones whether they have `equal_bits`.
    UserError if there is nothing to compare.
    """
    found = [_read(folder) for folder in _find(folders)]
    runs = [run for run in found if run["goal"] and run["step"] >= run["goal"]]
    left_out = {r["run"]: f"step {r['step']} of {r['goal'] or '?'}" for r in found if r not in runs}
    if not runs:
        raise UserError([f"{k} is not finished ({v}): resume it" for k, v in left_out.items()])
    untested = [run["run"] for run in runs if not run["test"]]
    source = "validation" if untested else "test"
    for run in runs:
        known, own = (", ".join(sorted(r[source])) for r in (runs[0], run))
        if not own:
            words = f"{run['run']} has no {source} metrics"
            raise UserError(f"{words}: evaluate all runs, or leave it out")
        if known != own:
            words = f"{runs[0]['run']} has {known}; {run['run']} has {own}"
            raise UserError(f"{words}: expected the same metrics in all runs; leave some out")
    names = {name for run in runs for name in run["conditions"]}
    values = {n: {json.dumps(run["conditions"].get(n)) for run in runs} for n in names}
    differing = [name for name in names if len(values[name]) > 1]
    differing.sort(key=lambda name: (not name.endswith(".name"), name))
    grouped: dict[str, list[Run]] = {}
    for run in runs:
        grouped.setdefault(json.dumps(run["conditions"], sort_keys=True), []).append(run)
    groups = [_summary(group, source, differing) for group in grouped.values()]
    return {
        "source": source,
        "not_evaluated": untested if len(untested) < len(runs) else [],
        "unfinished": left_out,
        "differing": differing,
        "equal_bits": all(x["equal_bits"] for group in groups for x in group["repeated"]),
        "groups": groups,
    }


def _find(folders: list[Path]) -> list[Path]:
    """The runs, each once: folders themselves, in them, or in the folders in them."""
    found: dict[Path, Path] = {}
    for folder in folders:
        # No deeper: there lie the copies that a tracker keeps.
        levels = (folder.glob(f"{level}config_used.yaml") for level in ("*/*/", "*/", ""))
        inside = [path.parent for level in levels for path in sorted(level)]
        if not inside:
            raise UserError(f"{folder}: expected a run's folder, or one that holds some: runs/...")
        for run in inside:
            found.setdefault(run.resolve(), run)  # the first is no link: runs/latest is one
    return list(found.values())


def _read(folder: Path) -> Run:
    """What a run has done (`step`), where it ends (`goal`, None if unknown), and what it gave."""
    newest = max((folder / "checkpoints").glob("step-*"), default=folder)  # an archive has no links
    state, tested = newest / "state.json", folder / "metrics.json"
    try:
        last: Any = {"step": 0, "config": {}}
        last = json.loads(state.read_text()) if state.is_file() else last
        test = json.loads(tested.read_text()) if tested.is_file() else {}
        if test and test["step"] != last["step"]:
            test = {}  # it was trained further since
        lines = [line for line in read_lines(folder / METRICS) if "epoch" in line]
        curve = [line for line in lines if line["step"] <= last["step"]]
        training = last["config"].get("training", {})
        total = test.get("steps")
        if not total and curve:
            total = curve[-1]["step"] // curve[-1]["epoch"] * training["epochs"]
        contexts = [folder, *sorted(folder.glob("resumed_at_step_*"))]
        facts = [json.loads((x / "experiment_context.json").read_text()) for x in contexts]
        # The settings are the checkpoint's: a resumed run may end elsewhere than was meant first.
        config = {k: v for k, v in last["config"].items() if k not in ("seed", "seeds")}
        conditions: dict[str, Any] = {}
        for fact in facts:
            here = {**fact["conditions"], "hardware": fact["hardware_class"], "config": config}
            for name, value in flatten(here).items():
                before = conditions.get(name, value)
                conditions[name] = value if before == value else f"{before}, then {value}"
        return {
            "run": str(folder),
            "step": last["step"],
            "goal": min(filter(None, (total, training.get("max_steps"))), default=None),
            "seed": facts[0]["seed"],
            "seeds": facts[0]["seeds"],
            "bits": test.get("bits"),
            "test": _floats(test),
            "validation": _floats(curve[-1]) if curve else {},
            "curve": curve,
            "conditions": conditions,
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        words = " ".join(str(error).split())
        raise UserError(f"{folder} is damaged ({words}): restore it, or leave it out") from error


def _floats(entry: dict[str, Any]) -> dict[str, float]:
    return {name: value for name, value in entry.items() if isinstance(value, float)}


def _summary(group: list[Run], source: str, differing: list[str]) -> dict[str, Any]:
    by_seed: dict[str, list[Run]] = {}
    for run in group:
        by_seed.setdefault(json.dumps([run["seed"], run["seeds"]]), []).append(run)
    metrics = {}
    for name in group[0][source]:
        values = [runs[0][source][name] for runs in by_seed.values()]
        spread = statistics.stdev(values) if len(values) > 1 else None
        numbers = statistics.fmean(values), spread, min(values), max(values)
        metrics[name] = dict(zip(STATISTICS, numbers, strict=True))
    repeated = [runs for runs in by_seed.values() if len(runs) > 1]
    kept = ("run", "seed", "step", "test", "validation", "curve")
    return {
        "conditions": {name: group[0]["conditions"].get(name) for name in differing},
        "seeds": len(by_seed),
        "metrics": metrics,
        "repeated": [
            {"runs": [r["run"] for r in runs], "equal_bits": len(set(map(_bits, runs))) == 1}
            for runs in repeated
        ],
        "runs": [{key: runs[0][key] for key in kept} for runs in by_seed.values()],
    }


def _bits(run: Run) -> str:
    """Those of the evaluation, or of the last checkpoint."""
    from repro.training import checkpoint, model_state  # only here: torch takes its time

    if run["bits"]:
        return str(run["bits"])
    newest = checkpoint.newest_whole(Path(run["run"], "checkpoints"))
    return model_state.weights_digest(checkpoint.load(newest)["model"])


def show(found: dict[str, Any]) -> None:
    """Print what `compare` found."""
    names, groups = found["differing"], found["groups"]
    table = Table("", *(name.removeprefix("config: ") for name in names), "seeds", box=None)
    for metric in groups[0]["metrics"]:
        table.add_column(f"{found['source']} {metric}")
    for number, group in enumerate(groups, 1):
        cells = [_cell(name, value) for name, value in group["conditions"].items()]
        numbers = [_spread(*metric.values()) for metric in group["metrics"].values()]
        table.add_row(str(number), *map(escape, cells), str(group["seeds"]), *numbers)
    width = None if sys.stdout.isatty() else 250
    Console(highlight=False, width=width).print(table)
    of = "metrics.json" if found["source"] == "test" else f"last validation in {METRICS}"
    print(f"\nmetrics ({of}): mean ± standard deviation (min to max) over the seeds")
    for run in found["not_evaluated"]:
        print(f"not evaluated, so validation is compared: {run}")
    for run, words in found["unfinished"].items():
        print(f"not finished, left out: {run} ({words})")
    for entry in (entry for group in groups for entry in group["repeated"]):
        words = "equal bits" if entry["equal_bits"] else "OTHER BITS: something is left to chance"
        print(f"same conditions and seed, {words}: {', '.join(entry['runs'])}")
        if not entry["equal_bits"]:
            print(f"  to see where: python -m repro diff {shlex.join(entry['runs'][:2])}")


def _cell(name: str, value: Any) -> str:
    digest = name.partition(":")[0] in ("code", "data", "lock")
    return "not set" if value is None else str(value)[: 8 if digest else None]


def _spread(mean: float, deviation: float | None, low: float, high: float) -> str:
    if deviation is None:
        return f"{mean:.4g}"
    return f"{mean:.4g} ± {deviation:.2g} ({low:.4g} to {high:.4g})"


def write_csv(found: dict[str, Any], path: Path) -> None:
    """A line for each group: the conditions that differ, the seeds, each metric's statistics."""
    metrics = found["groups"][0]["metrics"]
    columns = [f"{found['source']}_{m}_{s}" for m in metrics for s in STATISTICS]
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        names = [name.removeprefix("config: ") for name in found["differing"]]
        writer.writerow([*names, "seeds", *columns])
        for group in found["groups"]:
            numbers = [value for metric in group["metrics"].values() for value in metric.values()]
            writer.writerow([*group["conditions"].values(), group["seeds"], *numbers])
