"""Verify in about a minute: how many first steps that is, and what may be said of a part.

A part that has the recorded bits is evidence and no verdict: nothing was evaluated, and the steps
after it may part from the recorded ones. So its answer has words of its own, and never those of a
verdict on a whole training.
"""

from pathlib import Path

from repro.results.claims import read_recording
from repro.results.recording import RecordedClaim
from repro.results.verdict import IDENTICAL, WHOLE, Verdict, outcome_word
from repro.results.verify import find_claim

MINUTE = 60  # seconds
_STEPS_WITHOUT_COST = 20  # of a recording that does not tell what a training takes


def first_minute(root: Path, name: str | None) -> int:
    """Return how many first steps of a claim's training take about a minute, at least one.

    By the cost that was recorded; `name`: as for `verify`.
    """
    _, claim = find_claim(root, name)
    return steps_of_a_minute(claim)


def steps_of_a_minute(claim: RecordedClaim) -> int:
    """Return the number of steps that took a minute where the claim was recorded first."""
    if claim.cost is None:
        return min(_STEPS_WITHOUT_COST, claim.steps)
    seconds = max(claim.cost.seconds_per_seed, 1)
    return max(1, min(claim.steps, claim.steps * MINUTE // seconds))


def outcome(root: Path, verdict: Verdict) -> str:
    """Return the verdict on a whole training, or what a part says: PREFIX AGREES (n of m steps)."""
    if verdict.what == WHOLE:
        return verdict.verdict
    word = outcome_word(verdict.verdict, verdict.what)
    if verdict.verdict != IDENTICAL:
        return f"{word}: {verdict.why}"
    done = {step for first, last in verdict.steps for step in range(first, last + 1)}
    claim = read_recording(root).claims[verdict.claim]
    steps = claim.steps_on(verdict.hardware_class, str(verdict.seed))
    # All steps of a short training are a part, too: it has no value that could be compared.
    rest = "; the value was not evaluated" if len(done) == steps else ""
    return f"{word} ({len(done)} of {steps} steps{rest})"
