"""Gather the facts that reviewers' papers state, each from the file of the archive that has it.

Promises that nothing is asked of this machine or of the moment: the same contents give the same
facts. What the contents do not have is None or empty, and never made up. Of an anonymous archive,
which has no commit, nothing is taken that names the authors.
"""

import re
import shlex
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import PurePosixPath

from repro.core.files import JsonObject
from repro.core.hashing import sha256_bytes
from repro.core.markdown import escaped
from repro.core.project import PYPROJECT, command_line, project_table, tool_settings
from repro.environment.locks import LOCK
from repro.publishing.contents import Contents
from repro.publishing.packed import (
    TrainedOn,
    machine_of,
    model_size,
    packed_object,
    packed_size,
    read_packed,
)
from repro.publishing.reviewers.words import time_words
from repro.results.document import mean_with_spread
from repro.results.recording import Cost, RecordedClaim
from repro.results.stated import Stated, parse_stated

# What `make setup` takes, as bootstrap.py and REPRODUCE.md say it (a test holds them together).
SETUP_MINUTES = 15
SETUP_DOWNLOAD_GB = 3
SETUP_DISK_GB = 7
# Makes every file of results/ anew, and all runs.
RECREATE = "rm -r runs/record results/figures && make record"
SYSTEMS = "Linux on x86-64 (AVX2) or aarch64, or macOS 14 or newer on arm64"
TODO = "**TODO(author)**"
LEFT_OUT = "left out for double-blind review"


@dataclass(frozen=True)
class ClaimFacts:
    """A claim of the recording: C1 is the first one. `places`: its packed runs, by seed."""

    label: str
    name: str
    claim: RecordedClaim
    places: dict[str, str]
    manifest: str | None
    train_command: str  # without a seed

    @property
    def first_class(self) -> str:
        """Return the hardware class that was recorded first: its values are the claim's."""
        kinds = [kind for kind in self.claim.bits if kind not in self.claim.added]
        return next(iter(kinds or self.claim.bits))

    @property
    def costs(self) -> dict[str, Cost | None]:
        """Return what a training of one seed takes, by hardware class."""
        first = {self.first_class: self.claim.cost}
        return first | {kind: added.cost for kind, added in self.claim.added.items()}

    @property
    def value_words(self) -> str:
        """Return the expected value as Markdown: mean, spread over seeds, interval of the mean."""
        return escaped(f"{self.claim.value_name} {mean_with_spread(self.claim)}")

    @property
    def seconds(self) -> int | None:
        """Return what the trainings of all seeds take on the first class; None if not recorded."""
        cost = self.claim.cost
        return None if cost is None else cost.seconds_per_seed * len(self.claim.values)


@dataclass(frozen=True)
class PaperFacts:
    """What of an archive's contents the papers state."""

    contents: Contents
    claims: list[ClaimFacts]
    stated: Stated
    pins: dict[str, str] = field(default_factory=dict)  # versions of the locked packages
    python: str = ""  # the versions that pyproject.toml takes
    settings: dict[str, str] = field(default_factory=dict)  # the texts of [tool.repro]

    @property
    def is_anonymous(self) -> bool:
        """Tell whether the archive is one for double-blind review."""
        return self.contents.commit is None

    @property
    def title(self) -> str:
        """Return the paper's title, as it was typed; CITATION.cff's where none is stated."""
        return self.stated.paper.get("title", self.contents.about.title)

    @property
    def licence(self) -> str:
        """Return the code's licence, as Markdown."""
        terms = self.contents.about.licence
        if terms is None:
            return "none is stated in `pyproject.toml`"
        return escaped(terms) if terms else "as `pyproject.toml` says"

    @property
    def torch(self) -> str:
        """Return the locked version of PyTorch."""
        return self.pins.get("torch", "of another lock")

    @property
    def processes(self) -> str:
        """Say how many processes the trainings take."""
        most = max(facts.claim.conditions.processes for facts in self.claims)
        return "one process" if most == 1 else f"up to {most} processes"

    def by_author(self, name: str) -> str:
        """Return what the author states of a field, as Markdown; TODO(author) where nothing is."""
        text = self.stated.paper.get(name)
        if text is None:
            return TODO
        return LEFT_OUT if name == "reference" and self.is_anonymous else escaped(text)

    def command(self, name: str, *arguments: str) -> str:
        """Return one of the author's commands as a user types it."""
        return shlex.join(command_line(self.contents.root, name, *arguments))

    @cached_property
    def lock_digest(self) -> str:
        """Return the SHA-256 of the lock."""
        return sha256_bytes(read_packed(self.contents, LOCK) or b"")

    @property
    def needs_gpu(self) -> bool:
        """Tell whether all that was recorded was recorded on GPUs."""
        kinds = [kind for facts in self.claims for kind in facts.claim.bits]
        return all(kind.startswith("cuda") for kind in kinds)

    @cached_property
    def _manifests(self) -> dict[str | None, JsonObject]:
        """Each manifest of data by its name: it may be large, and several claims share one."""
        names = {facts.manifest for facts in self.claims}
        return {name: packed_object(self.contents, name or "") for name in names}

    def manifest(self, facts: ClaimFacts) -> JsonObject:
        """Return the manifest of a claim's data; empty where it is not packed."""
        return self._manifests[facts.manifest]

    def manifest_text(self, facts: ClaimFacts, name: str) -> str | None:
        """Return a text of the manifest of a claim's data; None where it has none of that name."""
        text = self.manifest(facts).get(name)
        return text if isinstance(text, str) else None

    def machine(self, facts: ClaimFacts) -> TrainedOn | None:
        """Return on what a claim's first packed run was trained; None if it is not packed."""
        found = (machine_of(self.contents, place) for place in facts.places.values())
        return next((machine for machine in found if machine), None)

    def model_size(self, facts: ClaimFacts) -> tuple[int, str] | None:
        """Return how many values a claim's model holds, and which file says it; or None."""
        found = (model_size(self.contents, place) for place in facts.places.values())
        return next((size for size in found if size), None)

    def run_size(self, facts: ClaimFacts) -> int:
        """Return the bytes that the largest packed run of a claim takes; 0 without any."""
        sizes = [
            sum(
                packed_size(self.contents, name)
                for name in self.contents.files
                if name.startswith(f"{place}/")
            )
            for place in facts.places.values()
        ]
        return max(sizes, default=0)

    @property
    def largest_run(self) -> int:
        """Return the bytes of the largest packed run of all claims."""
        return max(map(self.run_size, self.claims), default=0)

    @cached_property
    def size(self) -> int:
        """Return the bytes that the contents take, without what is generated for the archive."""
        return sum(packed_size(self.contents, name) for name in self.contents.files)

    @property
    def time_of_one_seed(self) -> str:
        """Say how long one seed of each claim trains."""
        costs = [facts.claim.cost for facts in self.claims]
        return self._total([None if cost is None else cost.seconds_per_seed for cost in costs])

    @property
    def time_of_all_seeds(self) -> str:
        """Say how long all seeds of all claims train."""
        return self._total([facts.seconds for facts in self.claims])

    def _total(self, times: list[int | None]) -> str:
        """Add up the times of the claims, and name those whose time was not recorded."""
        known = [time for time in times if time is not None]
        if not known:
            return "not recorded"
        pairs = zip(self.claims, times, strict=True)
        missing = [facts.label for facts, time in pairs if time is None]
        without = f" (without {', '.join(missing)}: not recorded)" if missing else ""
        return f"{time_words(sum(known))}{without}"


def gather(contents: Contents) -> PaperFacts:
    """Return the facts of an archive's contents; UserError for a damaged pyproject.toml."""
    text = (read_packed(contents, PYPROJECT) or b"").decode()
    lock = (read_packed(contents, LOCK) or b"").decode(errors="replace")
    pins = re.findall(r"(?m)^([A-Za-z0-9._-]+)==([^\s;\\]+)", lock)
    python = project_table(text).get("requires-python")
    return PaperFacts(
        contents,
        [
            _claim_facts(contents, f"C{place}", name)
            for place, name in enumerate(contents.recording.claims, 1)
        ],
        parse_stated(text),
        dict(pins),
        python if isinstance(python, str) else "",
        tool_settings(contents.root),
    )


def _claim_facts(contents: Contents, label: str, name: str) -> ClaimFacts:
    """Return a claim with its packed trainings: their folders are <claim>/<digest>/seed-<seed>."""
    places = {}
    manifest = None
    for training in contents.trainings:
        parts = PurePosixPath(training.place).parts
        if parts[-3:-2] == (name,):
            places[parts[-1].removeprefix("seed-")] = training.place
            manifest = manifest or training.manifest
    claim = contents.recording.claims[name]
    processes = claim.conditions.processes
    command = command_line(contents.root, "train", *claim.arguments, processes=processes)
    return ClaimFacts(label, name, claim, places, manifest, shlex.join(command))
