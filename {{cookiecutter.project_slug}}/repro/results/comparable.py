"""Tell which of the recorded conditions a training here would not have.

Those that belong to a hardware class, the profile and its variables, are compared with what was
recorded of that class. Another class has others by its nature: there they tell nothing.
"""

import sysconfig
from pathlib import Path

from repro.core.files import JsonObject
from repro.environment.import_paths import shadows
from repro.environment.profile import lacks_for_portable
from repro.results.claims import Claim
from repro.results.recording import RecordedClaim
from repro.runs.conditions import PORTABLE_CLASS, Situation, differences


def conditions_that_differ(
    root: Path, claim: Claim, expected: RecordedClaim, now: Situation
) -> list[str]:
    """Return one line for each condition that is not the recorded one, and for each leak."""
    kinds = compared_conditions(expected, now.hardware_class)
    found = now.conditions.as_json()
    lines = differences(kinds, {kind: found[kind] for kind in kinds})
    if now.hardware_class not in expected.bits and PORTABLE_CLASS in expected.bits:
        lines += _left_without_need(now)
    lines += shadows(root, Path(sysconfig.get_path("purelib")))
    if claim.arguments != expected.arguments or claim.metric != expected.metric:
        lines.append("claim: configs/claims.yaml has other arguments or another metric")
    if claim.checkpoint != expected.checkpoint:
        lines.append(f"claim: checkpoint is {claim.checkpoint}, recorded {expected.checkpoint}")
    return lines


def compared_conditions(expected: RecordedClaim, hardware: str) -> JsonObject:
    """Return the recorded conditions that a run on a hardware class is compared with.

    What belongs to the class, the profile and its variables, is compared within a class only.
    """
    if hardware in expected.bits:
        return expected.conditions_on(hardware).as_json()
    return expected.conditions.shared_json()


def _left_without_need(now: Situation) -> list[str]:
    """Return a line if this machine could have run what was recorded, and another was asked for.

    Otherwise a run that leaves the recorded profile without need would be judged by its value.
    """
    profile = now.conditions.environment.get("profile")
    is_other_cpu = now.hardware_class.startswith("cpu ") and not lacks_for_portable()
    if not is_other_cpu or profile == "portable":
        return []
    return [f"profile is {profile}, recorded portable, which this machine can have: profile=auto"]
