"""Write papers/checklist.md: one table of the facts that conferences' checklists ask for.

Promises that each value says where it was measured or stands, by file and field, and that what only
the author knows is either the author's text from [tool.repro.paper] or `TODO(author)`.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import PurePosixPath

from repro.core.files import JsonObject
from repro.core.markdown import code, escaped, row, table
from repro.environment.locks import LOCK
from repro.publishing.reviewers.appendix import APPENDIX
from repro.publishing.reviewers.checklist_rows import (
    Fact,
    by_author,
    compute,
    of_claims,
    randomness,
    recorded_at,
    results,
)
from repro.publishing.reviewers.paper_facts import TODO, ClaimFacts, PaperFacts
from repro.publishing.reviewers.words import plural, setting_words, short_digest
from repro.results.claims import EXPECTED
from repro.results.paper_fields import open_fields

FACTS_ASKED = "papers/checklist.md"
_STATEMENTS = (
    "reference",
    "limitations",
    "broader_impact",
    "safeguards",
    "ethics",
    "human_subjects",
    "theory",
    "language_models",
)


def write_facts_asked(facts: PaperFacts) -> bytes:
    """Return the text of the checklist."""
    topics = {
        "Results": results(facts),
        "Randomness": randomness(facts),
        "Compute": compute(facts),
        "Model and hyperparameters": _model(facts),
        "Data": _data(facts),
        "Code": _code(facts),
        "What the author states": (by_author(facts, name) for name in _STATEMENTS),
    }
    rows = []
    for topic, of_topic in topics.items():
        rows.append(row(f"**{topic}**", "", "", ""))
        rows += [row(*fact) for fact in of_topic]
    parts = [
        *_head(facts),
        table("fact | value | where it was measured or stands | asked by", rows),
    ]
    return ("\n\n".join(parts) + "\n").encode()


def _head(facts: PaperFacts) -> Iterator[str]:
    yield f"# Facts that checklists ask for: {escaped(facts.title)}"
    yield (
        "`make archive` wrote this table from what was recorded. A name that begins with `claims.` "
        f"is a field of `{EXPECTED}`, where `make record` writes what it measures; one that begins "
        "with `paper.` is a field of `[tool.repro.paper]` in `pyproject.toml`, where the author "
        "states what nobody can measure. Files are named from the top of the artifact. The last "
        "column has the numbers of the NeurIPS paper checklist (ICML's guidelines follow it) and "
        "of the ACL responsible NLP checklist, and the sections of the Machine Learning "
        "Reproducibility Checklist 2.0 (MLR)."
    )
    missing = open_fields(facts.stated.paper)
    if missing:
        facts_open = plural(len(missing), "fact is", "facts are")
        yield (
            f"{facts_open} {TODO}. What does not apply is stated as such; no training depends on "
            "`pyproject.toml`."
        )


# The model and its settings -----------------------------------------------------------------------


def _model(facts: PaperFacts) -> Iterator[Fact]:
    asked = "NeurIPS 6 · ACL C2 · MLR results"
    yield from of_claims(
        facts, "Values in the model", lambda of: _size(facts, of), "ACL C1 · MLR models"
    )
    yield from of_claims(facts, "Length of a run", _steps, asked)
    same_as_first = partial(_hyperparameters, facts.claims[0])
    yield from of_claims(facts, "Hyperparameters", same_as_first, asked)
    yield by_author(facts, "hyperparameter_search")


def _size(facts: PaperFacts, of: ClaimFacts) -> tuple[str, str] | None:
    size = facts.model_size(of)
    if size is None:
        return None
    values, source = size
    file = code(PurePosixPath(source).name)
    return f"{values:,}, with buffers such as running means", f"the header of a run's {file}"


def _steps(of: ClaimFacts) -> tuple[str, str]:
    by_seed = of.claim.steps_by_seed
    if not by_seed:
        return plural(of.claim.steps, "step"), recorded_at(of, "steps")
    steps = ", ".join(f"{seed}: {number}" for seed, number in by_seed.items())
    return f"by seed, {steps} steps", recorded_at(of, "steps_by_seed")


def _hyperparameters(first: ClaimFacts, of: ClaimFacts) -> tuple[str, str]:
    """Return a claim's settings; where they are not the first claim's, those that differ."""
    settings = _settings(first)
    mine = _settings(of)
    names = sorted(settings.keys() | mine.keys())
    other = {n: mine.get(n, "not set") for n in names if mine.get(n) != settings.get(n)}
    value = f"as {first.label}, but {_listed(other)}" if other else _listed(mine)
    return value, recorded_at(of, "conditions.config")


def _settings(of: ClaimFacts) -> dict[str, str]:
    return setting_words(of.claim.conditions.config)


def _listed(settings: dict[str, str]) -> str:
    return ", ".join(code(f"{name}={value}") for name, value in settings.items())


# Data ---------------------------------------------------------------------------------------------


def _data(facts: PaperFacts) -> Iterator[Fact]:
    yield from of_claims(facts, "Data set", _dataset, "NeurIPS 4 · ACL B6 · MLR data")
    yield from of_claims(facts, "Where the data are from", _source, "NeurIPS 5 · MLR data")
    yield from of_claims(facts, "What identifies the data", _identity, "MLR data")
    yield from of_claims(
        facts, "Splits", lambda of: _splits(facts, of), "NeurIPS 6 · ACL B6 · MLR data"
    )
    if module := facts.settings.get("data"):
        yield Fact(
            "Preprocessing",
            f"`prepare` and `datasets` in {code(_file_of(module))}, whose SHA-256 is a condition",
            recorded_at(facts.claims[0], "conditions.code"),
            "NeurIPS 6 · MLR data",
        )
    yield from of_claims(facts, "Licence of the data", lambda of: _licence(facts, of), "ACL B2")
    for name in ("data_licence", "data_collection", "data_consent", "intended_use"):
        yield by_author(facts, name)
    for name, stated in facts.stated.responsible_ai.items():
        texts = [stated] if isinstance(stated, str) else stated
        where = "`[tool.repro.responsible_ai]` in `pyproject.toml`"
        yield Fact(code(name), "; ".join(map(escaped, texts)), where, "ACL B5 · Croissant RAI")


def _dataset(of: ClaimFacts) -> tuple[str, str]:
    dataset = of.claim.dataset
    name = escaped(dataset.dataset or "not named")
    if dataset.samples is None:
        return name, recorded_at(of, "dataset.dataset" if dataset.dataset else "dataset")
    where = recorded_at(of, "dataset.dataset", "dataset.samples")
    return f"{name}, {plural(dataset.samples, 'sample')}", where


def _source(of: ClaimFacts) -> tuple[str, str] | None:
    source = of.claim.dataset.source
    return None if source is None else (escaped(source), recorded_at(of, "dataset.source"))


def _licence(facts: PaperFacts, of: ClaimFacts) -> tuple[str, str] | None:
    text = facts.manifest_text(of, "license")
    return None if text is None else (escaped(text), f"{code(of.manifest or '')}: `license`")


def _identity(of: ClaimFacts) -> tuple[str, str]:
    raw = of.claim.dataset.raw_sha256 or []
    digests = [raw] if isinstance(raw, str) else raw
    listed = f"; raw files: {', '.join(map(short_digest, digests[:3]))}" if digests else ""
    listed += f" and {len(digests) - 3} more" if len(digests) > 3 else ""
    manifest = f"; each prepared file by SHA-256 in {code(of.manifest)}" if of.manifest else ""
    where = recorded_at(of, "conditions.data", *(["dataset.raw_sha256"] if digests else []))
    return f"SHA-256 {short_digest(of.claim.conditions.data)}{listed}{manifest}", where


def _splits(facts: PaperFacts, of: ClaimFacts) -> tuple[str, str] | None:
    """Return how many samples each part has, and from what the parts are made."""
    module = facts.settings.get("data")
    made = f"`datasets` in {code(_file_of(module))}" if module else "the author's own loop"
    settings = of.claim.conditions.config.get("dataset")
    by = f" from {_listed(_prefixed(settings))}" if isinstance(settings, dict) else ""
    sizes = facts.contents.parts.get(of.name, {})
    told = "".join(f"{escaped(part)} {size}, " for part, size in sizes.items())
    if not by and not sizes:
        return None
    value = f"{told}as {made} makes them{by} and the seed `seeds.data_split`"
    return value, recorded_at(of, "conditions.config.dataset" if by else "conditions.config")


def _file_of(module: str) -> str:
    return f"{module.replace('.', '/')}.py"


def _prefixed(settings: JsonObject) -> dict[str, str]:
    return setting_words({"dataset": settings})


# Code ---------------------------------------------------------------------------------------------


def _code(facts: PaperFacts) -> Iterator[Fact]:
    yield Fact(
        "Licence of the code",
        facts.licence,
        "`pyproject.toml`: `project.license`",
        "NeurIPS 12, 13",
    )
    yield from of_claims(facts, "Command that trains", _training, "NeurIPS 4, 5 · MLR code")
    yield from of_claims(
        facts,
        "Command that verifies",
        lambda of: (code(f"python -m repro verify {of.name}"), f"`{APPENDIX}`, A.6"),
        "NeurIPS 4, 5 · MLR code",
    )
    yield Fact(
        "Dependencies",
        f"{plural(len(facts.pins), 'package')} by version and SHA-256, PyTorch "
        f"{code(facts.torch)}; Python {code(facts.python)}; base image by digest",
        f"`{LOCK}` (SHA-256 {short_digest(facts.lock_digest)}), `pyproject.toml`, `Dockerfile`",
        "ACL C4 · MLR code",
    )
    if not facts.is_anonymous:
        commit = facts.contents.recording.commit
        yield Fact(
            "Version of the code that was recorded",
            code(commit) if commit else "no commit is known",
            f"`{EXPECTED}`: `commit`",
            "NeurIPS 5",
        )
    yield Fact(
        "Trained models",
        f"checkpoints of {plural(sum(len(of.places) for of in facts.claims), 'run')}",
        "`runs/record/`",
        "NeurIPS 5, 13 · MLR code",
    )
    yield by_author(facts, "other_assets")


def _training(of: ClaimFacts) -> tuple[str, str]:
    return code(f"{of.train_command} seed=SEED"), recorded_at(of, "arguments")
