"""Tell whether a verdict that somebody reported follows from its own facts.

Nothing is taken from its word. What it found (bits, value, best checkpoint, hardware class, steps)
is judged anew by the values that are recorded here, as `verify` judges. Promises that a verdict
which its facts contradict is named with the contradiction, and that one of other conditions, or of
another claim, is compared with nothing.

It cannot tell whether the facts are true: whoever writes a file can write any bits into it.
"""

from dataclasses import dataclass

from repro.results.measure import SeedResult, Spent
from repro.results.recording import RecordedCheckpoint, RecordedClaim, Recording
from repro.results.reported import ReportedVerdict
from repro.results.verdict import DIFFERENT, EQUIVALENT, IDENTICAL, SEGMENTS, WHOLE, Verdict


@dataclass(frozen=True)
class Assessed:
    """A reported verdict, and how it stands to what is recorded here.

    `not_counted` says why it is compared with nothing, `contradiction` what its facts say instead
    of its verdict. Both are empty where it counts.
    """

    verdict: ReportedVerdict
    not_counted: str = ""
    contradiction: str = ""
    why: str = ""


def assess(verdict: ReportedVerdict, recording: Recording) -> Assessed:
    """Judge the facts of a reported verdict by what is recorded."""
    claim = recording.claims.get(verdict.claim)
    if claim is None:
        return Assessed(verdict, not_counted="there is no claim of this name")
    if not_counted := _why_not_counted(verdict, claim):
        return Assessed(verdict, not_counted=not_counted)
    found, why = _judge(verdict, claim)
    if found == verdict.verdict:
        return Assessed(verdict, why=why)
    if (verdict.verdict, verdict.what, found) == (EQUIVALENT, WHOLE, IDENTICAL):
        return Assessed(verdict, why="its bits are those recorded on this hardware class since")
    return Assessed(verdict, contradiction=f"its facts say {found}: {why}", why=why)


def _why_not_counted(verdict: ReportedVerdict, claim: RecordedClaim) -> str:
    """Say why a verdict tells nothing of what is recorded of its claim; "" if it does."""
    if verdict.conditions_digest != claim.conditions_digest:
        return "its conditions are not the recorded ones"
    if (verdict.metric, verdict.checkpoint) != (claim.metric, claim.checkpoint):
        return "it is of another metric or checkpoint than the claim"
    if str(verdict.seed) not in claim.values:
        return f"seed {verdict.seed} is not recorded"
    return ""


def _judge(verdict: ReportedVerdict, claim: RecordedClaim) -> tuple[str, str]:
    """Return the verdict that the facts give by the recorded values, and why."""
    if verdict.differing:
        kinds = ", ".join(sorted(verdict.differing))
        return DIFFERENT, f"what it found differs in {kinds}"
    if verdict.parted_at is not None:
        return DIFFERENT, f"it left the recorded trace at step {verdict.parted_at}"
    if not verdict.steps:
        return DIFFERENT, "it names neither steps that were compared nor what differed"
    return _judge_whole(verdict, claim) if verdict.what == WHOLE else _judge_part(verdict, claim)


def _judge_whole(verdict: ReportedVerdict, claim: RecordedClaim) -> tuple[str, str]:
    if verdict.value is None or verdict.bits is None:
        return DIFFERENT, "it has no value or no bits"
    end = claim.steps_on(verdict.hardware_class, str(verdict.seed))
    if verdict.hardware_class in claim.bits and verdict.steps != [(1, end)]:
        return DIFFERENT, f"the recorded training has {end} steps"
    from repro.results.judge import compare_training  # here: it imports SciPy's statistics

    again = Verdict(
        verdict.claim,
        verdict.seed,
        hardware_class=verdict.hardware_class,
        metric=verdict.metric,
        checkpoint=verdict.checkpoint,
    )
    best = verdict.best.recorded if verdict.best else None
    compare_training(again, claim, SeedResult(verdict.value, verdict.bits, end, Spent(), best))
    return again.verdict, again.why


def _best(claim: RecordedClaim, verdict: ReportedVerdict) -> RecordedCheckpoint | None:
    """Return the best checkpoint of that seed and class; None if the claim is of the last one."""
    return claim.best.get(verdict.hardware_class, {}).get(str(verdict.seed))


def _judge_part(verdict: ReportedVerdict, claim: RecordedClaim) -> tuple[str, str]:
    seed = str(verdict.seed)
    hardware = verdict.hardware_class
    if hardware not in claim.bits:
        return DIFFERENT, "a part tells nothing on a hardware class that was not recorded"
    end = claim.steps_on(hardware, seed)
    if any(not 1 <= first <= last <= end for first, last in verdict.steps):
        return DIFFERENT, f"the recorded training has {end} steps"
    best = verdict.best.recorded if verdict.best else None
    found = (verdict.bits, best)
    if verdict.what == SEGMENTS and found != (claim.bits[hardware][seed], _best(claim, verdict)):
        return DIFFERENT, "the checkpoints have not the recorded bits"
    return IDENTICAL, "the steps that were compared have the recorded bits"
