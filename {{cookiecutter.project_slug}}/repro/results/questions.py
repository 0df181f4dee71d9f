"""Answer the questions of the checklist, each by looking it up.

Each answer imports what it needs: a question whose packages are not installed does not keep the
others from their answers. QUESTIONS lists them all in their order.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, Protocol
from zipfile import ZIP_STORED, ZipFile

from repro.core import layout
from repro.core.file_names import faults_of_names
from repro.core.files import read_object
from repro.core.layout import USER_CODE
from repro.core.special_files import resolved
from repro.environment import packages
from repro.runs.git import committed_names, get_git_info
from repro.runs.uncommitted import uncommitted_code

PASS = "pass"
FAIL = "fail"
OPEN = "not checked"


class Answer(NamedTuple):
    """PASS, FAIL or OPEN; what was found, with the remedy; and what it rests on, a line each."""

    state: str
    words: str
    details: tuple[str, ...] = ()


class Question(NamedTuple):
    """A point of the checklist: `when` of a training it counts, `what` it is, who answers it."""

    when: str
    what: str
    ask: Callable[[Path], Answer]


class ClaimConfig(Protocol):
    """What is asked of the author's config."""

    @property
    def seed(self) -> int | None: ...
    @property
    def determinism(self) -> str: ...


def _pass_without(faults: list[str], good: str, remedy: str = "") -> Answer:
    """Fail if there are faults: with the first one, how many more there are, and the remedy."""
    if not faults:
        return Answer(PASS, good)
    more = f" and {len(faults) - 1} more" if len(faults) > 1 else ""
    return Answer(FAIL, f"{faults[0]}{more}{remedy}")


# Before ------------------------------------------------------------------------------------------


def configs(root: Path) -> dict[str, ClaimConfig]:
    """Load the config of each claim, validated by the author's own class."""
    from repro.core.project import author_object
    from repro.results.claims import read_claims

    loader = author_object(root, "config")
    return {claim.name: loader.load(claim.arguments) for claim in read_claims(root)}


def seeds_set(root: Path) -> Answer:
    """Check that every claim trains with a seed."""
    faults = [f"{name} has no seed" for name, c in configs(root).items() if c.seed is None]
    return _pass_without(faults, "every claim's config has one", ": set it in configs/")


def deterministic(root: Path) -> Answer:
    """Check that every claim trains with determinism=strict."""
    settings = {name: config.determinism for name, config in configs(root).items()}
    faults = [f"{name} has {setting}" for name, setting in settings.items() if setting != "strict"]
    return _pass_without(faults, "determinism=strict", ": set determinism=strict")


def locked(root: Path) -> Answer:
    """Check that the files agree that say what is installed."""
    faults = packages.examine(root, lock_only=True).faults
    return _pass_without(faults, "requirements, locks, Dockerfile and versions agree")


def committed(root: Path) -> Answer:
    """Check that the code is committed, under names that an archive of it can have."""
    git = get_git_info(root)
    if not git.commit_hash and git.source == "archive":
        return Answer(OPEN, f"{git.note}")
    if not git.commit_hash:
        remedy = "git init, git add --all, git commit"
        return Answer(FAIL, f"no commit is known ({git.note}): {remedy}")
    faults = [f"{name} is not committed" for name in uncommitted_code(root) or []]
    if git.source == "environment" and git.is_dirty:
        faults = ["the image was built with uncommitted changes"]
    if not faults and git.source == "git" and (names := faults_of_names(committed_names(root))):
        return _pass_without(names, "")
    return _pass_without(faults, f"{git.commit_hash[:12]} ({git.source})", ": git commit")


def documented(root: Path) -> Answer:
    """Check that results/, REPRODUCE.md and CITATION.cff say what was recorded and stated."""
    from repro.results.citation import uncited
    from repro.results.claims import stale
    from repro.results.document import outdated

    faults = [*stale(root), *outdated(root), *uncited(root)]
    return _pass_without(faults, "REPRODUCE.md is of this code, config, data", ": make record")


# During ------------------------------------------------------------------------------------------


def _newest_run(root: Path) -> Path | None:
    """Return the newest run, else a recorded one; None without any."""
    runs = root / layout.RUNS
    recorded = sorted((runs / layout.RECORDED).glob("*/*/seed-*"))
    for run in (runs / layout.LATEST, *recorded):
        if run.is_dir():
            return run
    return None


def _of_newest_run(what: str, find: Callable[[Path], str | None], missing: str) -> Question:
    """Make a question about the newest run: `find` gives what it recorded, or nothing."""

    def ask(root: Path) -> Answer:
        run = _newest_run(root)
        if not run:
            return Answer(OPEN, "there is no run: make train")
        name = os.path.relpath(resolved(run), root)
        recorded = find(run)
        if not recorded:
            return Answer(FAIL, f"{name} {missing}: train again")
        return Answer(PASS, f"{name}: {recorded}")

    return Question("during", what, ask)


def commit_recorded(run: Path) -> str | None:
    """Return a run's commit; None if its uncommitted changes are missing."""
    from repro.runs.context import read_context

    context = read_context(run)
    from repro.results.recording import ANONYMOUS

    if context and context.hostname == ANONYMOUS:
        return "left out of an anonymous archive"
    if not context or (context.git.is_dirty and not (run / layout.PATCH).is_file()):
        return None
    return context.git.commit_hash


def config_recorded(run: Path) -> str | None:
    """Return the name of a run's config file, if it is there."""
    return layout.CONFIG_USED if (run / layout.CONFIG_USED).is_file() else None


def states_saved(run: Path) -> str | None:
    """Return whose random states a run's newest checkpoint holds."""
    for checkpoint in layout.steps_newest_first(run / layout.CHECKPOINTS):
        generators = read_object(checkpoint / layout.STATE).get("generators")
        return ", ".join(generators) if isinstance(generators, dict) else None
    return None


def hardware_recorded(run: Path) -> str | None:
    """Return on what a run was trained."""
    from repro.runs.context import read_context

    context = read_context(run)
    if not context or not context.hardware.cpu_model:
        return None
    return ", ".join([context.hardware.cpu_model, *context.hardware.gpus])


# After -------------------------------------------------------------------------------------------


def reproduces(root: Path) -> Answer:
    """Check that the newest verdict says that the recorded results come out again."""
    from repro.results.claims import read_recording
    from repro.results.verdict import EQUIVALENT, IDENTICAL, verdicts_newest_first

    claims = read_recording(root).claims.values()
    digests = {claim.conditions_digest for claim in claims}
    verdicts = verdicts_newest_first(root)
    if not verdicts:
        return Answer(OPEN, "there is no verdict: make reproduce")
    newest = verdicts[0]
    words = f"{newest.verdict} ({newest.claim}, {newest.seed}, {newest.what})"
    if newest.verdict not in (IDENTICAL, EQUIVALENT):
        return Answer(FAIL, f"{words}: {newest.why}")
    if newest.conditions_digest not in digests:
        return Answer(OPEN, "the newest verdict is of other conditions: make reproduce")
    return Answer(PASS, words)


def environment_as_locked(root: Path) -> Answer:
    """Check that each installed file is what was locked."""
    examined = packages.examine(root)
    lines = tuple(examined.lines)
    if faults := examined.faults:
        return Answer(FAIL, f"{len(faults)} of its files or packages are not as locked", lines)
    return Answer(PASS, examined.looked_at, lines)


def known_nondeterminism(root: Path) -> Answer:
    """Check that the author's code draws nothing that nobody seeds."""
    from repro.diagnosis.unseeded import find_unseeded

    findings = find_unseeded(root, USER_CODE)
    faults = [f"{finding.path}:{finding.line} {finding.found}" for finding in findings]
    good = f"nothing unseeded in {', '.join(USER_CODE)}/"
    return _pass_without(faults, good, ": python -m repro audit")


def archived(root: Path) -> Answer:
    """Check that there is a whole archive of this commit."""
    commit = get_git_info(root).commit_hash
    archives = sorted(root.glob(f"*-{commit[:12]}.zip")) if commit else []
    if not archives:
        remedy = "make record, then make archive"
        return Answer(OPEN, f"there is no archive of this commit: {remedy}")
    if _is_damaged(archives[0]):
        return Answer(FAIL, f"{archives[0].name} is damaged: make archive")
    return Answer(PASS, archives[0].name)


def _is_damaged(archive: Path) -> bool:
    """Tell whether an archive lacks a part, by its sums; `make archive` compresses nothing.

    What is compressed was made by somebody else, and may be of any size.
    """
    try:
        with ZipFile(archive) as file:
            stored = all(info.compress_type == ZIP_STORED for info in file.infolist())
            unpacked = sum(info.file_size for info in file.infolist())
            return not stored or unpacked > archive.stat().st_size or file.testzip() is not None
    except Exception:  # zipfile raises what its parts raise: struct, zlib, the names' encoding
        return True


def stated_for_papers(root: Path) -> Answer:
    """Say which facts that conferences ask for the author has not stated; this is no fault.

    A project without a paper has no table [tool.repro.paper], and is as reproducible as another.
    """
    from repro.results.paper_fields import open_fields
    from repro.results.stated import read_stated

    stated = read_stated(root).paper
    missing = open_fields(stated)
    if not missing:
        return Answer(PASS, "[tool.repro.paper] states what conferences ask for")
    count = f"{len(missing)} TODO(author) in [tool.repro.paper] of pyproject.toml"
    if not stated:
        return Answer(OPEN, f"no paper is described: {count}", (", ".join(missing),))
    details = tuple(f"{name}: {field.asks}" for name, field in missing.items())
    return Answer(OPEN, count, details)


QUESTIONS = [
    Question("before", "seeds set", seeds_set),
    Question("before", "deterministic", deterministic),
    Question("before", "locked", locked),
    Question("before", "committed", committed),
    Question("before", "documented", documented),
    _of_newest_run("commit recorded", commit_recorded, "has no commit, or no patch beside it"),
    _of_newest_run("config recorded", config_recorded, f"has no {layout.CONFIG_USED}"),
    _of_newest_run("RNG states saved", states_saved, "has no checkpoint with them"),
    _of_newest_run("hardware recorded", hardware_recorded, "does not say on what it ran"),
    Question("after", "reproduces", reproduces),
    Question("after", "environment as locked", environment_as_locked),
    Question("after", "known nondeterminism", known_nondeterminism),
    Question("after", "archived", archived),
    Question("after", "stated for papers", stated_for_papers),
]
