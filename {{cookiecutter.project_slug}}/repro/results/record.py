"""Record what a claim's training gives, to be compared with later.

`record` trains and evaluates every seed of every claim through the author's own commands, and
writes results/ (expected_metrics.json, figures/, trace/) and the marked blocks of REPRODUCE.md. A
training that was stopped is resumed. Nothing outside the marked blocks is changed. Under the
conditions of what is recorded, another hardware class is added beside it (results/classes.py).
"""

import json
import os
import re
import shutil
import statistics
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from repro.core import layout
from repro.core.errors import UserError, refuse
from repro.core.files import write_file, write_json
from repro.core.hashing import sha256_json
from repro.core.progress import duration
from repro.core.project import author_object
from repro.core.read_once import reading_once
from repro.core.text import listed
from repro.environment.locks import LOCK, not_as_locked
from repro.environment.machine import get_hardware
from repro.results.claims import (
    EXPECTED,
    RECORDED_RUNS,
    Claim,
    read_claims,
    read_recording,
)
from repro.results.classes import added_class, beside, comparable_recording
from repro.results.document import DOCUMENT, read_document, write_document
from repro.results.foreseen import foresee
from repro.results.measure import SeedResult, measure
from repro.results.recording import Cost, Interval, RecordedClaim, Recording
from repro.results.report import write_report
from repro.runs.conditions import Conditions, Situation, differences
from repro.runs.context import read_context
from repro.runs.figures import draw_seeds
from repro.runs.git import get_git_info
from repro.runs.logs import each_line, read_lines
from repro.runs.uncommitted import uncommitted_code

WRITTEN = (layout.RESULTS, DOCUMENT)  # by record itself
LARGEST_TRACE = 1 << 18  # bytes of a trace that go to results/: for `verify --prefix` in a clone
_DRAWN_BEFORE = ("learning_curves.png", "learning_curves_seeds.png")  # by a kit before SVG
_FIGURES = Path(layout.RESULTS, layout.FIGURES)
_TRACES = Path(layout.RESULTS, "trace")


@dataclass
class _Schedule:
    """How many seeds are still to be trained, and how long the others took."""

    left: int
    seconds: list[float] = field(default_factory=list)

    def announce(self, claim: str, seed: int) -> None:
        """Print which seed is next, and how long the rest will take."""
        about = ""
        if self.seconds:
            about = f", about {duration(statistics.fmean(self.seconds) * self.left)} left"
        print(f"\nrecording {claim}, seed {seed}; {self.left} to do{about}", flush=True)

    def done(self, seconds: float) -> None:
        """Count a seed that took so long."""
        self.left -= 1
        self.seconds.append(seconds)


@reading_once()
def record(root: Path, allow_dirty: bool = False) -> None:
    """Train every seed of every claim and write the results.

    UserError if they cannot be written, or, unless `allow_dirty`, if code is not committed or
    packages are not those of the lock.
    """
    claims = read_claims(root)
    refuse_paths(root, claims)
    read_document(root)
    (root / layout.RESULTS).mkdir(exist_ok=True)
    if not all(os.access(root / name, os.W_OK) for name in WRITTEN):
        raise UserError(f"{' or '.join(WRITTEN)} cannot be written here: record outside")
    changed = uncommitted_code(root, WRITTEN)
    if not allow_dirty:
        _refuse_what_others_lack(root, changed or [])
    git = get_git_info(root)
    if git.source == "none":
        print(f"warning: the results will name no commit: {git.note}", flush=True)
    schedule = _Schedule(sum(len(claim.seeds) for claim in claims))
    foreseen = {claim.name: foresee(root, claim, claim.arguments) for claim in claims}
    refuse([fault for each in foreseen.values() for fault in each.faults])
    situations = {name: each.situation for name, each in foreseen.items()}
    earlier = comparable_recording(root, claims, situations)
    recorded = {}
    for claim in claims:
        now = situations[claim.name]
        before = earlier.claims[claim.name] if earlier else None
        recorded[claim.name] = _record_claim(root, claim, now, schedule, before)
    dirty = git.is_dirty if changed is None else bool(changed)
    recording = beside(earlier, Recording(recorded, git.commit_hash, dirty))
    _remove_old_traces(root, claims, recording)
    _name_old_figures(root, claims)
    publish(root, recording)
    print(f"written: {EXPECTED}, {DOCUMENT}, {write_report(root).relative_to(root)}")


def _refuse_what_others_lack(root: Path, changed: list[str]) -> None:
    """Raise UserError for changed files and for packages that are not those of the lock."""
    if changed:
        raise UserError(
            f"not committed: {listed(changed)}; `record` requires committed code, because nobody "
            "else could get the code of these results: commit first, or record with --allow-dirty"
        )
    if packages := not_as_locked(root / LOCK):
        names = listed([f"{name} {version}" for name, version in packages.items()])
        raise UserError(
            f"not as locked: {names}; nobody else has this environment: make setup first, or "
            "record with --allow-dirty"
        )


def refuse_paths(root: Path, claims: list[Claim]) -> None:
    """Raise UserError for a claim with a path of this machine: others repeat its arguments."""
    suspects = [
        (claim.name, argument)
        for claim in claims
        for argument in claim.arguments
        if argument.partition("=")[2].startswith(("/", "~", ".."))
    ]
    if not suspects:
        return  # without asking for the author's config: a project may name none
    paths = author_object(root, "config").paths
    refuse(
        [
            f"claim {name}: {argument} is of this machine; others have it elsewhere: give it as a "
            "variable (IMAGE_DIR, WEIGHTS)"
            for name, argument in suspects
            if argument.partition("=")[0] in paths
        ]
    )


def _record_claim(
    root: Path, claim: Claim, now: Situation, schedule: _Schedule, before: RecordedClaim | None
) -> RecordedClaim:
    """Train and evaluate every seed of a claim; copy figures and a trace to results/.

    `before`: what is recorded of the claim under the same conditions. The figures stay those of the
    hardware class that was recorded first.
    """
    folder = run_folder(root, claim, now)
    added = added_class(before, now.hardware_class)
    if before and added:
        print(f"{claim.name}: {added} is added, beside {listed([*before.bits])}, which stays")
    results = {}
    for seed in claim.seeds:
        schedule.announce(claim.name, seed)
        started = time.monotonic()
        run = folder / f"seed-{seed}"
        results[seed] = measure(root, claim, seed, run)
        refuse_other_conditions(run, now.conditions)
        schedule.done(time.monotonic() - started)
    if not added:
        _copy_figures(root, claim, folder)
    _copy_trace(root, claim, folder, added)
    return summary(claim, now, results)


def run_folder(root: Path, claim: Claim, now: Situation) -> Path:
    """Return where a claim's runs lie: under other conditions in another folder, never mixed."""
    digest = sha256_json([now.as_json(), claim.arguments])[:12]
    return root / RECORDED_RUNS / claim.name / digest


def refuse_other_conditions(run: Path, conditions: Conditions) -> None:
    """Raise UserError if a run was ever trained under others: someone edited the code meanwhile."""
    for folder in layout.context_folders(run):
        context = read_context(folder)
        if context is None:
            raise UserError(f"{folder / layout.CONTEXT} is damaged: delete {run}")
        if lines := differences(conditions.as_json(), context.conditions.as_json()):
            raise UserError(
                f"{run} was trained with other code or settings ({lines[0]}): delete it"
            )


def summary(claim: Claim, now: Situation, results: dict[int, SeedResult]) -> RecordedClaim:
    """Return what is published of a claim whose seeds gave these results."""
    values = {str(seed): result.value for seed, result in results.items()}
    bits = {str(seed): result.bits for seed, result in results.items()}
    best = {str(seed): result.best for seed, result in results.items() if result.best}
    steps = {str(seed): result.steps for seed, result in results.items()}
    numbers = [*values.values()]
    hardware = get_hardware()
    gpus = hardware.gpus if now.hardware_class.startswith("cuda") else []
    seconds = statistics.median(result.spent.seconds for result in results.values())
    memory = max(result.spent.peak_memory_mib for result in results.values())
    return RecordedClaim(
        text=claim.text,
        shows=claim.shows,
        arguments=claim.arguments,
        metric=claim.metric,
        mean=statistics.fmean(numbers),
        standard_deviation=statistics.stdev(numbers) if len(numbers) > 1 else None,
        interval=confidence_interval(numbers),
        values=values,
        bits={now.hardware_class: bits},
        checkpoint=claim.checkpoint,
        best={now.hardware_class: best} if best else {},
        steps=max(steps.values()),
        steps_by_seed=steps if len({*steps.values()}) > 1 else {},
        config_digest=sha256_json(now.conditions.config),
        conditions=now.conditions,
        environments={now.hardware_class: now.conditions.environment},
        dataset=now.dataset,
        cost=Cost(", ".join([hardware.cpu_model, *gpus]), round(seconds), round(memory)),
    )


def confidence_interval(values: list[float], level: float = 0.95) -> Interval | None:
    """Bootstrap an interval of the mean with a fixed seed; None for a single value."""
    if len(values) < 2:
        return None
    draws = np.random.default_rng(0).choice(values, (10_000, len(values))).mean(1)
    low, high = np.quantile(draws, [0.5 - level / 2, 0.5 + level / 2])
    return float(low), float(high)


def _copy_figures(root: Path, claim: Claim, folder: Path) -> None:
    """Copy the figures of a claim's first seed to results/, and draw curves over all seeds."""
    first = layout.figures_folder(folder / f"seed-{claim.seeds[0]}", claim.checkpoint)
    figures = root / _FIGURES / claim.name
    for name in _DRAWN_BEFORE:
        (figures / name).unlink(missing_ok=True)
    if first.is_dir():  # the author's evaluation may draw none
        shutil.copytree(first, figures, dirs_exist_ok=True)
    runs = {str(seed): folder / f"seed-{seed}" / layout.METRICS for seed in claim.seeds}
    draw_seeds(figures, {seed: read_lines(path) for seed, path in runs.items()})


def _copy_trace(root: Path, claim: Claim, folder: Path, added: str) -> None:
    """Copy the beginning of the first seed's trace to results/, as much as LARGEST_TRACE holds."""
    first = claim.seeds[0]
    lines = []
    size = 0
    for entry in each_line(folder / f"seed-{first}" / layout.TRACE):
        if "header" in entry:
            continue
        line = json.dumps(entry) + "\n"
        size += len(line)
        if size <= LARGEST_TRACE:
            lines.append(line)
    write_file(trace_file(root, claim.name, first, added), "".join(lines).encode())


def trace_file(root: Path, claim: str, seed: int, added: str) -> Path:
    """Return where the published part of a trace lies: lines of steps, without headers.

    `added`: the hardware class if it is one that was added, else "".
    """
    of_class = re.sub("[^a-z0-9]+", "-", f" {added}".lower()).rstrip("-")
    return root / _TRACES / f"{claim}_seed-{seed}{of_class}.jsonl"


def _remove_old_traces(root: Path, claims: list[Claim], recording: Recording) -> None:
    """Remove the traces of an earlier recording."""
    current = {
        trace_file(root, claim.name, claim.seeds[0], added)
        for claim in claims
        for added in ("", *recording.claims[claim.name].added)
    }
    for path in {*(root / _TRACES).glob("*.jsonl")} - current:
        path.unlink()


def _name_old_figures(root: Path, claims: list[Claim]) -> None:
    """Print which figures are of no claim; the author may have put them there."""
    names = {claim.name for claim in claims}
    for path in (root / _FIGURES).glob("*/"):
        if path.name not in names:
            print(f"{path.relative_to(root)} is of no claim: delete it, or archives have it, too")


def publish(root: Path, recording: Recording) -> None:
    """Write results/expected_metrics.json and the marked blocks of REPRODUCE.md.

    The document is filled from the file as it is read again, so that both have the same order.
    """
    write_json(root / EXPECTED, recording.as_json())
    write_document(root, read_recording(root))
