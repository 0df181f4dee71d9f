"""Write what a reviewer does, for the artifact appendix: install, run, compare.

Promises commands that can be pasted as they stand, in the folder of the unpacked archive, and says
of each what it should print, how long it takes and what may differ on another machine.
"""

from collections.abc import Iterator
from itertools import count

from repro.core.layout import CHECKPOINTS
from repro.core.markdown import as_sentence, block, code, escaped, row, table
from repro.publishing.reviewers.paper_facts import (
    RECREATE,
    SETUP_DISK_GB,
    SETUP_DOWNLOAD_GB,
    SETUP_MINUTES,
    ClaimFacts,
    PaperFacts,
)
from repro.publishing.reviewers.words import plural, short_digest, time_words
from repro.results.document import DOCUMENT, number
from repro.results.judge import ENOUGH_SEEDS, equivalence_interval
from repro.results.recording import RecordedClaim


def installation() -> Iterator[str]:
    """Say how to install."""
    yield "## A.4 Installation"
    yield (
        "Run these commands in the folder of the unpacked artifact. Installing takes "
        f"about {SETUP_MINUTES} minutes, most of them for downloads ({SETUP_DOWNLOAD_GB} GB under "
        f"Linux), and {SETUP_DISK_GB} GB on disk. After that a training needs no network, "
        "unless its data are downloaded (A.3.4)."
    )
    yield block(["make setup", "source .venv/bin/activate"])
    yield (
        "`./verify.sh` (or `sh verify.sh`) installs as well, needs no make, and verifies: see T2. "
        f"{DOCUMENT} says how to use Docker or conda instead. `python -m repro doctor "
        "--environment` compares each installed file with the lock."
    )


def workflow(facts: PaperFacts) -> Iterator[str]:
    """Say which tasks there are, in their order."""
    first = facts.claims[0]
    yield "## A.5 Experiment workflow"
    yield (
        "T1 → T2 → T3 → T4; T3 alone decides on the claims. In ten minutes `sh verify.sh --quick` "
        "checks the files, installs, and does T2."
    )
    yield table(
        "task | what it does | command | time",
        [
            row("**T1**", "installs", code("make setup"), f"about {SETUP_MINUTES} min"),
            row(
                "**T2**",
                f"compares the first steps of {first.label}, on a recorded hardware class",
                code(f"python -m repro verify {first.name} --quick"),
                "about a minute",
            ),
            row(
                "**T3**",
                "repeats one seed of each claim, and judges (A.6)",
                code("python -m repro verify CLAIM"),
                facts.time_of_one_seed,
            ),
            row(
                "**T4**",
                "trains all seeds and makes every recorded file anew",
                code(RECREATE),
                facts.time_of_all_seeds,
            ),
        ],
    )
    yield (
        "The times of T3 and T4 are those that the training commands took when they were recorded, "
        "on the machines of A.3.2. Evaluating and comparing comes on top. T4 makes the files of "
        "`codecheck.yml`'s manifest; only the recorded time and memory differ in them."
    )


def evaluation(facts: PaperFacts) -> Iterator[str]:
    """Say for each claim what to run and what to expect."""
    yield "## A.6 Evaluation and expected results"
    for of in facts.claims:
        yield f"### {of.label}: {escaped(of.name)}"
        yield _what_is_claimed(of)
        seed = next(iter(of.claim.values))
        yield block([f"python -m repro verify {of.name} --seed {seed}"])
        yield "\n".join(_expected(of))
        yield table("hardware class | seed | value | weights (SHA-256)", _values(of))
    yield (
        f"Digests are cut here; {DOCUMENT} has them whole. `verify` prints the evidence, ends with "
        "the verdict, and writes it to `runs/verify/*/verdict.json` and a page to look at. Its "
        "exit code is 0 for IDENTICAL and EQUIVALENT, 1 for DIFFERENT, 2 if there is nothing to "
        "compare with."
    )


def _what_is_claimed(of: ClaimFacts) -> str:
    claim = of.claim
    shows = f" In the paper: {escaped(claim.shows)}." if claim.shows else ""
    runs = plural(len(claim.values), "seed")
    return (
        f"{as_sentence(claim.text)}{shows} Expected: {of.value_words} over {runs}. Trained by "
        f"{code(of.train_command, in_cell=False)}."
    )


def _expected(of: ClaimFacts) -> Iterator[str]:
    """Say what the verdict should be, on which machine, and how long it takes."""
    kinds = ", ".join(code(kind, in_cell=False) for kind in of.claim.bits)
    yield f"- On {kinds}: **IDENTICAL**, with the bits below."
    yield f"- On another hardware class: {_elsewhere(of.claim)}"
    cost = of.claim.cost
    if cost is None:
        yield "- Time and memory were not recorded."
        return
    seeds = len(of.claim.values)
    all_seeds = f"; {time_words(of.seconds)} for all {seeds} seeds" if seeds > 1 else ""
    yield (
        f"- Time: {time_words(cost.seconds_per_seed)} for one seed{all_seeds}, and "
        f"{cost.peak_memory_mib} MiB of memory, on {escaped(cost.hardware)}."
    )


def _elsewhere(claim: RecordedClaim) -> str:
    name = escaped(claim.value_name)
    interval = equivalence_interval([*claim.values.values()])
    if interval is None:
        recorded = plural(len(claim.values), "recorded seed")
        tells = "does" if len(claim.values) == 1 else "do"
        return (
            f"**DIFFERENT**, because {recorded} {tells} not tell the spread; at least "
            f"{ENOUGH_SEEDS} would. Compare the value by eye."
        )
    low, high = interval
    return (
        f"**EQUIVALENT** if {name} is from {low:.6f} to {high:.6f}, where 95 % of further seeds "
        "lie by the recorded ones; else DIFFERENT."
    )


def _values(of: ClaimFacts) -> Iterator[str]:
    """Return a row for each seed on each hardware class."""
    claim = of.claim
    for kind, digests in claim.bits.items():
        for seed in digests:
            chosen = claim.chosen(kind, seed)
            value = number(claim.values_on(kind)[seed])
            weights = f"{short_digest(chosen.bits)} (step {chosen.step})" if chosen else ""
            yield row(escaped(kind), seed, value, weights)


def customization(facts: PaperFacts) -> Iterator[str]:
    """Say how to go beyond what was recorded."""
    first = facts.claims[0]
    seed = next(number for number in count(1) if str(number) not in first.claim.values)
    checkpoint = f"runs/mine/{CHECKPOINTS}/{first.claim.checkpoint}"
    yield "## A.7 Experiment customization"
    yield (
        "Every setting of `configs/` can be given to the training command, as `key=value`. Another "
        "seed is not one of the recorded ones, so only its value can be compared with those of "
        f"A.6. For {first.label}:"
    )
    yield block(
        [
            f"{first.train_command} seed={seed} run_dir=runs/mine",
            facts.command("evaluate", "--checkpoint", checkpoint),
        ]
    )


def notes(facts: PaperFacts) -> Iterator[str]:
    """Say what may differ elsewhere."""
    yield "## A.8 Notes: what may differ elsewhere"
    lines = [
        "Bits are those of a hardware class. CPU and GPU, GPU models, and ARM CPU models differ "
        "from each other; the value then decides (A.6).",
        "Time is that of the machine which is named; memory hardly differs.",
        "Another version of a package, another number of threads or of shards gives other bits. "
        "`verify` names such a difference before it trains.",
        "`make record` on another hardware class adds that class beside the recorded ones.",
    ]
    if any(of.claim.checkpoint == "best" for of in facts.claims):
        lines.append(
            "A claim of the best checkpoint is IDENTICAL only if the step of that checkpoint is "
            "the recorded one, too."
        )
    yield "\n".join(f"- {line}" for line in lines)
