"""The checklist of a reproducible result, executed: before, during and after the training.

Promises a line for each point: it passes; it fails, with what to do; or it was not checked, with
the reason. Nothing is trained and nothing is written. What can be looked up is looked up, not
asked: the config that the claims train with, git, the newest run, the newest verdict, the archive.
"""

import json
import os
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile

from repro.core.errors import UserError
from repro.core.files import read_object
from repro.core.hashing import sha256_json
from repro.environment import packages as doctor
from repro.environment.locks import NOTE
from repro.runs.git import get_git_info, uncommitted_files

PASS, FAIL, OPEN = "pass", "fail", "not checked"
Answer = tuple[str, str]  # one of these, and what was found, with the remedy


@dataclass
class Point:
    """A line of the checklist; `details`: what it rests on, a line each."""

    when: str
    what: str
    state: str
    words: str
    details: list[str] = field(default_factory=list)


def checklist(root: Path, as_json: bool = False) -> int:
    """Print the checklist; 1 if a point fails, else 0."""
    with redirect_stdout(sys.stderr):  # bars, and what the author's code prints
        points = [ask(root, when, what, question) for when, what, question in QUESTIONS]
    if as_json:
        print(json.dumps([asdict(point) for point in points], indent=1))
    else:
        for number, point in enumerate(points):
            if not number or point.when != points[number - 1].when:
                print(f"{point.when} the training")
            print(f"  {point.state:12} {point.what}: {point.words}")
            for line in point.details:
                print(f"  {'':12} {line}")
        states = [point.state for point in points]
        print(", ".join(f"{states.count(state)} {state}" for state in (PASS, FAIL, OPEN)))
    return 1 if any(point.state == FAIL for point in points) else 0


def ask(root: Path, when: str, what: str, question: Callable[[Path], Answer]) -> Point:
    """The answer to a question; what it needs and cannot have is the answer, too."""
    try:
        state, words = question(root)
    except UserError as error:
        state, words = FAIL, error.lines[0]
    except ImportError as error:
        state, words = OPEN, f"{error.name} is not installed: make setup"
    first, *details = words.split("\n")
    return Point(when, what, state, first, details)


def verdict_on(lines: list[str], good: str, remedy: str = "") -> Answer:
    """It fails if there are lines of faults."""
    if not lines:
        return PASS, good
    more = f" and {len(lines) - 1} more" * (len(lines) > 1)
    return FAIL, f"{lines[0]}{more}{remedy}"


# Before ------------------------------------------------------------------------------------------


def configs(root: Path) -> dict[str, Any]:
    """The config of each claim, validated by the author's own class."""
    from repro.core.project import author_object
    from repro.results.claims import read_claims

    loader = author_object(root, "config")
    return {claim["name"]: loader.load(claim["arguments"]) for claim in read_claims(root)}


def seeds(root: Path) -> Answer:
    without = [name for name, config in configs(root).items() if config.seed is None]
    return verdict_on(without, "every claim's config has one", " has no seed: set it in configs/")


def deterministic(root: Path) -> Answer:
    found = configs(root).items()
    loose = [f"{name} has {c.determinism}" for name, c in found if c.determinism != "strict"]
    return verdict_on(loose, "determinism=strict", ": set determinism=strict")


def locked(root: Path) -> Answer:
    lines, _ = doctor.examine(root, lock_only=True)
    faults = [line for line in lines if not line.startswith(NOTE)]
    return verdict_on(faults, "requirements, locks, Dockerfile and versions agree")


def committed(root: Path) -> Answer:
    git, changed = get_git_info(root), uncommitted_files(root)
    if not git.commit_hash:
        return FAIL, f"no commit is known ({git.note}): git init, git add --all, git commit"
    lines = [f"{name} is not committed" for name in changed or []]
    if git.source == "environment" and git.is_dirty:
        lines = ["the image was built with uncommitted changes"]
    return verdict_on(lines, f"{git.commit_hash[:12]} ({git.source})", ": git commit")


def documented(root: Path) -> Answer:
    from repro.results.claims import stale
    from repro.results.document import outdated

    lines = [*stale(root), *outdated(root)]
    return verdict_on(lines, "REPRODUCE.md is of this code, config, data", ": make record")


# During ------------------------------------------------------------------------------------------


def newest(root: Path) -> tuple[Path, dict[str, Any]] | None:
    """The newest run, else a recorded one, and its experiment_context.json."""
    recorded = root.glob("runs/record/*/*/seed-*")
    for run in (root / "runs" / "latest", *sorted(recorded)):
        if run.is_dir():
            return run, read_object(run / "experiment_context.json")
    return None


def of_newest_run(find: Callable[[Path, dict[str, Any]], Any], missing: str) -> Any:
    """A question about the newest run: `find` gives what it recorded."""

    def question(root: Path) -> Answer:
        run = newest(root)
        if not run:
            return OPEN, "there is no run: make train"
        name = os.path.relpath(run[0].resolve(), root)
        found = find(*run)
        return (PASS, f"{name}: {found}") if found else (FAIL, f"{name} {missing}: train again")

    return question


def commit_of(run: Path, context: dict[str, Any]) -> Any:
    git = context.get("git", {})
    patch = not git.get("is_dirty") or (run / "uncommitted_changes.diff").is_file()
    return git.get("commit_hash") if patch else None


def config_of(run: Path, context: dict[str, Any]) -> Any:
    return "config_used.yaml" if (run / "config_used.yaml").is_file() else None


def states_of(run: Path, context: dict[str, Any]) -> Any:
    states = sorted((run / "checkpoints").glob("step-*/state.json"))
    return ", ".join(read_object(states[-1]).get("generators", {})) if states else None


def hardware_of(run: Path, context: dict[str, Any]) -> Any:
    hardware = context.get("hardware", {})
    return ", ".join([hardware.get("cpu_model") or "", *hardware.get("gpus", [])])


# After -------------------------------------------------------------------------------------------


def verified(root: Path) -> Answer:
    from repro.results.claims import read_results

    digests = {sha256_json(claim["conditions"]) for claim in read_results(root).values()}
    verdicts = [*root.glob("runs/verify/*/verdict.json")]
    if not verdicts:
        return OPEN, "there is no verdict: make reproduce"
    last = read_object(max(verdicts, key=lambda path: path.stat().st_mtime))
    about = ", ".join(str(last.get(key)) for key in ("claim", "seed", "what"))
    words = f"{last.get('verdict')} ({about})"
    if last.get("verdict") not in ("IDENTICAL", "EQUIVALENT"):
        return FAIL, f"{words}: {last.get('why')}"
    if last.get("conditions_digest") not in digests:
        return OPEN, "the newest verdict is of other conditions: make reproduce"
    return PASS, words


def installed(root: Path) -> Answer:
    lines, looked_at = doctor.examine(root)
    faults = sum(not line.startswith(NOTE) for line in lines)
    words = f"{faults} of its files or packages are not as locked" if faults else looked_at
    return FAIL if faults else PASS, "\n".join([words, *lines])


def known(root: Path) -> Answer:
    from repro.core.layout import USER_CODE
    from repro.diagnosis.unseeded import find_unseeded

    lines = [f"{f.path}:{f.line} {f.found}" for f in find_unseeded(root, USER_CODE)]
    return verdict_on(
        lines, f"nothing unseeded in {', '.join(USER_CODE)}/", ": python -m repro audit"
    )


def archived(root: Path) -> Answer:
    commit = get_git_info(root).commit_hash
    found = sorted(root.glob(f"*-{commit[:12]}.zip")) if commit else []
    if not found:
        return OPEN, "there is no archive of this commit: make record, then make archive"
    try:
        with ZipFile(found[0]) as file:
            damaged = file.testzip()
    except (BadZipFile, OSError) as error:
        damaged = str(error)
    return (FAIL, f"{found[0].name} is damaged: make archive") if damaged else (PASS, found[0].name)


QUESTIONS: list[tuple[str, str, Callable[[Path], Answer]]] = [
    ("before", "seeds set", seeds),
    ("before", "deterministic", deterministic),
    ("before", "locked", locked),
    ("before", "committed", committed),
    ("before", "documented", documented),
    ("during", "commit recorded", of_newest_run(commit_of, "has no commit, or no patch beside it")),
    ("during", "config recorded", of_newest_run(config_of, "has no config_used.yaml")),
    ("during", "RNG states saved", of_newest_run(states_of, "has no checkpoint with them")),
    ("during", "hardware recorded", of_newest_run(hardware_of, "does not say on what it ran")),
    ("after", "reproduces", verified),
    ("after", "environment as locked", installed),
    ("after", "known nondeterminism", known),
    ("after", "archived", archived),
]
