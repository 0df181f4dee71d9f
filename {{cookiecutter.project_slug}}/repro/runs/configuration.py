"""Read settings from files and the command line: Hydra composes them, pydantic checks them.

`Loader.load` promises that a typo, a wrong type or a value out of range is refused before anything
is written, with one line per fault and all faults at once. It knows no setting: those are the
fields of the pydantic model that it is given.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Literal, Protocol, TypeVar, get_origin

import yaml  # type: ignore[import-untyped]  # omegaconf brings it; for its errors only
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel, ValidationError

from repro.core.bounded import DamagedFile
from repro.core.errors import SHOWN, UserError, reason_of, refuse
from repro.core.files import Json, JsonObject, read_object
from repro.core.layout import (
    CHECKPOINTS,
    CONFIG_USED,
    CONFIGS,
    LATEST,
    RECORDED,
    STATE,
    VERIFIED,
    run_of,
)
from repro.core.machines import NO_MPS
from repro.core.project import fault_without_engines
from repro.core.redaction import MASK, is_secret_name
from repro.core.secret_values import refuse_secret_settings
from repro.core.special_files import fault_of_kind
from repro.core.text import flatten
from repro.runs.config_faults import fault_in_words
from repro.runs.own_places import take_own_places
from repro.runs.plain_values import NO_HYDRA, fault_of, is_of_hydra, odd_numbers, settings_of_hydra
from repro.runs.yaml_files import fault_of_size, fault_of_texts, load_yaml

Model = TypeVar("Model", bound=BaseModel)


class RunSettings(Protocol):
    """What the kit has to know of the author's config: what a run is called, and where it goes."""

    @property
    def name(self) -> str: ...
    @property
    def seed(self) -> int: ...
    @property
    def run_dir(self) -> str | None: ...
    @property
    def resume(self) -> str | None: ...


@dataclass(frozen=True)
class Loader(Generic[Model]):
    """Load the config of type `model` from `folder`, which holds config.yaml and the groups.

    `paths` names the settings that take any text: a path with spaces needs no quotes of Hydra's.
    One that names nothing on this machine is looked for in data/own_files/ (own_places.py).
    `free` names those that may differ between two runs of equal bits.
    """

    model: type[Model]
    folder: Path
    paths: tuple[str, ...] = ()
    free: tuple[str, ...] = ()

    def load(self, overrides: list[str]) -> Model:
        """Compose config.yaml with `overrides` in Hydra's grammar and validate the result.

        Raises UserError with one line per fault, and for each setting that is a secret: settings
        are written into the run, its checkpoints, the results and the archive.
        """
        values, faults = self.compose(overrides)
        config = self.validate(values, faults)
        refuse_secret_settings(_without_choices(config))
        return config

    def compose(self, overrides: list[str]) -> tuple[Any, list[str]]:
        """Return the values, not validated yet, and a line for each fault of `overrides`.

        Raises UserError if there are no values.
        """
        files = sorted(self.folder.rglob("*"))
        refuse([fault for path in files if (fault := fault_of_kind(path))])
        refuse(_oversized(path for path in files if path.suffix == ".yaml" and path.is_file()))
        parsed, faults = self.parse(overrides)
        faults += self._faults_of_files()
        lines = []
        for override in parsed:
            text = str(override.input_line)
            if override.is_sweep_override():
                faults.append(f"{text}: several values are a sweep, which needs -m")
            elif override.type is OverrideType.CHANGE and not self._choices(override):
                # ++ adds unknown keys: validation then names all of them at once
                lines.append(f"++{text}")
            else:
                lines.append(text)
        try:
            with initialize_config_dir(str(self.folder)):
                composed = compose("config", lines)
                take_own_places(composed, self.paths, self.folder.parent)
                values = OmegaConf.to_container(composed, resolve=True)
        except Exception as error:  # of Hydra or YAML: of their own types, or at an odd value
            reason = reason_of(error)
            known = isinstance(error, HydraException | OmegaConfBaseException | yaml.YAMLError)
            words = reason if known else f"{self.folder} cannot be read as settings: {reason}"
            raise UserError([*faults, words]) from error
        if fault := fault_of_texts(values):
            faults.append(f"{self.folder}: {fault}: expected text that a file's name can have")
        return values, faults

    def validate(self, values: Any, faults: list[str]) -> Model:
        """Return the frozen config; UserError with `faults` and those that are found here."""
        unlisted = 0
        config: Model | None = None
        try:
            config = self.model.model_validate(values)
        except ValidationError as error:
            found = error.errors()
            faults += [fault_in_words(self.model, fault) for fault in found[:SHOWN]]
            unlisted = len(found[SHOWN:])
        refuse(faults, unlisted)
        assert config
        return config

    def revive(self, values: JsonObject) -> Model:
        """Return the config of an older run from its settings.

        What is new since then has today's value, and so has a path that is not there (any more).
        """
        today, _ = self.compose([])  # not valid in itself, perhaps: image_dir may be the run's
        known = {**today}
        for name, value in values.items():
            known[name] = _merged(today.get(name), value)
        for name in self.paths:
            path = known.get(name)
            if isinstance(path, str) and not (self.folder.parent / path).exists():
                known[name] = today[name]
        return self.validate(known, [])

    def parse(self, overrides: list[str]) -> tuple[list[Override], list[str]]:
        """Return the overrides that can be understood, and a line for each that cannot."""
        parser = OverridesParser.create()
        parsed: list[Override] = []
        faults: list[str] = []
        for text in overrides:
            if is_of_hydra(text):
                faults.append(f"{text}: {NO_HYDRA}")
                continue
            try:
                override = parser.parse_override(self._quoted(text))
            except HydraException:
                faults.append(f"{text}: not of the form key=value (Hydra reads key='any text')")
                continue
            choices = self._choices(override)
            if choices and not override.is_sweep_override() and override.value() not in choices:
                group = f"{CONFIGS}/{override.key_or_group}/"
                faults.append(f"{text}: no such choice; {group} has {', '.join(choices)}")
            elif fault := fault_of(text, override):
                faults.append(fault)
            else:
                parsed.append(override)
        return parsed, faults

    def _faults_of_files(self) -> list[str]:
        """Return a line for each value in config.yaml and the groups that is not what it seems."""
        faults = []
        for path in [self.folder / "config.yaml", *sorted(self.folder.glob("*/**/*.yaml"))]:
            shown = path.relative_to(self.folder.parent)
            lines = odd_numbers(path) + settings_of_hydra(path)
            faults += [f"{shown}{line.removeprefix(str(path))}" for line in lines]
        return faults

    def _quoted(self, text: str) -> str:
        """Put a path into quotes: Hydra's grammar refuses spaces and umlauts."""
        key, _, value = text.partition("=")
        if key not in self.paths or value[:1] in ("'", '"', "") or value == "null":
            return text
        # Backslashes are themselves in Hydra's grammar, but for those before a quotation mark.
        before_a_quote = re.sub(r'(\\*)"', r'\1\1\\"', value)
        escaped = re.sub(r"(\\+)$", r"\1\1", before_a_quote)
        return f'{key}="{escaped}"'

    def _choices(self, override: Override) -> list[str]:
        """Return the files to choose from if the override names a group's folder."""
        return sorted(path.stem for path in (self.folder / override.key_or_group).glob("*.yaml"))


def _oversized(files: Iterable[Path]) -> list[str]:
    """Return a line for each YAML file that is too large to be read, or would become so."""
    found = {path: fault_of_size(path) for path in files}
    return [str(DamagedFile(path, fault)) for path, fault in found.items() if fault]


def _without_choices(settings: BaseModel) -> JsonObject:
    """Return settings as JSON; one that is a choice of fixed words holds no secret, and is None."""
    values: JsonObject = settings.model_dump(mode="json")
    for name, field in type(settings).model_fields.items():
        value = getattr(settings, name)
        if isinstance(value, BaseModel):
            values[name] = _without_choices(value)
        elif get_origin(field.annotation) is Literal and not is_secret_name(name):
            values[name] = None
    return values


def settings_of(checkpoint: Path) -> JsonObject:
    """Read the config that a checkpoint was trained with; UserError if it is none."""
    if not (checkpoint / STATE).is_file():
        raise UserError(f"{checkpoint} is no checkpoint: {_checkpoints_near(checkpoint)}")
    config = read_object(checkpoint / STATE).get("config")
    if not isinstance(config, dict):
        raise UserError(f"{checkpoint} is damaged: {STATE} has no config")
    masked = [name for name, value in flatten(config).items() if value == MASK]
    if masked:
        words = "by its name it was a secret, so it was not saved: rename the setting, train again"
        raise UserError([f"{checkpoint}: {name}: {words}" for name in masked])
    return config


def _checkpoints_near(path: Path) -> str:
    """Say which checkpoints lie in a run, or beside a path that is none."""
    folder = path / CHECKPOINTS
    if not folder.is_dir():
        folder = path.parent
    names = sorted(state.parent.name for state in folder.glob(f"*/{STATE}"))
    return f"{folder} has {', '.join(names)}" if names else "expected e.g. RUN/checkpoints/last"


def settings_beside(checkpoint: Path, names: Sequence[str]) -> JsonObject:
    """Read those settings of the run that a checkpoint lies in; empty if it lies in none."""
    run = run_of(checkpoint)
    settings = read_config_used(run) if run else {}
    return {name: settings[name] for name in names if name in settings}


def read_config_used(run: Path) -> JsonObject:
    """Read the settings that a run was started with; empty if they are not there."""
    path = run / CONFIG_USED
    settings = load_yaml(path) if path.is_file() else {}
    if not isinstance(settings, dict):
        raise DamagedFile(path, "it holds no settings")
    return settings


def _merged(today: Json, then: Json) -> Json:
    """Return `then`, with what it lacks as it is today."""
    if not isinstance(today, dict) or not isinstance(then, dict):
        return then
    if today.get("name") != then.get("name"):  # another model, data set, optimizer
        return then
    return {**today, **{key: _merged(today.get(key), value) for key, value in then.items()}}


def run_name(name: str) -> str:
    """Check the name of a run's folder: it must stay inside runs/, and be free."""
    if not re.fullmatch("[A-Za-z0-9][A-Za-z0-9._-]{0,63}", name):
        raise ValueError("should be 1 to 64 letters, digits, dots, dashes or underscores")
    if name in (LATEST, RECORDED, VERIFIED):
        raise ValueError("should be another name: runs/ has a folder of that name for other things")
    return name


def refuse_mps(value: object) -> object:
    """Say why the device of Macs is none of those that can be chosen."""
    if value == "mps":
        raise ValueError(NO_MPS)
    return value


def refuse_missing_engines(parallel: str) -> str:
    """Check a choice of an engine: projects for one machine have that of `shards` alone."""
    if parallel != "shards" and (fault := fault_without_engines()):
        raise ValueError(fault)
    return parallel


def power_of_two(value: int) -> int:
    """Check a number of shards: their sum is a binary tree."""
    if value & (value - 1):
        raise ValueError("should be a power of two")
    return value
