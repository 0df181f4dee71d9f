"""The verdict: does a claim come out again, here and now?

IDENTICAL: the weights have the recorded bits. EQUIVALENT: only the hardware class differs from
every recorded one, and the value lies inside the prediction interval of the recorded seeds.
DIFFERENT: all else. Conditions are compared first, before anything is trained: a tolerance alone
would pass a learning rate changed by a third (measured).
"""

import math
import statistics
from pathlib import Path
from typing import Any

from scipy.stats import t as student

from repro.command import UserError
from repro.conditions import differences
from repro.record import conditions_now, measure, read_claims, read_results
from repro.run import create_folder

IDENTICAL, EQUIVALENT, DIFFERENT = "IDENTICAL", "EQUIVALENT", "DIFFERENT"


def verify(root: Path, name: str | None = None, seed: int | None = None) -> str:
    """Repeat one recorded seed of a claim (default: the first ones) and print the evidence."""
    recorded = read_results(root)
    claims = {claim["name"]: claim for claim in read_claims(root)}
    name = name or next(iter(claims))
    if name not in recorded or name not in claims:
        raise UserError(f"claim {name!r}: recorded are {', '.join(recorded)}; make record")
    claim, expected = claims[name], recorded[name]
    seed = claim["seeds"][0] if seed is None else seed
    if str(seed) not in expected["values"]:
        raise UserError(f"seed {seed}: recorded for {name} are {', '.join(expected['values'])}")
    print(f"claim      {name}: {expected['text']}")
    now = conditions_now(root, {"arguments": expected["arguments"]})
    lines = differences(expected["conditions"], now["conditions"])
    if claim["arguments"] != expected["arguments"] or claim["metric"] != expected["metric"]:
        lines.append("claim: configs/claims.yaml has other arguments or another metric")
    if lines:
        print("conditions differ from the recorded ones, nothing was trained:")
        print("\n".join(f"  {line}" for line in lines))
        print("To publish results of the changed conditions: make record")
        return DIFFERENT
    print(f"conditions {', '.join(expected['conditions'])}: as recorded", flush=True)
    folder = create_folder(root / "runs" / "verify" / f"{name}_seed{seed}")
    found = measure(root, claim, seed, folder)
    return judge(expected, found, now["hardware_class"], str(seed))


def judge(expected: dict[str, Any], found: dict[str, Any], hardware: str, seed: str) -> str:
    """The verdict on a training under the recorded conditions; prints what was compared."""
    metric, bits = expected["metric"], found["bits"]
    value, recorded = found[metric], expected["values"][seed]
    print(f"\n{metric:10} {value:.6f}  recorded {recorded:.6f} (seed {seed})")
    if hardware in expected["bits"]:
        known = expected["bits"][hardware][seed]
        print(f"bits       {bits}\nrecorded   {known} ({hardware})")
        if bits == known and value != recorded:
            print("the same weights with another value: results/ or the evaluation was changed")
        return IDENTICAL if bits == known and value == recorded else DIFFERENT
    print(f"bits       recorded on {'; '.join(expected['bits'])}, but this is {hardware}")
    values = list(expected["values"].values())
    if len(values) < 3:
        print(f"{len(values)} recorded seeds do not tell the spread: at least 3 are needed")
        return DIFFERENT
    low, high = prediction_interval(values)
    print(f"interval   {low:.6f} to {high:.6f} holds 95 % of further seeds")
    return EQUIVALENT if low <= value <= high else DIFFERENT


def prediction_interval(values: list[float], level: float = 0.95) -> tuple[float, float]:
    """Where one further value of a normal sample lies with probability `level`."""
    count = len(values)
    half = float(student.ppf(0.5 + level / 2, count - 1)) * statistics.stdev(values)
    half *= math.sqrt(1 + 1 / count)
    return statistics.fmean(values) - half, statistics.fmean(values) + half
