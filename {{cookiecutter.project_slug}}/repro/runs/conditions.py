"""Read the conditions of a run, which are all that may change its bits, and compare two runs'.

Names, the licence, results, and settings that only say where to run are not among them. Neither is
the seed, because a claim is about several.
"""

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated

from repro.core import machines
from repro.core.errors import UserError
from repro.core.files import Json, JsonObject
from repro.core.profiles import PORTABLE_KERNELS
from repro.core.project import PROCESSES
from repro.core.secret_values import refuse_secret_names
from repro.core.text import flatten
from repro.data.digests import ALONE, Together, digests_of
from repro.data.known_digests import memory_of_command
from repro.data.manifest import OWN_SETTING, data_digest
from repro.environment.cpu import native_class
from repro.environment.locks import LOCK, not_as_locked
from repro.environment.profile import PROFILES, lacks_for_portable
from repro.runs.code_files import code_files
from repro.runs.config_values import seeds_by_hand, setting

# Code that no bits depend on: what to record, and where a run is shown while it trains.
_NO_CONDITION = ("configs/claims.yaml", "configs/tracker/", "configs/scale/", "repro/tracking/")

# What trains with PyTorch's engines. A training in shards does not import it, so for that one it is
# no condition: projects with scale=one and scale=many have the same results.
_ENGINES = "repro/training/scale/"


PORTABLE_CLASS = "cpu x86-64-v3 portable"  # the hardware class of all machines of that profile


class AsItIs:
    """Tell pydantic to take a JSON object as it is: it cannot follow a type that holds itself."""

    def __get_pydantic_core_schema__(self, source: object, handler: object) -> object:
        from pydantic_core import core_schema

        return core_schema.dict_schema(core_schema.str_schema(), core_schema.any_schema())


@dataclass(frozen=True)
class ConditionsOnDisk:
    """Those of the conditions that lie on the disk, before a training is chosen.

    `code`: SHA-256 by file. `lock`: the lock's. `packages`: those that are not as locked.
    """

    code: dict[str, str]
    lock: str
    packages: dict[str, str]

    def as_json(self) -> JsonObject:
        """Return the JSON object: kinds of conditions by name."""
        return {"code": {**self.code}, "lock": self.lock, "packages": {**self.packages}}


@dataclass(frozen=True)
class Conditions:
    """All that may change the bits of a run, but its seed.

    `code`: SHA-256 by file. `config`: the settings that may change bits. `data`: the digest of the
    data. `environment`: the profile, its variables and its kernels; they belong to the hardware
    class, so they are compared between runs of one class only. `lock`: the lock's SHA-256.
    `packages`: those that are not as locked.
    """

    code: dict[str, str]
    config: Annotated[JsonObject, AsItIs()]
    data: str
    lock: str
    packages: dict[str, str]
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def processes(self) -> int:
        """How many processes a training has to have; 1 where their number does not matter."""
        number = setting(self.config, PROCESSES)
        return number if isinstance(number, int) else 1

    @property
    def on_disk(self) -> ConditionsOnDisk:
        """Those that lie on the disk."""
        return ConditionsOnDisk(self.code, self.lock, self.packages)

    def as_json(self) -> JsonObject:
        """Return the JSON object: kinds of conditions by name, in the order of a trace's header."""
        return {
            **self.on_disk.as_json(),
            "config": self.config,
            "data": self.data,
            "environment": {**self.environment},
        }

    def shared_json(self) -> JsonObject:
        """Return those that are the same for every hardware class, as JSON."""
        return {kind: of_kind for kind, of_kind in self.as_json().items() if kind != "environment"}


@dataclass(frozen=True)
class DatasetFacts:
    """What the manifest says of where the data are from; None where it does not.

    `own_files`: the name of the setting that says where the author's own files are.
    """

    dataset: str | None = None
    samples: int | None = None
    source: str | None = None
    raw_sha256: str | list[str] | None = None
    own_files: str | None = None

    def as_json(self) -> JsonObject:
        """Return the JSON object, without what is not known."""
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass(frozen=True)
class Situation:
    """What a training here would depend on: `train --conditions` prints it."""

    conditions: Conditions
    hardware_class: str
    dataset: DatasetFacts

    def with_environment(self, more: Mapping[str, str]) -> "Situation":
        """Return the situation with more of what belongs to the hardware class."""
        environment = {**self.conditions.environment, **more}
        return replace(self, conditions=replace(self.conditions, environment=environment))

    def as_json(self) -> JsonObject:
        """Return the JSON object that `train --conditions` prints."""
        return {
            "conditions": self.conditions.as_json(),
            "hardware_class": self.hardware_class,
            "dataset": self.dataset.as_json(),
        }


@dataclass(frozen=True)
class Facts:
    """What a training starts from: `situation`, torch's flags and the seeds.

    They are the header of its trace, and a part of experiment_context.json.
    """

    situation: Situation
    flags: JsonObject
    seed: int
    seeds: dict[str, int]

    def as_json(self) -> JsonObject:
        """Return the JSON object, all on one level."""
        return {
            **self.situation.as_json(),
            "flags": self.flags,
            "seed": self.seed,
            "seeds": {**self.seeds},
        }


def code_digests(root: Path, together: Together = ALONE) -> dict[str, str]:
    """Return the SHA-256 of the lock and of each file of code that bits or data depend on.

    All processes `together` read each once. UserError for a file with a secret in its name.
    """
    files = code_files(root)
    refuse_secret_names(files, " of code")
    files = [name for name in files if is_condition(name) or name.endswith(".py")]
    return digests_of(root, [*files, LOCK], memory_of_command(), together, quiet=True)


def uses_engines(config: JsonObject) -> bool:
    """Tell whether a training uses PyTorch's engines instead of the kit's fixed-order sum."""
    return setting(config, "training.parallel") not in (None, "shards")


def is_condition(name: str) -> bool:
    """Tell whether bits may depend on a file of code."""
    return not name.startswith(_NO_CONDITION)


def conditions_on_disk(
    root: Path, code: Mapping[str, str] | None = None, config: JsonObject | None = None
) -> ConditionsOnDisk:
    """Return the conditions that lie on the disk: code, lock, packages that are not as locked.

    `code`: what `code_digests` returned; None reads it now. `config`: the settings of the training,
    which say whether it uses PyTorch's engines; None is one that does not.
    """
    found = code_digests(root) if code is None else code
    without = () if config and uses_engines(config) else (_ENGINES,)
    conditions = {
        name: digest
        for name, digest in found.items()
        if is_condition(name) and not name.startswith(without)
    }
    lock = conditions.pop(LOCK)
    return ConditionsOnDisk(conditions, lock, not_as_locked(root / LOCK))


def conditions_here(
    root: Path,
    config: JsonObject,
    manifest: Mapping[str, Json],
    profile: str,
    device: str,
    on_disk: ConditionsOnDisk | None = None,
) -> Situation:
    """Return what a training here would depend on.

    `config`: the settings that may change the bits. `manifest`: of the data. `profile`: as a config
    that was read has it, never "auto". `on_disk`: what was read of the disk when the command
    started; None reads it now.
    """
    on_disk = on_disk or conditions_on_disk(root, config=config)
    settings = {name: value for name, value in config.items() if name not in ("seed", "profile")}
    conditions = Conditions(
        code=on_disk.code,
        config={**settings, "seeds": seeds_by_hand(config)},
        data=data_digest(manifest),
        environment=_environment(profile),
        lock=on_disk.lock,
        packages=on_disk.packages,
    )
    return Situation(conditions, hardware_class(profile, device), dataset_facts(manifest))


def _environment(profile: str) -> dict[str, str]:
    """Return the profile, those of its variables that are set, and the kernels that follow."""
    variables = {name: os.environ[name] for name in PROFILES["portable"] if name in os.environ}
    kernels = {"cpu_kernels": PORTABLE_KERNELS} if profile == "portable" else {}
    return {"profile": profile, **kernels, **variables}


def dataset_facts(manifest: Mapping[str, Json]) -> DatasetFacts:
    """Return what a manifest says of where the data are from."""
    samples = manifest.get("samples")
    raw = manifest.get("raw_sha256")
    digests = [str(digest) for digest in raw] if isinstance(raw, list) else _text(raw)
    return DatasetFacts(
        dataset=_text(manifest.get("dataset")),
        samples=samples if isinstance(samples, int) else None,
        source=_text(manifest.get("source")),
        raw_sha256=digests,
        own_files=_text(manifest.get(OWN_SETTING)),
    )


def _text(value: Json) -> str | None:
    return value if isinstance(value, str) else None


def differences(recorded: Mapping[str, Json], found: Mapping[str, Json]) -> list[str]:
    """Return one line for each condition that differs, in words; none if all agree."""
    then = flatten({**recorded})
    now = flatten({**found})
    lines = []
    for key in sorted(then.keys() | now.keys()):
        if then.get(key) == now.get(key):
            continue
        kind, _, name = key.partition(": ")
        if kind not in ("code", "lock", "data"):
            lines.append(f"{key} is {now.get(key, 'not set')}, recorded {then.get(key, 'not set')}")
            continue
        if key not in now:  # digests tell a person nothing
            change = "is missing"
        elif key not in then:
            change = "is new"
        else:
            change = "changed"
        lines.append(f"{kind}: {name} {change}" if name else f"{kind}: {change}")
    return lines


def hardware_class(profile: str, device: str) -> str:
    """Name the hardware class: its machines are promised the same bits under equal conditions.

    The same GPU is sold for machines of both architectures, whose CPUs make the data and whose
    libraries are others. `profile` is "portable" or "native".
    """
    if device == "cuda":
        import torch  # only here: this module serves commands that need no torch

        name = torch.cuda.get_device_name()
        if machines.this_machine().architecture == machines.AARCH64:
            name = f"{machines.AARCH64} {name}"
        return f"cuda {name}, torch {torch.__version__}, cuDNN {torch.backends.cudnn.version()}"
    if profile == "portable":
        if lacking := lacks_for_portable():
            raise UserError(f"profile=portable was asked for, and {lacking}: take profile=native")
        return PORTABLE_CLASS
    return native_class()
