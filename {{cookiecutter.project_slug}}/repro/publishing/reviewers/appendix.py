"""Write papers/artifact-appendix.md: what an artifact evaluation asks for, from what was recorded.

The headings are those of the artifact appendix of ACM and cTuning; claims are numbered C1, C2, ...
and tasks T1, T2, ..., as the appendices of SC want it. Each number is one of the recording or of a
file in the archive, and each command is one that the project has.
"""

from collections.abc import Callable, Iterator

from repro.core.markdown import as_sentence, code, escaped, row, table
from repro.environment.locks import LOCK
from repro.publishing.reviewers.appendix_steps import (
    customization,
    evaluation,
    installation,
    notes,
    workflow,
)
from repro.publishing.reviewers.paper_facts import (
    LEFT_OUT,
    SETUP_DISK_GB,
    SETUP_MINUTES,
    SYSTEMS,
    TODO,
    ClaimFacts,
    PaperFacts,
)
from repro.publishing.reviewers.words import in_bytes, plural, time_words
from repro.results.claims import EXPECTED
from repro.results.document import DOCUMENT

APPENDIX = "papers/artifact-appendix.md"


def write_appendix(facts: PaperFacts) -> bytes:
    """Return the text of the artifact appendix."""
    parts = [
        *_abstract(facts),
        *_check_list(facts),
        *_description(facts),
        *installation(),
        *workflow(facts),
        *evaluation(facts),
        *customization(facts),
        *notes(facts),
    ]
    return ("\n\n".join(parts) + "\n").encode()


def _abstract(facts: PaperFacts) -> Iterator[str]:
    yield f"# Artifact appendix: {escaped(facts.title)}"
    yield (
        f"`make archive` wrote this page from `{EXPECTED}` and the recorded runs. The headings are "
        "those of the artifact appendix of ACM and cTuning. **TODO(author)** marks what only the "
        "author can say; beside it stands the name of the field of `[tool.repro.paper]` in "
        "`pyproject.toml` that fills it."
    )
    yield "## A.1 Abstract"
    yield (
        f"{as_sentence(facts.contents.about.description)} The artifact holds the code, the lock of "
        "its environment, the recorded trainings and their results. Each claim below is verified "
        "by one command, which repeats a training and compares. The verdict is IDENTICAL if the "
        "trained weights have the recorded bits."
    )
    rows = [
        row(
            f"**{of.label}**",
            f"{escaped(of.claim.text)} ({code(of.name)})",
            escaped(of.claim.shows) or "not stated",
            of.value_words,
            str(len(of.claim.values)),
        )
        for of in facts.claims
    ]
    yield table("claim | what is claimed | in the paper | expected value | seeds", rows)
    if any(of.claim.standard_deviation is not None for of in facts.claims):
        yield (
            "± is the standard deviation over the seeds, and the brackets hold a 95 % interval of "
            "the mean, by the bootstrap."
        )


def _check_list(facts: PaperFacts) -> Iterator[str]:
    kinds = dict.fromkeys(kind for of in facts.claims for kind in of.claim.bits)
    data = dict.fromkeys(of.claim.dataset.dataset or "not named" for of in facts.claims)
    values = dict.fromkeys(of.claim.value_name for of in facts.claims)
    trainings = plural(sum(len(of.claim.values) for of in facts.claims), "training")
    claims = plural(len(facts.claims), "claim")
    answers = {
        "Program": f"{code(facts.command('train'))}, PyTorch {escaped(facts.torch)}",
        "Data set": ", ".join(map(escaped, data)),
        "Run-time environment": f"{SYSTEMS}; Python {escaped(facts.python)}",
        "Hardware": "a GPU (A.3.2)" if facts.needs_gpu else "a CPU; no GPU is needed (A.3.2)",
        "Hardware classes recorded": ", ".join(map(escaped, kinds)),
        "Execution": f"{facts.processes}; no network, except for data that are downloaded (A.3.4)",
        "Metrics": ", ".join(map(escaped, values)),
        "Output": "a verdict, trained weights, metrics and figures",
        "Experiments": f"{claims}, {trainings}",
        "How much disk space is required": f"{SETUP_DISK_GB} GB for the environment, "
        f"{in_bytes(facts.size)} for the artifact, {in_bytes(facts.largest_run)} for each training",
        "How much time is needed to prepare": f"about {SETUP_MINUTES} minutes, most of them for "
        "downloads",
        "How much time is needed to complete": f"{facts.time_of_one_seed} for one "
        f"seed of each claim, {facts.time_of_all_seeds} for all seeds (A.6)",
        "Publicly available": _repository(facts),
        "Code licence": facts.licence,
        "Data licence": _data_licence(facts),
        "Workflow framework": "none: `make` and `python -m repro`",
        "Archived (DOI)": _doi(facts),
    }
    yield "## A.2 Artifact check-list"
    yield table("item | answer", [row(item, answer) for item, answer in answers.items()])


def _data_licence(facts: PaperFacts) -> str:
    """Return what the author states of it, else the licences that the manifests of the data say."""
    if "data_licence" in facts.stated.paper:
        return facts.by_author("data_licence")
    licences = [licence for of in facts.claims if (licence := facts.manifest_text(of, "license"))]
    told = "".join(f"{escaped(licence)}; " for licence in dict.fromkeys(licences))
    return f"{told}{TODO} {code('data_licence')}"


def _repository(facts: PaperFacts) -> str:
    if facts.is_anonymous:
        return LEFT_OUT
    repository = facts.contents.about.repository
    return code(repository) if repository else "as this archive"


def _doi(facts: PaperFacts) -> str:
    if facts.is_anonymous:
        return LEFT_OUT
    doi = facts.stated.doi
    return code(f"https://doi.org/{doi}") if doi else "none is stated (`doi` in `[tool.repro]`)"


def _description(facts: PaperFacts) -> Iterator[str]:
    yield "## A.3 Description"
    yield "### A.3.1 How to access"
    yield _origin(facts)
    yield "### A.3.2 Hardware dependencies"
    yield (
        "Bits are promised on the hardware classes of this table. On any other machine that can "
        "run the code, the value is compared (A.6). Time and memory are those of a training of "
        "one seed: the median of the times, the highest memory."
    )
    head = "claim | hardware class | recorded on | time | memory"
    yield table(head, [line for of in facts.claims for line in _hardware(facts, of)])
    yield "### A.3.3 Software dependencies"
    yield _software(facts)
    yield "### A.3.4 Data sets"
    yield "\n".join(_shared(facts, _data))
    yield f"Licence of the data: {_data_licence(facts)}"
    yield "### A.3.5 Models"
    yield _models(facts)


def _origin(facts: PaperFacts) -> str:
    if facts.is_anonymous:
        return (
            "This page lies in the artifact. Its repository and commit are left out for "
            f"double-blind review; the digests of code, config, data and lock in `{EXPECTED}` "
            "identify what was recorded."
        )
    commit = facts.contents.commit
    recorded = facts.contents.recording.commit
    where = f"This page lies in the artifact, which was made of commit `{commit}`."
    if not commit:
        where = "This page was written before there was a commit."
    if recorded is None:
        return f"{where} It is not known of which commit the results are."
    return f"{where} The results were recorded from commit `{recorded}`; {DOCUMENT} says more."


def _hardware(facts: PaperFacts, of: ClaimFacts) -> Iterator[str]:
    """Return a row for each hardware class of a claim."""
    machine = facts.machine(of)
    for kind, cost in of.costs.items():
        name = escaped(cost.hardware) if cost else "not recorded"
        if machine and machine.hardware_class == kind and machine.size:
            name = f"{name} ({machine.size})"
        time = time_words(cost.seconds_per_seed) if cost else "not recorded"
        memory = f"{cost.peak_memory_mib} MiB" if cost else "not recorded"
        yield row(of.label, escaped(kind), name, time, memory)


def _software(facts: PaperFacts) -> str:
    return (
        f"{SYSTEMS}, with Python {escaped(facts.python)} and make; git is not needed. All else is "
        f"in the lock: {plural(len(facts.pins), 'package')} by version and SHA-256, PyTorch "
        f"{escaped(facts.torch)} among them. `{LOCK}` has SHA-256 `{facts.lock_digest}`. The "
        "`Dockerfile` names its base image by digest."
    )


def _shared(facts: PaperFacts, words: Callable[[PaperFacts, ClaimFacts], str]) -> Iterator[str]:
    """Return a line of a list for each text; claims with the same one share it."""
    labels: dict[str, list[str]] = {}
    for of in facts.claims:
        labels.setdefault(words(facts, of), []).append(of.label)
    for text, of_text in labels.items():
        yield f"- **{', '.join(of_text)}**: {text}"


def _data(facts: PaperFacts, of: ClaimFacts) -> str:
    """Say of a claim's data which they are, how many, from where, and what identifies them."""
    dataset = of.claim.dataset
    parts = [escaped(dataset.dataset or "data without a name")]
    if dataset.samples is not None:
        sizes = facts.contents.parts.get(of.name, {})
        told = ", ".join(f"{escaped(part)} {size}" for part, size in sizes.items())
        parts.append(plural(dataset.samples, "sample") + (f" ({told})" if told else ""))
    if dataset.source is not None:
        parts.append(f"from {escaped(dataset.source)}")
    files = facts.manifest(of).get("files")
    if isinstance(files, dict):
        there = code(of.manifest or "", in_cell=False)
        parts.append(f"{plural(len(files), 'prepared file')}, by SHA-256 in {there}")
    parts.append(f"digest of the data `{of.claim.conditions.data}`")
    if "prepare" in facts.settings:  # a loop of the author's own may read them by itself
        prepare = code(facts.command("prepare"), in_cell=False)
        parts.append(f"got and prepared by {prepare}, or by a training itself")
    return "; ".join(parts)


def _models(facts: PaperFacts) -> str:
    lines = [*_shared(facts, _size)]
    runs = sum(len(of.places) for of in facts.claims)
    if runs:
        lines.append(
            f"\nThe weights that were trained are in the `checkpoints/` of {plural(runs, 'run')} "
            "below `runs/record/`."
        )
    return "\n".join(lines)


def _size(facts: PaperFacts, of: ClaimFacts) -> str:
    size = facts.model_size(of)
    if size is None:
        return "the number of values was not recorded"
    return f"{size[0]:,} values, with buffers such as running means"
