"""Tell whether runs of the same conditions and seed came out the same, in their bits and metrics.

Other bits mean that something is left to chance. Equal bits with other metrics mean that something
outside the weights decided those: state that no checkpoint holds, or an unseeded evaluation.
"""

import shlex
from dataclasses import dataclass
from pathlib import Path

from repro.core.files import Json, read_object
from repro.core.layout import CHECKPOINTS, EVALUATION
from repro.runs.metric_values import differing_metrics, shown_values
from repro.runs.run_result import RunResult


@dataclass(frozen=True)
class OtherMetric:
    """A metric that is not the same in two runs of equal bits; None where a run has none of it.

    `source`: "test" or "validation".
    """

    source: str
    metric: str
    runs: tuple[str, str]
    values: tuple[float | None, float | None]


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
    """Find the first metric in which a run differs from the first run that has such metrics."""
    for source in ("test", "validation"):
        first, *others = [run for run in runs if run.metrics(source)] or runs
        for other in others:
            if source == "test" and _evaluated_step(first) != _evaluated_step(other):
                continue  # metrics.json of one is that of its best checkpoint
            a = first.metrics(source)
            b = other.metrics(source)
            for name in differing_metrics(a, b):
                names = (first.run, other.run)
                return OtherMetric(source, name, names, (a.get(name), b.get(name)))
    return None


def _evaluated_step(run: RunResult) -> Json:
    """Return the step of the checkpoint that metrics.json is of."""
    return read_object(Path(run.run, EVALUATION)).get("step")


def _bits(run: RunResult) -> str:
    """Return the bits of the evaluation, or of the last checkpoint."""
    from repro.training import checkpoint, model_state  # only here: torch takes its time

    if run.bits:
        return run.bits
    newest = checkpoint.newest_whole(Path(run.run, CHECKPOINTS))
    return model_state.weights_digest(checkpoint.load(newest)["model"])


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
    print(f"  {other.source} {other.metric} is {a} in {one}, {b} in {two}")
    print(f"  to see where: python -m repro diff {shlex.join(other.runs)}")
