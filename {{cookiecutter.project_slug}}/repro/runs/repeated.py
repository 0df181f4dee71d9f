"""Tell whether runs of the same conditions and seed came out the same, in their bits and metrics.

Other bits mean that something is left to chance. Equal bits with other metrics mean that something
outside the weights decided those: state that no checkpoint saves, or an unseeded evaluation. Or the
evaluations ran on other hardware or with other code, which a run does not write down.
"""

import shlex
from dataclasses import dataclass
from pathlib import Path

from repro.core.files import Json
from repro.core.layout import CHECKPOINTS, EVALUATION, METRICS
from repro.runs.metric_values import differing_metrics, shown_values
from repro.runs.run_result import LAST_EVALUATION, RunResult


@dataclass(frozen=True)
class OtherMetric:
    """A metric that is not the same in two runs of equal bits; None where a run has none of it.

    `source`: "test" or "validation". `file`: its name in both runs. `step`: what was measured.
    """

    source: str
    file: str
    step: int
    metric: str
    runs: tuple[str, str]
    values: tuple[Json, Json]


@dataclass(frozen=True)
class Repeated:
    """Runs of the same conditions and seed, and whether they have the same bits.

    `other_metric`: the first one that differs although the bits are equal.
    """

    runs: list[str]
    equal_bits: bool
    other_metric: OtherMetric | None = None


def judge_repeated(runs: list[RunResult]) -> Repeated:
    """Tell whether runs of the same conditions and seed have the same bits and metrics."""
    equal_bits = len({_bits(run) for run in runs}) == 1
    other_metric = _other_metric(runs) if equal_bits else None
    return Repeated([run.run for run in runs], equal_bits, other_metric)


def _other_metric(runs: list[RunResult]) -> OtherMetric | None:
    """Find the first metric that differs between two runs in files of one name and step.

    The step matters: metrics.json of one run may be that of its best checkpoint.
    """
    for file in (EVALUATION, LAST_EVALUATION, METRICS):
        firsts: dict[int, RunResult] = {}
        for run in runs:
            if file not in run.measured:
                continue
            first = firsts.setdefault(run.measured[file].step, run)
            if found := _difference(file, first, run):
                return found
    return None


def _difference(file: str, one: RunResult, two: RunResult) -> OtherMetric | None:
    a = one.measured[file].metrics
    b = two.measured[file].metrics
    differing = differing_metrics(a, b)
    if not differing:
        return None
    return OtherMetric(
        source="validation" if file == METRICS else "test",
        file=file,
        step=one.measured[file].step,
        metric=differing[0],
        runs=(one.run, two.run),
        values=(a.get(differing[0]), b.get(differing[0])),
    )


def _bits(run: RunResult) -> str:
    """Return the bits of the evaluation, or of the last checkpoint."""
    from repro.runs.saved_state import load_state  # only here: torch takes its time
    from repro.training import checkpoint, model_state

    if run.bits:
        return run.bits
    newest = checkpoint.newest_whole(Path(run.run, CHECKPOINTS))
    return model_state.weights_digest(load_state(newest)["model"])


def print_repeated(repeated: Repeated) -> None:
    """Say of runs of the same conditions and seed whether they came out the same."""
    runs = ", ".join(repeated.runs)
    if repeated.other_metric:
        _print_other_metric(repeated.other_metric, runs)
        return
    if repeated.equal_bits:
        print(f"same conditions and seed, equal bits: {runs}")
        return
    print(f"same conditions and seed, OTHER BITS: something is left to chance: {runs}")
    print(f"  to see where: python -m repro diff {shlex.join(repeated.runs[:2])}")


def _print_other_metric(other: OtherMetric, runs: str) -> None:
    start = "same conditions and seed, equal bits, OTHER METRICS"
    print(f"{start}: something outside the weights decided them: {runs}")
    a, b = shown_values(*other.values)
    one, two = other.runs
    where = f"{other.source} {other.metric} ({other.file}, step {other.step})"
    print(f"  {where} is {a} in {one}, {b} in {two}")
    if other.source == "test":
        print("  Or the two evaluations ran on other hardware or with other code:")
        print("  evaluate both again here.")
    print(f"  to see where: python -m repro diff {shlex.join(other.runs)}")
