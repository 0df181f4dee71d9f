"""Answer what conferences' checklists ask, from what was recorded: rows of a table.

Each row has its fact, its value, where that was measured or stands, and which checklists ask for
it. Claims with the same value share a row. What nobody recorded is not there.
"""

from collections.abc import Callable, Iterator
from functools import partial
from statistics import fmean
from typing import NamedTuple

from repro.core.layout import CONTEXT
from repro.core.markdown import code, escaped
from repro.core.project import PROCESSES
from repro.publishing.reviewers.paper_facts import ClaimFacts, PaperFacts
from repro.publishing.reviewers.words import in_bytes, plural, setting_words, time_words
from repro.results.claims import RECORDED_RUNS
from repro.results.document import number
from repro.results.judge import equivalence_interval
from repro.results.paper_fields import PAPER_FIELDS
from repro.results.recording import Cost


class Fact(NamedTuple):
    """A row of the checklist; `value` and `where` are Markdown."""

    what: str
    value: str
    where: str
    asked_by: str


def recorded_at(of: ClaimFacts, *fields: str) -> str:
    """Return where fields of a claim stand in results/expected_metrics.json, as Markdown."""
    return ", ".join(code(f"claims.{of.name}.{field}") for field in fields)


def of_claims(
    facts: PaperFacts,
    what: str,
    answer: Callable[[ClaimFacts], tuple[str, str] | None],
    asked_by: str,
) -> Iterator[Fact]:
    """Return a row for each value that claims have; `answer` gives a claim's value and where."""
    answers = [(of, answered) for of in facts.claims if (answered := answer(of))]
    for value in dict.fromkeys(value for _, (value, _) in answers):
        same = [(of, where) for of, (found, where) in answers if found == value]
        labels = ", ".join(of.label for of, _ in same)
        whose = "" if len(same) == len(facts.claims) else f" ({labels})"
        yield Fact(f"{what}{whose}", value, _places(same, not whose), asked_by)


def _places(same: list[tuple[ClaimFacts, str]], are_all: bool) -> str:
    """Return where a value that several claims have stands: in the same field of each claim."""
    first = same[0][1]
    fields = {where.replace(f"claims.{of.name}.", "claims.*.") for of, where in same}
    if len(same) == 1 or len({where for _, where in same}) == 1:
        return first
    if len(fields) == 1 and are_all:
        return fields.pop()
    others = ", ".join(of.label for of, _ in same[1:])
    return f"{first}; {others} likewise"


def by_author(facts: PaperFacts, name: str) -> Fact:
    """Return the row of a field that only the author can fill."""
    field = PAPER_FIELDS[name]
    what = field.asks[0].upper() + field.asks[1:]
    return Fact(what, facts.by_author(name), code(f"paper.{name}"), field.asked_by)


# Results ------------------------------------------------------------------------------------------


def results(facts: PaperFacts) -> Iterator[Fact]:
    """Return what was claimed and measured, with its spread."""
    for of in facts.claims:
        shows = f", {escaped(of.claim.shows)}" if of.claim.shows else ""
        yield Fact(
            f"{of.label}{shows}: {escaped(of.claim.text)}",
            f"{of.value_words}, {plural(len(of.claim.values), 'seed')}",
            recorded_at(of, "mean", "standard_deviation", "interval"),
            "NeurIPS 1, 7 · ACL C3 · MLR results",
        )
    yield from of_claims(facts, "Value of each seed", _values, "NeurIPS 7 · ACL C3")
    for of in facts.claims:
        for kind, added in of.claim.added.items():
            mean = number(fmean(added.values.values()))
            count = plural(len(added.values), "seed")
            value = f"mean {mean}, {count}, on {escaped(kind)}"
            where = recorded_at(of, f"added.{kind}.values")
            yield Fact(f"{of.label} on another hardware class", value, where, "ACL C3")
    yield from of_claims(facts, "Metric", _metric, "NeurIPS 6 · MLR results")
    yield by_author(facts, "metrics")
    yield from of_claims(facts, "What the error bars are", _error_bars, "NeurIPS 7 · ACL C3")
    yield from of_claims(
        facts, "Where the value of one more seed should lie", _prediction, "NeurIPS 7"
    )
    yield from of_claims(facts, "What varies between the runs", _variation, "NeurIPS 7")
    yield from of_claims(facts, "Number of training and evaluation runs", _runs, "MLR results")


def _values(of: ClaimFacts) -> tuple[str, str]:
    values = [f"{seed}: {number(value)}" for seed, value in of.claim.values.items()]
    return ", ".join(values), recorded_at(of, "values")


def _metric(of: ClaimFacts) -> tuple[str, str]:
    return escaped(of.claim.value_name), recorded_at(of, "metric")


def _error_bars(of: ClaimFacts) -> tuple[str, str]:
    where = "`repro/results/record.py`: `summary`, `confidence_interval`"
    count = len(of.claim.values)
    if count == 1:
        return "none: there is a single run", where
    narrow = ", which is too narrow for fewer than about five seeds" if count < 5 else ""
    return (
        f"±: standard deviation over {count} seeds, with {count - 1} in the denominator. "
        "Brackets: 95 % interval of the mean, by 10,000 bootstrap samples of the seeds, drawn with "
        f"a fixed seed{narrow}",
        where,
    )


def _prediction(of: ClaimFacts) -> tuple[str, str] | None:
    interval = equivalence_interval([*of.claim.values.values()])
    if interval is None:
        return None
    low, high = interval
    return (
        f"{low:.6f} to {high:.6f}: 95 % prediction interval by Student's t, widened to hold every "
        "recorded value; `verify` takes it on a hardware class that was not recorded",
        f"from {recorded_at(of, 'values')} by `repro/results/judge.py`",
    )


def _variation(of: ClaimFacts) -> tuple[str, str]:
    by_hand = of.claim.conditions.config.get("seeds")
    fixed = setting_words(by_hand) if isinstance(by_hand, dict) else {}
    kept = [f"{name}={value}" for name, value in fixed.items()]
    value = (
        "the seed: from it follow the split of the data, the initial weights, the order of the "
        "samples, and what is drawn in training and evaluation"
    )
    if kept:
        value += f"; but all runs share {code(', '.join(kept))}"
    return value, recorded_at(of, "conditions.config.seeds")


def _runs(of: ClaimFacts) -> tuple[str, str]:
    count = len(of.claim.values)
    kinds = len(of.claim.bits)
    checkpoints = "last and best checkpoint" if of.claim.checkpoint == "best" else "last checkpoint"
    on_each = f" on each of {kinds} hardware classes" if kinds > 1 else ""
    trainings = plural(count, "training")
    return f"{trainings}{on_each}, evaluated at the {checkpoints}", recorded_at(of, "bits")


# Randomness ---------------------------------------------------------------------------------------


def randomness(facts: PaperFacts) -> Iterator[Fact]:
    """Return the seeds, and what makes the runs repeatable."""
    yield from of_claims(
        facts,
        "Seeds",
        lambda of: (", ".join(of.claim.values), recorded_at(of, "values")),
        "NeurIPS 4 · MLR results",
    )
    yield from of_claims(facts, "Deterministic operations", _determinism, "NeurIPS 4")
    yield from of_claims(
        facts,
        "Repeated bit for bit on",
        lambda of: (", ".join(map(escaped, of.claim.bits)), recorded_at(of, "bits")),
        "NeurIPS 4",
    )


def _determinism(of: ClaimFacts) -> tuple[str, str] | None:
    value = of.claim.conditions.config.get("determinism")
    if not isinstance(value, str):
        return None
    return code(f"determinism={value}"), recorded_at(of, "conditions.config.determinism")


# Compute ------------------------------------------------------------------------------------------

# The fields of a recorded cost.
_COSTS = {
    "hardware": "Hardware",
    "seconds_per_seed": "Time of a run",
    "peak_memory_mib": "Memory of a run",
}


def compute(facts: PaperFacts) -> Iterator[Fact]:
    """Return what the runs took."""
    asked = "NeurIPS 8 · ACL C1 · MLR results"
    for what in _COSTS:
        yield from of_claims(facts, _COSTS[what], partial(_first_cost, what), asked)
    for of in facts.claims:
        for kind, added in of.claim.added.items():
            for what, words in _COSTS.items():
                value, where = _cost(of, added.cost, f"added.{kind}.cost", what)
                yield Fact(f"{words} ({of.label}) on {escaped(kind)}", value, where, asked)
    yield from of_claims(facts, "Machine", lambda of: _machine(facts, of), asked)
    yield from of_claims(facts, "Disk space of a run", lambda of: _disk(facts, of), "NeurIPS 8")
    yield from of_claims(
        facts,
        "Processes of a run",
        lambda of: (
            str(of.claim.conditions.processes),
            recorded_at(of, f"conditions.config.{PROCESSES}"),
        ),
        asked,
    )
    yield Fact(
        "Total of the reported runs",
        f"{facts.time_of_all_seeds}: time of a run times number of seeds, over all claims",
        "the rows above",
        "NeurIPS 8 · ACL C1",
    )
    yield by_author(facts, "total_compute")


def _first_cost(what: str, of: ClaimFacts) -> tuple[str, str]:
    return _cost(of, of.claim.cost, "cost", what)


def _cost(of: ClaimFacts, cost: Cost | None, field: str, what: str) -> tuple[str, str]:
    """Return what a run of a claim took, of one kind, and where that stands."""
    if cost is None:
        return "not recorded", recorded_at(of, field)
    values = {
        "hardware": escaped(cost.hardware),
        "seconds_per_seed": f"{time_words(cost.seconds_per_seed)} (median over the seeds)",
        "peak_memory_mib": f"{cost.peak_memory_mib} MiB (the most that a seed took)",
    }
    return values[what], recorded_at(of, f"{field}.{what}")


def _machine(facts: PaperFacts, of: ClaimFacts) -> tuple[str, str] | None:
    machine = facts.machine(of)
    if not machine or not machine.size:
        return None
    gpus = f"; {', '.join(map(escaped, machine.gpus))}" if machine.gpus else ""
    return f"{escaped(machine.cpu)}, {machine.size}{gpus}", f"`hardware` in each run's `{CONTEXT}`"


def _disk(facts: PaperFacts, of: ClaimFacts) -> tuple[str, str] | None:
    size = facts.run_size(of)
    return (
        (f"{in_bytes(size)} (the largest)", code(f"{RECORDED_RUNS}/{of.name}/")) if size else None
    )
