"""Recorded claims of trainings that never were, for tests of what is made of them."""

from typing import Any

from repro.results.recording import RecordedClaim
from repro.runs.conditions import Conditions


def recorded_claim(**changes: Any) -> RecordedClaim:
    """A claim of one seed on one hardware class, but for the fields that `changes` names."""
    plain: dict[str, Any] = {
        "text": "A claim",
        "arguments": [],
        "metric": "accuracy",
        "values": {"1": 0.5},
        "bits": {"here": {"1": "aa"}},
        "steps": 1,
        "conditions": Conditions({}, {}, "digest", "lock", {}),
    }
    return RecordedClaim(**{**plain, **changes})
