"""Judge a whole training by its bits, or, on other hardware, by its value; a part by its trace.

On a recorded hardware class bits and value have to be the recorded ones: those of the last
checkpoint, and for a claim of the best one its step and bits as well. On another hardware class the
value has to lie where 95 % of further seeds would, by the recorded ones.
"""

import math
import statistics
from collections.abc import Mapping
from pathlib import Path

from scipy.stats import t as student

from repro.core import layout
from repro.core.errors import UserError
from repro.core.files import read_object
from repro.diagnosis.diff import first_difference
from repro.results.measure import SeedResult
from repro.results.recording import Interval, RecordedClaim
from repro.results.verdict import EQUIVALENT, IDENTICAL, WHOLE, Verdict
from repro.runs.logs import TraceLine

ENOUGH_SEEDS = 3  # to tell a spread


def judge_training(verdict: Verdict, expected: RecordedClaim, result: SeedResult) -> None:
    """Judge a whole training under the recorded conditions; print what was compared."""
    compare_training(verdict, expected, result)
    recorded = expected.values_on(verdict.hardware_class)[str(verdict.seed)]
    of = f"seed {verdict.seed}, best checkpoint" if result.best else f"seed {verdict.seed}"
    print(f"\n{verdict.metric:10} {result.value:.6f}  recorded {recorded:.6f} ({of})")
    values = [*expected.values_on(verdict.hardware_class).values()]
    if len(values) > 1:
        apart = abs(result.value - recorded) / (statistics.stdev(values) or math.inf)
        print(f"{'':10} {apart:.2f} standard deviations of the recorded seeds apart")
    if verdict.hardware_class in expected.bits:
        print(f"bits       {result.bits}")
        print(f"recorded   {verdict.recorded_bits} ({verdict.hardware_class})")
        if result.best:
            print(f"best       {result.best}")
            print(f"recorded   {verdict.recorded_best}")
        return
    known = "; ".join(expected.bits)
    print(f"bits       recorded on {known}")
    print(f"           not compared: this is {verdict.hardware_class}, which may round otherwise")
    if verdict.interval:
        low, high = verdict.interval
        print(f"interval   {low:.6f} to {high:.6f} holds 95 % of further seeds")


def compare_training(verdict: Verdict, expected: RecordedClaim, result: SeedResult) -> None:
    """Fill a verdict by what a whole training gave, and by what was recorded of its seed."""
    seed = str(verdict.seed)
    values_by_seed = expected.values_on(verdict.hardware_class)
    verdict.value = result.value
    verdict.recorded = values_by_seed[seed]
    verdict.bits = result.bits
    verdict.best = result.best
    if verdict.hardware_class in expected.bits:
        verdict.recorded_bits = expected.bits[verdict.hardware_class][seed]
        if expected.checkpoint == layout.BEST:
            verdict.recorded_best = expected.chosen(verdict.hardware_class, seed)
        _judge_bits(verdict)
    else:
        _judge_value(verdict, result.value, [*values_by_seed.values()])


def _judge_bits(verdict: Verdict) -> None:
    """Judge a training on a recorded hardware class: its bits and its value."""
    faults = []
    if verdict.bits != verdict.recorded_bits:
        faults.append("the weights have other bits under the same conditions")
    faults += differences_of_best(verdict)
    if not faults and verdict.value != verdict.recorded:
        faults.append("the same weights, another value: results/ or the evaluation was changed")
    if faults:
        verdict.why = "; ".join(faults)
        return
    verdict.verdict = IDENTICAL
    verdict.why = "weights and value have the recorded bits"
    if verdict.checkpoint == layout.BEST:
        verdict.why = "weights, last and best, and the value have the recorded bits"


def differences_of_best(verdict: Verdict) -> list[str]:
    """Return a line if the best checkpoint is not the recorded one; nothing if neither has one."""
    here = verdict.best
    recorded = verdict.recorded_best
    if here == recorded:
        return []
    if here and recorded and here.step != recorded.step:
        return [f"the best checkpoint is of step {here.step}, recorded {recorded.step}"]
    return ["the best checkpoint has other bits under the same conditions"]


def differences_of_evaluation(verdict: Verdict, expected: RecordedClaim, run: Path) -> list[str]:
    """Return a line if the metrics file in the recorded `run` has not the recorded value.

    Nothing if the file is missing, or is of other weights than the recorded ones.
    """
    path = run / layout.EVALUATION
    if expected.checkpoint == layout.BEST:  # metrics.json may be of the last one
        path = layout.evaluation_file(run, layout.BEST)
    metrics = read_object(path)
    seed = str(verdict.seed)
    chosen = expected.chosen(verdict.hardware_class, seed)
    if chosen is None or metrics.get("bits") != chosen.bits:
        return []
    value = metrics.get(expected.metric)
    recorded = expected.values_on(verdict.hardware_class)[seed]
    if value == recorded:
        return []
    name = f"{path.name} of the recorded run"
    return [f"{name} has {expected.metric} {value}, recorded {recorded}"]


def _judge_value(verdict: Verdict, value: float, recorded: list[float]) -> None:
    """Judge a training on another hardware class by the interval of the recorded seeds."""
    interval = equivalence_interval(recorded)
    if interval is None:
        verdict.why = (
            f"{len(recorded)} recorded seeds do not tell the spread: at least {ENOUGH_SEEDS} are "
            "needed"
        )
        return
    low, high = interval
    verdict.interval = (low, high)
    where = "this hardware class was not recorded, so the value was compared and not the bits"
    if low <= value <= high:
        verdict.verdict = EQUIVALENT
        verdict.why = f"{where}: it lies inside the interval of the recorded seeds"
        return
    verdict.why = (
        f"{where}: it lies outside the interval of the recorded seeds, as 5 % of good trainings do "
        "(try --seed with another one)"
    )


def equivalence_interval(recorded: list[float]) -> Interval | None:
    """Return where a value on another hardware class is EQUIVALENT; None without enough seeds."""
    if len(recorded) < ENOUGH_SEEDS:
        return None
    low, high = prediction_interval(recorded)
    # Where all are the same number, their mean may be rounded past it.
    return min(low, *recorded), max(high, *recorded)


def prediction_interval(values: list[float], level: float = 0.95) -> Interval:
    """Return where one further value of a normal sample lies with probability `level`."""
    count = len(values)
    half = float(student.ppf(0.5 + level / 2, count - 1)) * statistics.stdev(values)
    half *= math.sqrt(1 + 1 / count)
    return statistics.fmean(values) - half, statistics.fmean(values) + half


def judge_parts(verdict: Verdict, steps: int) -> None:
    """Judge parts of a training, of `steps` steps in all, by the differences that were found."""
    if verdict.differences:
        verdict.why = "; ".join(verdict.differences)
        return
    done: set[int] = set()  # stretches may overlap
    for first, last in verdict.steps:
        done.update(range(first, last + 1))
    verdict.verdict = IDENTICAL
    verdict.why = f"{len(done)} of {steps} steps have the recorded bits, loss to weights"


def leaves_trace(
    verdict: Verdict,
    recorded: Mapping[int, TraceLine],
    lines: Mapping[int, TraceLine],
    first: int,
    last: int,
) -> str:
    """Say where a run leaves the recorded trace, between two steps; "" if it does not.

    UserError if the recorded trace lacks one of the steps that were repeated as a part.
    """
    for step in range(first - 1, last + 1):  # 0 is before the first
        if step not in recorded and verdict.what == WHOLE:
            return ""  # a clone has the first steps only
        if step not in recorded:
            raise UserError(f"the recorded trace lacks step {step}: nothing to compare with")
        if step not in lines:
            return f"step {step} was not done"
        parting = first_difference(recorded[step], lines[step])
        if parting:
            then, here = parting.values
            where = f"at step {step}" if step else "before the first step"
            return f"they part {where}: {parting.quantity} {here}, recorded {then}"
    return ""
