"""Record what a claim's training gives, to be compared with later.

`record` trains and evaluates every seed of every claim through the author's own commands, and
publishes what they gave (repro/results/published.py). A training that was stopped is resumed. Under
the conditions of what is recorded, another hardware class is added beside it
(repro/results/classes.py).
"""

import os
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from repro.core import layout
from repro.core.errors import UserError, refuse
from repro.core.hashing import sha256_json
from repro.core.progress import duration
from repro.core.project import author_object
from repro.core.read_once import reading_once
from repro.core.text import listed
from repro.environment.locks import LOCK, not_as_locked
from repro.environment.machine import get_hardware
from repro.results.citation import CITATION, uncited, write_citation
from repro.results.claims import (
    EXPECTED,
    RECORDED_RUNS,
    Claim,
    read_claims,
    read_recording,
)
from repro.results.classes import added_class, comparable_recording
from repro.results.document import DOCUMENT, read_document
from repro.results.foreseen import foresee
from repro.results.measure import SeedResult, measure
from repro.results.published import publish_beside
from repro.results.recording import Cost, Interval, RecordedClaim, Recording
from repro.results.report import write_report
from repro.runs.conditions import Conditions, Situation, differences
from repro.runs.context import read_context
from repro.runs.git import get_git_info, is_in_history, project_tree
from repro.runs.uncommitted import uncommitted_code

WRITTEN = (layout.RESULTS, DOCUMENT, CITATION)  # by record itself


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
    written = WRITTEN if uncited(root) else (layout.RESULTS, DOCUMENT)
    if not all(os.access(root / name, os.W_OK) for name in written):
        raise UserError(f"{' or '.join(written)} cannot be written here: record outside")
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
    _say_what_stays(root, claims, situations)
    recorded = {
        claim.name: _record_claim(root, claim, situations[claim.name], schedule) for claim in claims
    }
    dirty = git.is_dirty if changed is None else bool(changed)
    runs = {claim.name: run_folder(root, claim, situations[claim.name]) for claim in claims}
    commit = git.commit_hash
    if dirty is False:
        commit = _commit_that_trained(root, claims, runs) or commit
    tree = project_tree(root, commit) if dirty is False else None
    recording = Recording(recorded, commit, dirty, tree)
    publish_beside(root, claims, situations, runs, recording)
    cited = f"{CITATION}, " if write_citation(root) else ""
    print(f"written: {EXPECTED}, {DOCUMENT}, {cited}{write_report(root).relative_to(root)}")


def _commit_that_trained(root: Path, claims: list[Claim], runs: Mapping[str, Path]) -> str | None:
    """Return the commit that all trainings were of, as it stood and in today's history; else None.

    Trainings are done once, and later commits may change what is no condition.
    """
    commits = set()
    for claim in claims:
        for seed in claim.seeds:
            for folder in layout.context_folders(runs[claim.name] / f"seed-{seed}"):
                context = read_context(folder)
                clean = context is not None and context.git.is_dirty is False
                commits.add(context.git.commit_hash if context and clean else None)
    commit = commits.pop() if len(commits) == 1 else None
    return commit if commit and is_in_history(root, commit) else None


def _say_what_stays(root: Path, claims: list[Claim], situations: Mapping[str, Situation]) -> None:
    """Print, before anything is trained, what becomes of the classes that are recorded."""
    earlier = comparable_recording(root, claims, situations)
    if earlier:
        for name, now in situations.items():
            if added := added_class(earlier.claims[name], now.hardware_class):
                others = listed([*earlier.claims[name].bits])
                print(f"{name}: {added} is added, beside {others}, which stays")
    elif (root / EXPECTED).exists():
        classes = {name for claim in read_recording(root).claims.values() for name in claim.bits}
        print(
            f"what is recorded of {listed(sorted(classes))} is of other conditions, and is replaced"
        )


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


def _record_claim(root: Path, claim: Claim, now: Situation, schedule: _Schedule) -> RecordedClaim:
    """Train and evaluate every seed of a claim."""
    folder = run_folder(root, claim, now)
    results = {}
    for seed in claim.seeds:
        schedule.announce(claim.name, seed)
        started = time.monotonic()
        run = folder / f"seed-{seed}"
        results[seed] = measure(root, claim, seed, run, now.conditions.processes)
        refuse_other_conditions(run, now.conditions)
        schedule.done(time.monotonic() - started)
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
        conditions=replace(now.conditions, environment={}),
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
