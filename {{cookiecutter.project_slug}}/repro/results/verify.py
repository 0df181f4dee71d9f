"""Repeat a recorded training and judge whether it reproduces.

The verdicts are those of repro/results/verdict.py. Conditions are compared first, before anything
is trained: a tolerance alone would pass a learning rate changed by a third (measured).

Compared are the weights and the value of a whole training, or the traces of a part of it: of its
first steps, or of stretches that start from the author's checkpoints at random places. A part is
evidence for a small share of the cost; it tells nothing about hardware that was not recorded.
"""

import random
import time
from dataclasses import dataclass
from pathlib import Path

from repro.core import layout
from repro.core.errors import UserError, refuse
from repro.core.hashing import sha256_json
from repro.core.project import MAX_STEPS, WITH_TRACE, WITHOUT_TRACKER, run_author_command
from repro.core.read_once import reading_once
from repro.results.claims import (
    RECORDED_RUNS,
    Claim,
    asked,
    read_claims,
    read_recording,
    recorded_run,
)
from repro.results.classes import added_class
from repro.results.comparable import compared_conditions, conditions_that_differ
from repro.results.foreseen import foresee
from repro.results.judge import (
    differences_of_best,
    differences_of_evaluation,
    judge_parts,
    judge_training,
    leaves_trace,
)
from repro.results.measure import find_best, measure
from repro.results.published import trace_file
from repro.results.recording import RecordedCheckpoint, RecordedClaim
from repro.results.report import refresh_report, write_report
from repro.results.verdict import (
    DIFFERENT,
    PREFIX,
    SEGMENTS,
    WHOLE,
    Verdict,
    write_verdict,
)
from repro.runs.context import other_code
from repro.runs.folder import create_folder
from repro.runs.git import get_git_info
from repro.runs.logs import read_trace_lines
from repro.runs.saved_state import load_state
from repro.training import model_state


@dataclass(frozen=True)
class Extent:
    """What of a training is repeated: its first `prefix` steps, or `segments` of `steps` each.

    Without either, all of it. `checks_samples`: read every sample of tar files first.
    """

    prefix: int | None = None
    segments: int | None = None
    steps: int = 20
    checks_samples: bool = False

    @property
    def what(self) -> str:
        """Return the word for it in a verdict."""
        if self.prefix:
            return PREFIX
        return SEGMENTS if self.segments else WHOLE


ALL = Extent()


@reading_once()
def verify(
    root: Path, name: str | None = None, seed: int | None = None, part: Extent = ALL
) -> Verdict:
    """Repeat a recorded seed of a claim (default: the first ones), or a part of it, and judge.

    Prints the evidence, and writes it to verdict.json in a new folder of runs/verify/.
    """
    started = time.monotonic()
    claim, expected = find_claim(root, name)
    seed = _find_seed(claim, expected, seed)
    print(f"claim      {claim.name}: {expected.text}")
    now, faults = foresee(root, claim, expected.arguments)
    verdict = Verdict(
        claim.name,
        seed,
        what=part.what,
        hardware_class=now.hardware_class,
        recorded_on=[*expected.bits],
        metric=expected.metric,
        checkpoint=expected.checkpoint,
        commit=get_git_info(root).commit_hash,
        conditions_digest=sha256_json(now.conditions.shared_json()),
    )
    verdict.differences = conditions_that_differ(root, claim, expected, now)
    if verdict.differences:
        folder = _new_folder(root, verdict)
        _refuse_to_train(verdict)
    else:
        kinds = sorted(compared_conditions(expected, now.hardware_class))
        print(f"conditions {', '.join(kinds)}: as recorded", flush=True)
        refuse(faults if part.what == WHOLE else [])  # a part is not evaluated
        if part.checks_samples:
            asked(root, [*expected.arguments, "--check=full"])
            print("samples    of tar files: each one read, as it was written", flush=True)
        training = _Training(root, claim, expected, verdict)
        folder = training.folder
        training.repeat(part)
        print(f"\n{verdict.why}{verdict.what_next}")
    verdict.seconds = round(time.monotonic() - started, 1)
    written = write_verdict(folder, verdict)
    page = write_report(root, folder / "report.html").relative_to(root)
    refresh_report(root)
    print(f"\nto look at: {page}\nto send to the authors: {written.relative_to(root)}")
    return verdict


def find_claim(root: Path, name: str | None) -> tuple[Claim, RecordedClaim]:
    """Return a claim and what was recorded of it; without a name, the first claim."""
    recorded = read_recording(root).claims
    claims = {claim.name: claim for claim in read_claims(root)}
    name = name or next(iter(claims))
    if name not in recorded or name not in claims:
        known = [each for each in claims if each in recorded]
        expected = f"expected one of {', '.join(known)}, or make record" if known else "make record"
        raise UserError(f"claim {name!r} is not recorded: {expected}")
    return claims[name], recorded[name]


def _find_seed(claim: Claim, expected: RecordedClaim, seed: int | None) -> int:
    """Return the seed to repeat: the one asked for, or the claim's first that is recorded."""
    if seed is None:
        known = [number for number in claim.seeds if str(number) in expected.values]
        seed = known[0] if known else claim.seeds[0]
    if str(seed) not in expected.values:
        raise UserError(
            f"seed {seed} of {claim.name} is not recorded: expected one of "
            f"{', '.join(expected.values)}"
        )
    return seed


def _refuse_to_train(verdict: Verdict) -> None:
    """Print why nothing was trained, and what to do."""
    verdict.why = "conditions differ from the recorded ones, nothing was trained"
    print(f"{verdict.why}:")
    for line in verdict.differences:
        print(f"  {line}")
    if all(line.startswith("packages: ") for line in verdict.differences):
        print("make setup")
    else:
        print("To publish results of these: make record")


def _new_folder(root: Path, verdict: Verdict) -> Path:
    """Make the folder of a verification."""
    verified = root / layout.RUNS / layout.VERIFIED
    return create_folder(verified / f"{verdict.claim}_seed{verdict.seed}")


class _Training:
    """A recorded training that is repeated in `folder`, whole or in parts; fills a verdict."""

    def __init__(self, root: Path, claim: Claim, expected: RecordedClaim, verdict: Verdict) -> None:
        self.root = root
        self.claim = claim
        self.expected = expected
        self.verdict = verdict
        hardware = verdict.hardware_class
        known = hardware if hardware in expected.bits else None
        self.original = recorded_run(root, claim.name, expected, verdict.seed, known)
        path = trace_file(root, claim.name, verdict.seed, added_class(expected, hardware))
        self.lines = read_trace_lines(path)
        if self.original:
            self.lines = read_trace_lines(self.original / layout.TRACE) or self.lines
        if verdict.what != WHOLE:
            self._refuse_what_cannot_be_compared()
        self.folder = _new_folder(root, verdict)

    def _refuse_what_cannot_be_compared(self) -> None:
        hardware = self.verdict.hardware_class
        if hardware not in self.expected.bits:
            raise UserError(
                f"this machine is {hardware}, and the results were recorded on "
                f"{'; '.join(self.expected.bits)}: a part of a training has other bits here and "
                "tells nothing; verify the whole, without --quick, --prefix and --segments"
            )
        if not self.lines:
            raise UserError(
                f"no trace of seed {self.verdict.seed} is here, neither in {layout.RESULTS}/trace/ "
                f"nor in {RECORDED_RUNS}/: use the author's archive, or try the first seed"
            )

    @property
    def _all_steps(self) -> int:
        """The number of steps of the recorded training."""
        return self.expected.steps_on(self.verdict.hardware_class, str(self.verdict.seed))

    def repeat(self, part: Extent) -> None:
        """Train that part, and judge it."""
        if part.prefix:
            self._stretch(self.folder, 0, min(part.prefix, max(self.lines)))
            judge_parts(self.verdict, self._all_steps)
        elif part.segments:
            self._segments(part.segments, part.steps)
            judge_parts(self.verdict, self._all_steps)
        else:
            self._whole()

    def _whole(self) -> None:
        """Train and evaluate; compare weights and value."""
        verdict = self.verdict
        processes = self.expected.conditions.processes
        result = measure(self.root, self.claim, verdict.seed, self.folder, processes)
        verdict.steps = [(1, result.steps)]
        verdict.differences = other_code(self.folder, self.expected.conditions.on_disk)
        if verdict.differences:  # someone edited the project after the conditions were compared
            verdict.why = f"it was trained with other code ({verdict.differences[0]})"
            return
        judge_training(verdict, self.expected, result)
        if verdict.verdict != DIFFERENT or verdict.hardware_class not in self.expected.bits:
            return
        parting = self._parting(self.folder, 1, result.steps)
        if parting:
            verdict.differences = [parting]
            verdict.why += f"; {parting}"
        if parting and self.original:
            runs = f"{self.original} {self.folder}"
            print(f"which operation: python -m repro diff {runs} --replay")

    def _segments(self, count: int, steps: int) -> None:
        """Train stretches from the author's checkpoints at random places; compare the traces."""
        run = self.original
        folders = layout.steps_newest_first(run / layout.CHECKPOINTS) if run else []
        if run is None or not folders:
            raise UserError(
                f"{RECORDED_RUNS}/ lacks the run: use the author's archive, or --prefix"
            )
        self._compare_checkpoints(folders[0])
        self.verdict.differences += differences_of_evaluation(self.verdict, self.expected, run)
        end = max(self.lines)
        starts = [0, *(step for step in map(layout.step_of, folders) if step < end)]
        chosen = random.SystemRandom().sample(starts, min(count, len(starts)))
        if len(chosen) < count:
            print(f"earlier checkpoints of the run: {len(starts) - 1}; stretches: {len(chosen)}")
        for start in sorted(chosen):
            self._stretch(self.folder / f"from-{start}", start, min(start + steps, end))

    def _compare_checkpoints(self, last: Path) -> None:
        """Compare the weights of the author's checkpoints with the recorded bits.

        Of the last one, and of the best one if the claim is of that.
        """
        verdict = self.verdict
        seed = str(verdict.seed)
        verdict.bits = _weights_of(last)
        verdict.recorded_bits = self.expected.bits[verdict.hardware_class][seed]
        if verdict.bits != verdict.recorded_bits:
            verdict.differences.append("the last checkpoint has not the recorded bits")
        if self.expected.checkpoint == layout.BEST:
            best = find_best(f"claim {verdict.claim}, seed {seed}", last)
            verdict.best = RecordedCheckpoint(layout.step_of(best), _weights_of(best))
            verdict.recorded_best = self.expected.chosen(verdict.hardware_class, seed)
            verdict.differences += differences_of_best(verdict)

    def _stretch(self, folder: Path, start: int, last: int) -> None:
        """Train the steps after `start` up to `last` in `folder`, and compare them."""
        print(f"\nsteps {start + 1} to {last} of {self._all_steps}", flush=True)
        arguments = [*self.claim.arguments, f"seed={self.verdict.seed}", f"run_dir={folder}"]
        arguments += [WITHOUT_TRACKER, WITH_TRACE, f"{MAX_STEPS}={last}"]
        if start and self.original:
            place = layout.step_folder(self.original / layout.CHECKPOINTS, start)
            arguments.append(f"resume={place}")
        processes = self.expected.conditions.processes
        run_author_command(self.root, "train", arguments, processes=processes)
        self.verdict.steps.append((start + 1, last))
        self.verdict.differences += other_code(folder, self.expected.conditions.on_disk)
        if parting := self._parting(folder, start + 1, last):
            self.verdict.differences.append(parting)

    def _parting(self, run: Path, first: int, last: int) -> str:
        """Say where a run leaves the recorded trace, between two steps; "" if it does not."""
        lines = read_trace_lines(run / layout.TRACE)
        return leaves_trace(self.verdict, self.lines, lines, first, last)


def _weights_of(folder: Path) -> str:
    """Return the bits of the weights of a checkpoint; UserError if it is missing or damaged."""
    return model_state.weights_digest(load_state(folder)["model"])
