"""Keep what other hardware classes recorded, when this machine records under the same conditions.

A recording has one hardware class that was recorded first: values, spread, figures and cost are of
that one. Another class is added beside it and changes nothing of it. Once code, config, data, lock
or the claims differ, the results of all classes are of the past, and recording starts anew.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from repro.results.claims import EXPECTED, Claim, changed_claims, read_recording
from repro.results.recording import AddedClass, RecordedClaim, Recording
from repro.runs.conditions import Situation, differences


def comparable_recording(
    root: Path, claims: Sequence[Claim], situations: Mapping[str, Situation]
) -> Recording | None:
    """Return what is recorded, if it is of these claims under these conditions; else None.

    UserError for a recording that cannot be read: it may hold what other machines recorded.
    """
    if not (root / EXPECTED).exists():
        return None
    recording = read_recording(root)
    if changed_claims({claim.name: claim for claim in claims}, recording.claims):
        return None
    pairs = [(recording.claims[name], now) for name, now in situations.items()]
    return recording if all(_has_conditions(claim, now) for claim, now in pairs) else None


def _has_conditions(claim: RecordedClaim, now: Situation) -> bool:
    """Tell whether a claim was recorded under the conditions that hold for every class."""
    return not differences(claim.conditions.shared_json(), now.conditions.shared_json())


def added_class(claim: RecordedClaim | None, hardware: str) -> str:
    """Return the class if it is, or would be, added to the one recorded first; else ""."""
    if claim is None:
        return ""
    is_first = hardware in claim.bits and hardware not in claim.added
    return "" if is_first else hardware


def beside(earlier: Recording | None, now: Recording) -> Recording:
    """Return what is to be published: `now`, and what `earlier` holds of other hardware classes."""
    if earlier is None:
        return now
    claims = {name: _merged(earlier.claims[name], claim, now) for name, claim in now.claims.items()}
    # The commit is told of those recorded first, and each that was added tells its own.
    adds = any(added_class(earlier.claims[name], *claim.bits) for name, claim in now.claims.items())
    source = earlier if adds else now
    return replace(source, claims=claims)


def _merged(before: RecordedClaim, claim: RecordedClaim, now: Recording) -> RecordedClaim:
    """Return a claim with all its classes; `claim` is what the recording `now` has of it."""
    (hardware,) = claim.bits
    added = {**before.added}
    first = claim
    if added_class(before, hardware):
        added[hardware] = _as_added(claim, now)
        first = before
    return replace(
        first,
        bits={**before.bits, **claim.bits},
        best={**before.best, **claim.best},
        environments={**before.environments, **claim.environments},
        added=added,
    )


def _as_added(claim: RecordedClaim, now: Recording) -> AddedClass:
    """Return what of a claim's recording is kept apart from that of the class recorded first."""
    return AddedClass(
        values=claim.values,
        steps=claim.steps,
        steps_by_seed=claim.steps_by_seed,
        cost=claim.cost,
        commit=now.commit,
        dirty=now.dirty,
    )
