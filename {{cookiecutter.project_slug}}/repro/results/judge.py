"""Judge a whole training by its bits, or, on other hardware, by its value.

On a recorded hardware class bits and value have to be the recorded ones. On another one the value
has to lie where 95 % of further seeds would, by the recorded ones.
"""

import math
import statistics

from scipy.stats import t as student

from repro.results.claims import Interval, RecordedClaim
from repro.results.measure import SeedResult
from repro.results.verdict import DIFFERENT, EQUIVALENT, IDENTICAL, Verdict

ENOUGH_SEEDS = 3  # to tell a spread


def judge_training(verdict: Verdict, expected: RecordedClaim, result: SeedResult) -> None:
    """Judge a whole training under the recorded conditions; print what was compared."""
    seed = str(verdict.seed)
    recorded = expected.values[seed]
    verdict.value = result.value
    verdict.recorded = recorded
    verdict.bits = result.bits
    print(f"\n{verdict.metric:10} {result.value:.6f}  recorded {recorded:.6f} (seed {seed})")
    values = [*expected.values.values()]
    if len(values) > 1:
        apart = abs(result.value - recorded) / (statistics.stdev(values) or math.inf)
        print(f"{'':10} {apart:.2f} standard deviations of the recorded seeds apart")
    if verdict.hardware_class in expected.bits:
        verdict.recorded_bits = expected.bits[verdict.hardware_class][seed]
        print(f"bits       {result.bits}")
        print(f"recorded   {verdict.recorded_bits} ({verdict.hardware_class})")
        _judge_bits(verdict)
    else:
        known = "; ".join(expected.bits)
        print(f"bits       recorded on {known}, but this is {verdict.hardware_class}")
        _judge_value(verdict, result.value, values)


def _judge_bits(verdict: Verdict) -> None:
    """Judge a training on a recorded hardware class: its bits and its value."""
    if verdict.bits != verdict.recorded_bits:
        verdict.why = "the weights have other bits under the same conditions"
    elif verdict.value != verdict.recorded:
        verdict.why = "the same weights, another value: results/ or the evaluation was changed"
    else:
        verdict.verdict = IDENTICAL
        verdict.why = "weights and value have the recorded bits"


def _judge_value(verdict: Verdict, value: float, recorded: list[float]) -> None:
    """Judge a training on another hardware class by the interval of the recorded seeds."""
    if len(recorded) < ENOUGH_SEEDS:
        verdict.why = (
            f"{len(recorded)} recorded seeds do not tell the spread: at least {ENOUGH_SEEDS} are "
            "needed"
        )
        return
    low, high = prediction_interval(recorded)
    low = min(low, *recorded)  # where all are the same number, their mean may be rounded past it
    high = max(high, *recorded)
    verdict.interval = (low, high)
    print(f"interval   {low:.6f} to {high:.6f} holds 95 % of further seeds")
    inside = low <= value <= high
    verdict.verdict = EQUIVALENT if inside else DIFFERENT
    verdict.why = (
        "this hardware class was not recorded, so bits may differ; the value lies "
        f"{'inside' if inside else 'outside'} the interval of the recorded seeds"
    )


def prediction_interval(values: list[float], level: float = 0.95) -> Interval:
    """Return where one further value of a normal sample lies with probability `level`."""
    count = len(values)
    half = float(student.ppf(0.5 + level / 2, count - 1)) * statistics.stdev(values)
    half *= math.sqrt(1 + 1 / count)
    return statistics.fmean(values) - half, statistics.fmean(values) + half
