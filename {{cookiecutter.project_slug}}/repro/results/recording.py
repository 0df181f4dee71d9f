"""Hold what was recorded of the claims, as results/expected_metrics.json has it.

Promises that a recording which is read or made is one that `verify` can compare with: each seed has
a finite value and its bits on every hardware class. Anything else is no recording. What older
versions of the kit wrote is read as this one writes it.
"""

import math
import re
from dataclasses import asdict, dataclass, field, replace
from typing import Annotated, Literal, TypeAlias

from pydantic import BeforeValidator, TypeAdapter, ValidationError

from repro.core import layout
from repro.core.files import JsonObject
from repro.core.hashing import sha256_json
from repro.core.text import unseen
from repro.runs.conditions import Conditions, DatasetFacts
from repro.runs.swhid import software_ids

CLAIM_NAME = "^[A-Za-z0-9][A-Za-z0-9._-]*$"  # it is the name of folders, too
ANONYMOUS = "anonymous"  # in the place of a commit, in an archive that names nobody
Interval: TypeAlias = tuple[float, float]
Choice: TypeAlias = Literal["last", "best"]  # of a training's checkpoints: layout.LAST, layout.BEST


@dataclass(frozen=True)
class Cost:
    """What a training of one seed takes: the median of the seconds, the highest memory."""

    hardware: str
    seconds_per_seed: int
    peak_memory_mib: int


@dataclass(frozen=True)
class RecordedCheckpoint:
    """A checkpoint of a training: its step, and the bits of its weights."""

    step: int
    bits: str

    def __str__(self) -> str:
        return f"step {self.step}, bits {self.bits}"


@dataclass(frozen=True)
class AddedClass:
    """What trainings gave on a hardware class that was added to the one recorded first.

    Their bits, best checkpoints and environment stand beside those of the first one.
    """

    values: dict[str, float]
    steps: int
    steps_by_seed: dict[str, int] = field(default_factory=dict)
    cost: Cost | None = None
    commit: str | None = None
    dirty: bool | None = None


def value_name(metric: str, checkpoint: Choice) -> str:
    """Return what a claim's value is, for a reader: the metric, and of which checkpoint."""
    return f"{metric} of the best checkpoint" if checkpoint == layout.BEST else metric


@dataclass(frozen=True)
class RecordedClaim:
    """What `record` found for a claim; older versions of the kit did not write all of it.

    `values`, `bits` and `best` are by seed, the seeds as texts; `bits` and `best` are by hardware
    class first. `values` are those of the claim's checkpoint, `bits` always those of the last one.
    `best` is empty unless the claim's checkpoint is the best one. `interval` holds the mean with a
    probability of 95 %. `conditions`: those of all hardware classes, so without environment;
    `environments`: by hardware class, the condition that belongs to it. `steps`: of the longest
    training; `steps_by_seed`: where they are not equal because some ended early. `added`: by
    hardware class, what is not that of the class that was recorded first, which all else is of.
    """

    text: str
    arguments: list[str]
    metric: str
    values: dict[str, float]
    bits: dict[str, dict[str, str]]
    steps: int
    conditions: Conditions
    shows: str = ""
    mean: float | None = None
    standard_deviation: float | None = None
    interval: Interval | None = None
    config_digest: str | None = None
    dataset: DatasetFacts = field(default_factory=DatasetFacts)
    cost: Cost | None = None
    checkpoint: Choice = "last"
    best: dict[str, dict[str, RecordedCheckpoint]] = field(default_factory=dict)
    steps_by_seed: dict[str, int] = field(default_factory=dict)
    environments: dict[str, dict[str, str]] = field(default_factory=dict)
    added: dict[str, AddedClass] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse a claim, by a ValueError, whose bits, best checkpoints and values do not fit."""
        if not self.values or not self.bits:
            raise ValueError("there is no value, or there are no bits")
        if not all(seed.isdecimal() and len(seed) < 20 for seed in self.values):
            raise ValueError("the values are not by seed")
        values = [self.values, *(added.values for added in self.added.values())]
        if not all(math.isfinite(value) for of_class in values for value in of_class.values()):
            raise ValueError("a value is no finite number")
        if any(map(unseen, (self.text, self.shows, self.metric, *self.arguments))):
            raise ValueError("a character that cannot be seen")
        seeds = {hardware: bits.keys() for hardware, bits in self.bits.items()}
        expected = seeds if self.checkpoint == layout.BEST else {}
        if {hardware: best.keys() for hardware, best in self.best.items()} != expected:
            raise ValueError("the best checkpoints are not those of the seeds with bits")
        if any(of_class - self.values.keys() for of_class in seeds.values()):
            raise ValueError("a seed with bits has no value")
        if self.conditions.environment:
            raise ValueError("the conditions of all hardware classes hold an environment")
        if self.environments and self.environments.keys() != self.bits.keys():
            raise ValueError("the environments are not those of the hardware classes with bits")
        if any(
            added.values.keys() != seeds.get(hardware) for hardware, added in self.added.items()
        ):
            raise ValueError("the values of an added hardware class are not those of its bits")

    @property
    def value_name(self) -> str:
        """Return what `values` are, for a reader."""
        return value_name(self.metric, self.checkpoint)

    @property
    def conditions_digest(self) -> str:
        """Return the digest of the conditions of all classes: a verdict on the claim has it."""
        return sha256_json(self.conditions.shared_json())

    def conditions_on(self, hardware: str) -> Conditions:
        """Return the conditions of a hardware class; without environment if it was not recorded."""
        return replace(self.conditions, environment=self.environments.get(hardware, {}))

    def values_on(self, hardware: str) -> dict[str, float]:
        """Return the values by seed on a hardware class; of another one those recorded first."""
        added = self.added.get(hardware)
        return added.values if added else self.values

    def steps_on(self, hardware: str, seed: str) -> int:
        """Return the number of steps of a seed's training on a hardware class."""
        of_class = self.added.get(hardware, self)
        return of_class.steps_by_seed.get(seed, of_class.steps)

    def chosen(self, hardware: str, seed: str) -> RecordedCheckpoint | None:
        """Return the checkpoint that a seed's value is of; None if it was not recorded there."""
        if self.checkpoint == layout.BEST:
            return self.best.get(hardware, {}).get(seed)
        bits = self.bits.get(hardware, {}).get(seed)
        return None if bits is None else RecordedCheckpoint(self.steps_on(hardware, seed), bits)

    def as_json(self) -> JsonObject:
        """Return the claim's object in results/expected_metrics.json."""
        content: JsonObject = {
            **asdict(self),
            "conditions": self.conditions.shared_json(),
            "dataset": self.dataset.as_json(),
        }
        if self.checkpoint == layout.LAST:  # as before claims could choose
            del content["checkpoint"], content["best"]
        if not self.steps_by_seed:
            del content["steps_by_seed"]
        if not self.added:
            del content["added"]
        return content


def _as_written_now(claim: object) -> object:
    """Return a claim's JSON as this kit writes it: older ones recorded one environment for all."""
    if not isinstance(claim, dict):
        return claim
    conditions = claim.get("conditions")
    bits = claim.get("bits")
    if not isinstance(conditions, dict) or not isinstance(bits, dict):
        return claim
    shared = {kind: of_kind for kind, of_kind in conditions.items() if kind != "environment"}
    of_all = conditions.get("environment", {})
    return {"environments": dict.fromkeys(bits, of_all), **claim, "conditions": shared}


@dataclass(frozen=True)
class Recording:
    """What results/expected_metrics.json holds: of which commit, and the claims by name.

    `commit` is None where none is known. `dirty` says whether there were uncommitted changes; None
    where git could not tell. `tree` is git's id of the project's folder in the commit; None where
    the code was not all committed, where git could not tell, and for older kits, which did not
    write it. It is kept because a clone may lack the recorded commit.
    """

    claims: dict[str, Annotated[RecordedClaim, BeforeValidator(_as_written_now)]]
    commit: str | None = None
    dirty: bool | None = None
    tree: str | None = None

    def __post_init__(self) -> None:
        """Refuse, by a ValueError, a recording of nothing, and names that are no folders' names."""
        if not self.claims or not all(re.fullmatch(CLAIM_NAME, name) for name in self.claims):
            raise ValueError("there is no claim, or one whose name no claim can have")
        for claim in self.claims.values():
            if any(bits.keys() != claim.values.keys() for bits in claim.bits.values()):
                raise ValueError("a seed has no bits, or no value")

    def as_json(self) -> JsonObject:
        """Return the object that is all of results/expected_metrics.json."""
        claims: JsonObject = {name: claim.as_json() for name, claim in self.claims.items()}
        content: JsonObject = {"commit": self.commit, "dirty": self.dirty, "claims": claims}
        return content if self.tree is None else {**content, "tree": self.tree}

    @property
    def software_ids(self) -> list[str]:
        """Return the SWHIDs of the code that was recorded; empty where it has none."""
        return software_ids(self.commit, self.tree) if self.dirty is False else []


def parse_recording(content: JsonObject | None) -> Recording | None:
    """Return the recording that a JSON object holds; None if it holds none."""
    try:
        return TypeAdapter(Recording).validate_python(content)
    except ValidationError:
        return None
