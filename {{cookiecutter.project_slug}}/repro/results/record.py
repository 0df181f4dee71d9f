"""Record what a claim's training gives, to be compared with later.

`record` trains and evaluates every seed of every claim through the author's own commands, and
writes results/ (expected_metrics.json, figures/, trace/) and the marked blocks of REPRODUCE.md. A
training that was stopped is resumed. Nothing outside the marked blocks is changed.
"""

import json
import math
import os
import shutil
import statistics
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from repro.core.errors import UserError
from repro.core.files import read_object, write_file, write_json
from repro.core.hashing import sha256_json
from repro.core.layout import METRICS, TRACE
from repro.core.progress import duration
from repro.core.project import run_author_command
from repro.core.text import listed
from repro.environment.locks import LOCK, not_as_locked
from repro.environment.machine import get_hardware
from repro.results import document, report
from repro.results.claims import RESULTS, RUNS, conditions_now, read_claims
from repro.runs.conditions import differences
from repro.runs.figures import draw_seeds
from repro.runs.git import get_git_info, uncommitted_files
from repro.runs.logs import read_lines

WRITTEN = (str(RESULTS.parent), document.DOCUMENT)  # by record itself
TRACES = RESULTS.parent / "trace"
LARGEST_TRACE = 1 << 18  # bytes of a trace that go to results/: for `verify --prefix` in a clone


def record(root: Path, allow_dirty: bool = False) -> None:
    """Train every seed of every claim and write the results; UserError if code is not committed."""
    claims = read_claims(root)
    refuse_paths(root, claims)
    document.read(root)
    (root / RESULTS.parent).mkdir(exist_ok=True)
    if not all(os.access(root / name, os.W_OK) for name in WRITTEN):
        raise UserError(f"{' or '.join(WRITTEN)} cannot be written here: record outside")
    changed, git = uncommitted_files(root, WRITTEN), get_git_info(root)
    if changed and not allow_dirty:
        raise UserError(
            f"not committed: {listed(changed)}; nobody could get the code of these results: commit "
            "first, or record with --allow-dirty"
        )
    if (packages := not_as_locked(root / LOCK)) and not allow_dirty:
        told = listed([f"{name} {found}" for name, found in packages.items()])
        raise UserError(
            f"not as locked: {told}; nobody else has this environment: make setup first, or record "
            "with --allow-dirty"
        )
    if git.source == "none":
        print(f"warning: the results will name no commit: {git.note}", flush=True)
    recorded: dict[str, Any] = {}
    seconds: list[float] = []
    left = sum(len(claim["seeds"]) for claim in claims)
    for claim in claims:
        now = conditions_now(root, claim)
        seeds = {}
        for seed in claim["seeds"]:
            about = f", about {duration(statistics.fmean(seconds) * left)} left" if seconds else ""
            print(f"\nrecording {claim['name']}, seed {seed}; {left} to do{about}", flush=True)
            started = time.monotonic()
            run = run_folder(root, claim, now) / f"seed-{seed}"
            seeds[seed] = measure(root, claim, seed, run)
            refuse_other_conditions(run, now["conditions"])
            seconds.append(time.monotonic() - started)
            left -= 1
        recorded[claim["name"]] = summary(claim, now, seeds)
        _copy(root, claim, run_folder(root, claim, now))
    traces = {trace_file(root, claim["name"], claim["seeds"][0]) for claim in claims}
    for path in {*(root / TRACES).glob("*.jsonl")} - traces:
        path.unlink()  # of an earlier recording
    for path in (root / RESULTS.parent / "figures").glob("*/"):
        if path.name not in recorded:
            print(f"{path.relative_to(root)} is of no claim: delete it, or archives have it, too")
    dirty = git.is_dirty if changed is None else bool(changed)
    publish(root, {"commit": git.commit_hash, "dirty": dirty, "claims": recorded})
    print(f"written: {RESULTS}, REPRODUCE.md, {report.write(root).relative_to(root)}")


def refuse_paths(root: Path, claims: list[dict[str, Any]]) -> None:
    """UserError for a claim with a path that only this machine has: others repeat its arguments."""
    from repro.core.project import author_object  # here: a project may name no config

    faults = []
    for claim in claims:
        for key, _, value in (argument.partition("=") for argument in claim["arguments"]):
            if key in author_object(root, "config").paths and value.startswith(("/", "~", "..")):
                remedy = "others have it elsewhere: give it as a variable (IMAGE_DIR, WEIGHTS)"
                faults.append(f"claim {claim['name']}: {key}={value} is of this machine; {remedy}")
    if faults:
        raise UserError(faults)


def run_folder(root: Path, claim: dict[str, Any], now: dict[str, Any]) -> Path:
    """Where a claim's runs lie. Other conditions: another folder, so that no half of it is kept."""
    digest = sha256_json([now, claim["arguments"]])[:12]
    return root / RUNS / str(claim["name"]) / digest


def refuse_other_conditions(run: Path, conditions: dict[str, Any]) -> None:
    """UserError if a run trained under others at any time: someone edited the code meanwhile."""
    for path in (run, *run.glob("resumed_at_step_*")):
        found = json.loads((path / "experiment_context.json").read_text())["conditions"]
        if lines := differences(conditions, found):
            raise UserError(
                f"{run} was trained with other code or settings ({lines[0]}): delete it"
            )


def measure(root: Path, claim: dict[str, Any], seed: int, folder: Path) -> dict[str, Any]:
    """Train and evaluate one seed of a claim in `folder`; its metrics.json and its cost."""
    # Without a tracker: whoever repeats a result need not reach the author's server.
    arguments = [*claim["arguments"], f"seed={seed}", f"run_dir={folder}", "resume=auto"]
    cost = _train(root, [*arguments, "tracker=none"], folder)
    (folder / "metrics.json").unlink(missing_ok=True)  # of an earlier attempt
    from repro.training.checkpoint import newest_whole  # here: it imports torch

    # Not by its name `last`: the runs of an archive have no links.
    newest = str(newest_whole(folder / "checkpoints"))
    run_author_command(root, "evaluate", ["--checkpoint", newest])
    metrics: dict[str, Any] = json.loads((folder / "metrics.json").read_text())
    if missing := sorted({"bits", "seed", "step", "steps"} - metrics.keys()):
        raise UserError(
            f"{folder}/metrics.json lacks {listed(missing)}: see experiment/evaluate.py"
        )
    numbers = {k: v for k, v in metrics.items() if type(v) in (int, float)}
    value = numbers.get(claim["metric"])
    if value is None or not math.isfinite(value):
        known = ", ".join(f"{name}={number}" for name, number in numbers.items())
        words = f"claim {claim['name']}, seed {seed}: expected {claim['metric']}, a finite number"
        raise UserError(f"{words}, in metrics.json; there are {known}")
    return {**metrics, claim["metric"]: float(value), **cost}


def _train(root: Path, arguments: list[str], folder: Path) -> dict[str, Any]:
    """Train to the end; what it cost, with earlier attempts that were stopped."""
    path = folder / "cost.json"
    cost: dict[str, Any] = {"seconds": 0.0, "energy_wh": 0.0, "peak_memory_mib": 0.0}
    cost |= read_object(path)
    started = time.monotonic()
    finished = False
    with Energy() as energy:
        try:
            peak = run_author_command(root, "train", arguments)[1]
            finished = True
        finally:
            if not cost.get("finished") and folder.is_dir():
                energy.stop()
                known = None not in (energy.watt_hours, cost["energy_wh"])
                cost["energy_wh"] = cost["energy_wh"] + energy.watt_hours if known else None
                cost["seconds"] += time.monotonic() - started
                if finished:
                    cost["peak_memory_mib"] = max(cost["peak_memory_mib"], peak)
                write_json(path, {**cost, "finished": finished})
    return cost


class Energy:
    """The processors' energy while a `with` block runs, by their own counters (Linux: powercap).

    `watt_hours` is None where no counter may be read: in virtual machines, or for lack of rights.
    GPUs are not counted.
    """

    def __init__(self, folder: Path = Path("/sys/class/powercap"), seconds: float = 30) -> None:
        self.watt_hours: float | None = None
        self._counters = sorted(folder.glob("intel-rapl:[0-9]/energy_uj"))  # AMD's, too
        self._before, self._seconds, self._end = self._read(), seconds, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        if self._before:
            self.watt_hours = 0.0

    def _read(self) -> list[int]:
        with suppress(OSError, ValueError):
            return [int(path.read_text()) for path in self._counters]
        return []

    def _watch(self) -> None:
        """Counters start again at zero after minutes: so they are read more often."""
        ended = False
        while not ended:
            ended = self._end.wait(self._seconds)
            now = self._read()
            for path, old, new in zip(self._counters, self._before, now, strict=False):
                if new < old:
                    old -= int(path.with_name("max_energy_range_uj").read_text())
                self.watt_hours = (self.watt_hours or 0.0) + (new - old) / 3.6e9
            self._before = now

    def __enter__(self) -> "Energy":
        if self._before:
            self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Read the counters for the last time."""
        self._end.set()
        if self._thread.is_alive():
            self._thread.join()


def summary(
    claim: dict[str, Any], now: dict[str, Any], seeds: dict[int, dict[str, Any]]
) -> dict[str, Any]:
    """What is published of a claim whose seeds gave these metrics."""
    values = [metrics[claim["metric"]] for metrics in seeds.values()]
    energies = [metrics["energy_wh"] for metrics in seeds.values()]
    known = [energy for energy in energies if energy is not None]
    hardware = get_hardware()
    gpus = hardware.gpus if now["hardware_class"].startswith("cuda") else []
    return {
        **{key: claim[key] for key in ("text", "shows", "arguments", "metric")},
        "mean": statistics.fmean(values),
        "standard_deviation": statistics.stdev(values) if len(values) > 1 else None,
        "interval": confidence_interval(values),
        "values": {str(seed): metrics[claim["metric"]] for seed, metrics in seeds.items()},
        "bits": {now["hardware_class"]: {str(s): metrics["bits"] for s, metrics in seeds.items()}},
        "steps": {metrics["steps"] for metrics in seeds.values()}.pop(),
        "config_digest": sha256_json(now["conditions"]["config"]),
        "conditions": now["conditions"],
        "dataset": now["dataset"],
        "cost": {
            "hardware": ", ".join([hardware.cpu_model, *gpus]),
            "seconds_per_seed": round(statistics.median(m["seconds"] for m in seeds.values())),
            "peak_memory_mib": round(max(m["peak_memory_mib"] for m in seeds.values())),
            "energy_wh": statistics.median(known) if len(known) == len(energies) else None,
        },
    }


def confidence_interval(values: list[float], level: float = 0.95) -> list[float] | None:
    """Of the mean, by the bootstrap's percentiles with a fixed seed; None for a single value."""
    if len(values) < 2:
        return None
    draws = np.random.default_rng(0).choice(values, (10_000, len(values))).mean(1)
    return [float(x) for x in np.quantile(draws, [0.5 - level / 2, 0.5 + level / 2])]


def _copy(root: Path, claim: dict[str, Any], folder: Path) -> None:
    """From a claim's runs to results/: figures, and the first seed's trace while it is small."""
    first = folder / f"seed-{claim['seeds'][0]}"
    figures = root / RESULTS.parent / "figures" / claim["name"]
    if (first / "figures").is_dir():  # the author's evaluation may draw none
        shutil.copytree(first / "figures", figures, dirs_exist_ok=True)
    names = {str(seed): folder / f"seed-{seed}" / METRICS for seed in claim["seeds"]}
    draw_seeds(figures, {seed: read_lines(path) for seed, path in names.items()})
    target = trace_file(root, claim["name"], claim["seeds"][0])
    text, size = [], 0
    for entry in read_lines(first / TRACE):
        line = json.dumps(entry) + "\n"
        if "header" not in entry and (size := size + len(line)) <= LARGEST_TRACE:
            text.append(line)
    write_file(target, "".join(text).encode())


def trace_file(root: Path, claim: str, seed: int) -> Path:
    """The published part of a trace: lines of steps, without headers."""
    return root / TRACES / f"{claim}_seed-{seed}.jsonl"


def publish(root: Path, results: dict[str, Any]) -> None:
    """Write results/expected_metrics.json and the marked blocks of REPRODUCE.md."""
    write_json(root / RESULTS, results)
    document.write(root, results)
