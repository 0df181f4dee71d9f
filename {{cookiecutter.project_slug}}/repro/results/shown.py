"""Put together what the page says of verdicts: who found what, on which machine.

A verdict of runs/verify/ was "verified here". One that somebody sent is "reported, not checked",
whatever it says: here only its facts were compared with what is recorded. Both stand in one table
of who got which bits, by hardware class and seed.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from repro.core.progress import duration
from repro.results.assessed import Assessed
from repro.results.recording import RecordedCheckpoint, RecordedClaim
from repro.results.reported import LONGEST, ReportedVerdict
from repro.results.verdict import (
    DIFFERENT,
    EQUIVALENT,
    IDENTICAL,
    PREFIX,
    SEGMENTS,
    WHOLE,
    Verdict,
    outcome_word,
)

RECORDED = "recorded"
HERE = "verified here"
REPORTED_ONLY = "reported, not checked"
IN_CONTRADICTION = "reported, in contradiction to its verdict"
CONTRADICTED = "CONTRADICTION"  # in the place of a verdict
# In the order in which they are shown.
_WORDS = (
    *(IDENTICAL, EQUIVALENT, *(outcome_word(IDENTICAL, part) for part in (PREFIX, SEGMENTS))),
    *(DIFFERENT, *(outcome_word(DIFFERENT, part) for part in (PREFIX, SEGMENTS)), CONTRADICTED),
)
_COMPARED = {WHOLE: "whole training", PREFIX: "start of the training", SEGMENTS: "stretches"}
_UNKNOWN = "hardware not told"
_SHOWN_STRETCHES = 20


class ShownVerdict(NamedTuple):
    """A verdict on a claim; `word` is the one that it is shown as, `why` and `differing` why.

    `seconds`: how long each verification took that said the same, so far as it tells.
    """

    word: str
    origin: str
    hardware: str
    compared: str
    why: str
    differing: tuple[str, ...]
    is_of_others: bool = False
    times: int = 1
    seconds: tuple[float, ...] = ()


class Outcomes(NamedTuple):
    """What verdicts of one origin say, each word with how often it was said."""

    origin: str
    times: dict[str, int]


class Gave(NamedTuple):
    """What the whole training of a seed gave: the value, the bits of the weights.

    `best` is there for a claim of the best checkpoint.
    """

    seed: int
    value: float | None
    bits: str
    best: RecordedCheckpoint | None


class BitsRow(NamedTuple):
    """What a training gave on a hardware class, and who got that: "recorded", "verified here"."""

    gave: Gave
    who: list[str]


def shown_own(verdict: Verdict, claim: RecordedClaim) -> ShownVerdict:
    """Return what the page says of a verdict that was given here."""
    return ShownVerdict(
        outcome_word(verdict.verdict, verdict.what),
        HERE,
        verdict.hardware_class or _UNKNOWN,
        compared(verdict),
        verdict.why,
        tuple(verdict.differences),
        is_of_others(verdict, claim),
        seconds=_known(verdict.seconds),
    )


def shown_reported(assessed: Assessed) -> ShownVerdict:
    """Return what the page says of a verdict that somebody sent, and that counts."""
    verdict = assessed.verdict
    why = assessed.why
    word = outcome_word(verdict.verdict, verdict.what)
    if assessed.contradiction:
        word = CONTRADICTED
        why = f"it says {verdict.verdict}, but {assessed.contradiction}"
    return ShownVerdict(
        word,
        REPORTED_ONLY,
        verdict.hardware_class,
        compared(verdict),
        why,
        tuple(differing_kinds(verdict)),
        seconds=_known(verdict.seconds),
    )


def _known(seconds: float | None) -> tuple[float, ...]:
    return () if seconds is None else (seconds,)


def together(verdicts: Iterable[ShownVerdict]) -> list[ShownVerdict]:
    """Return one for all verdicts that say the same; those of other conditions come last."""
    found: dict[ShownVerdict, ShownVerdict] = {}
    for verdict in verdicts:
        said = verdict._replace(times=1, seconds=())
        others = found.get(said, said._replace(times=0))
        times = others.times + verdict.times
        found[said] = said._replace(times=times, seconds=others.seconds + verdict.seconds)
    return sorted(found.values(), key=lambda verdict: verdict.is_of_others)


def differing_kinds(verdict: ReportedVerdict) -> list[str]:
    """Return a line for each kind of condition that differed, with the number of its lines."""
    return [f"{kind}: {count}" for kind, count in sorted(verdict.differing.items())]


def compared(verdict: Verdict | ReportedVerdict) -> str:
    """Say what a verdict compared: how much of which seed's training."""
    what = f"{_COMPARED.get(verdict.what, verdict.what)}, seed {verdict.seed}: "
    if not verdict.steps:
        return what + "nothing was trained"
    count = sum(last - first + 1 for first, last in verdict.steps)
    stretches = [f"{first} to {last}" for first, last in verdict.steps[:_SHOWN_STRETCHES]]
    more = len(verdict.steps) - len(stretches)
    tail = f" and {more} more" if more else ""
    return f"{what}{count} steps compared, {', '.join(stretches)}{tail}"


def lasting(seconds: Sequence[float]) -> str:
    """Say how long verifications took: from the shortest to the longest."""
    ends = dict.fromkeys(_told(number) for number in (min(seconds), max(seconds)))
    return " to ".join(ends)


def _told(seconds: float) -> str:
    if not 0 <= seconds < LONGEST:  # a file of runs/verify/ may be damaged and hold any number
        return f"{seconds} s"
    return f"{seconds:.1f} s" if seconds < 120 else f"{duration(seconds)} (h:mm:ss)"


def outcomes(verdicts: Iterable[ShownVerdict]) -> list[Outcomes]:
    """Count the verdicts on a claim by who gave them and by what they say.

    A verdict of other conditions says nothing of the claim as it is recorded.
    """
    counts: dict[str, Counter[str]] = {}
    for verdict in verdicts:
        if not verdict.is_of_others:
            counts.setdefault(verdict.origin, Counter())[verdict.word] += 1
    return [
        Outcomes(origin, {word: of_origin[word] for word in _WORDS if word in of_origin})
        for origin, of_origin in counts.items()
    ]


def bits_by_class(
    claim: RecordedClaim, own: Iterable[Verdict], reported: Iterable[Assessed]
) -> dict[str, list[BitsRow]]:
    """Return by hardware class what whole trainings gave, by seed; the recorded classes first."""
    table: dict[str, dict[Gave, Counter[str]]] = {}

    def add(hardware: str, gave: Gave, who: str) -> None:
        table.setdefault(hardware, {}).setdefault(gave, Counter())[who] += 1

    for hardware, bits in claim.bits.items():
        for seed, digest in bits.items():
            value = claim.values_on(hardware).get(seed)
            best = claim.best.get(hardware, {}).get(seed)
            add(hardware, Gave(int(seed), value, digest, best), RECORDED)
    for verdict in own:
        if verdict.what == WHOLE and verdict.bits and not is_of_others(verdict, claim):
            gave = Gave(verdict.seed, verdict.value, verdict.bits, verdict.best)
            add(verdict.hardware_class or _UNKNOWN, gave, HERE)
    for assessed in reported:
        told = assessed.verdict
        if told.what == WHOLE and told.bits and not assessed.not_counted:
            best = told.best.recorded if told.best else None
            who = IN_CONTRADICTION if assessed.contradiction else REPORTED_ONLY
            add(told.hardware_class, Gave(told.seed, told.value, told.bits, best), who)
    return {
        hardware: [
            BitsRow(gave, [who if n == 1 else f"{n} times {who}" for who, n in counts.items()])
            for gave, counts in sorted(rows.items(), key=lambda row: row[0].seed)
        ]
        for hardware, rows in table.items()
    }


def is_of_others(verdict: Verdict, claim: RecordedClaim) -> bool:
    """Tell whether a verdict was given under other conditions than those recorded now."""
    digest = verdict.conditions_digest
    return bool(digest) and digest != claim.conditions_digest
