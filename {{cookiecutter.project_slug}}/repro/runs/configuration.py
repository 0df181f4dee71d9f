"""Settings from files and the command line: Hydra composes them, pydantic checks them.

`Loader.load` promises that a typo, a wrong type or a value out of range is refused before anything
is written, with one line per fault and all faults at once. It knows no setting: those are the
fields of the pydantic model that it is given.
"""

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar, get_args, get_origin

import yaml  # type: ignore[import-untyped]  # omegaconf brings it; for its errors only
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel, ValidationError

from repro.core.errors import UserError
from repro.core.files import read_object
from repro.core.layout import STATE
from repro.core.redaction import MASK
from repro.core.text import flatten

Model = TypeVar("Model", bound=BaseModel)


@dataclass(frozen=True)
class Loader(Generic[Model]):
    """`model` is the config's type, `folder` holds config.yaml and the groups.

    `paths` names the settings that take any text: a path with spaces needs no quotes of Hydra's.
    """

    model: type[Model]
    folder: Path
    paths: tuple[str, ...] = ()

    def load(self, overrides: list[str]) -> Model:
        """Compose config.yaml with `overrides` in Hydra's grammar and validate the result.

        Raises UserError with one line per fault.
        """
        return self.validate(*self.compose(overrides))

    def compose(self, overrides: list[str]) -> tuple[Any, list[str]]:
        """The values, not validated yet, and a line for each fault in how `overrides` are written.

        Raises UserError if there are no values.
        """
        parsed, faults = self.parse(overrides)
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
                values = OmegaConf.to_container(compose("config", lines), resolve=True)
        except (HydraException, OmegaConfBaseException, yaml.YAMLError) as error:
            raise UserError([*faults, " ".join(str(error).split())]) from error
        return values, faults

    def validate(self, values: Any, faults: list[str]) -> Model:
        """The frozen config, or UserError with `faults` and those that are found here."""
        try:
            config = self.model.model_validate(values)
        except ValidationError as error:
            faults = faults + [_in_words(self.model, dict(fault)) for fault in error.errors()]
        if faults:
            raise UserError(faults)
        return config

    def revive(self, values: dict[str, Any]) -> Model:
        """The config of an older run from its settings.

        What is new since then has today's value, and so has a path that is not there (any more).
        """
        today, _ = self.compose([])  # not valid in itself, perhaps: image_dir may be the run's
        known = today | {name: _merged(today.get(name), value) for name, value in values.items()}
        for name in self.paths:
            if known.get(name) and not (self.folder.parent / known[name]).exists():
                known[name] = today[name]
        return self.validate(known, [])

    def parse(self, overrides: list[str]) -> tuple[list[Override], list[str]]:
        """The overrides that can be understood, and a line for each that cannot."""
        parser, parsed, faults = OverridesParser.create(), [], []
        for text in overrides:
            try:
                override = parser.parse_override(self._quoted(text))
            except HydraException:
                faults.append(f"{text}: not of the form key=value (Hydra reads key='any text')")
                continue
            choices, key = self._choices(override), override.key_or_group
            if choices and not override.is_sweep_override() and override.value() not in choices:
                faults.append(f"{text}: no such choice; configs/{key}/ has {', '.join(choices)}")
            else:
                parsed.append(override)
        return parsed, faults

    def _quoted(self, text: str) -> str:
        """The override with a path in quotes: Hydra's grammar refuses spaces and umlauts."""
        key, _, value = text.partition("=")
        if key not in self.paths or value[:1] in ("'", '"', "") or value == "null":
            return text
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        return f'{key}="{escaped}"'

    def _choices(self, override: Override) -> list[str]:
        """The files to choose from if the override names a group's folder."""
        return sorted(path.stem for path in (self.folder / override.key_or_group).glob("*.yaml"))


def settings_of(checkpoint: Path) -> dict[str, Any]:
    """The config that a checkpoint was trained with; UserError if it is none."""
    if not (checkpoint / STATE).is_file():
        beside = checkpoint / "checkpoints"
        beside = beside if beside.is_dir() else checkpoint.parent
        there = ", ".join(sorted(path.parent.name for path in beside.glob(f"*/{STATE}")))
        wanted = f"{beside} has {there}" if there else "expected e.g. RUN/checkpoints/last"
        raise UserError(f"{checkpoint} is no checkpoint: {wanted}")
    found = read_object(checkpoint / STATE).get("config")
    if not isinstance(found, dict):
        raise UserError(f"{checkpoint} is damaged: {STATE} has no config")
    if masked := [name for name, value in flatten(found).items() if value == MASK]:
        words = "by its name it was a secret, so it was not saved: rename the setting, train again"
        raise UserError([f"{checkpoint}: {name}: {words}" for name in masked])
    return found


def settings_beside(checkpoint: Path, names: Sequence[str]) -> dict[str, Any]:
    """Those settings of the run that a checkpoint lies in, if it lies in one."""
    used = checkpoint.parent.parent / "config_used.yaml"
    try:
        found = OmegaConf.to_container(OmegaConf.load(used)) if used.is_file() else {}
    except yaml.YAMLError as error:
        raise UserError(f"{used} is damaged: {type(error).__name__}") from error
    return {k: found[k] for k in names if k in found} if isinstance(found, dict) else {}


def _merged(today: Any, then: Any) -> Any:
    """`then`, with what it lacks as it is today."""
    if not isinstance(today, dict) or not isinstance(then, dict):
        return then
    if today.get("name") != then.get("name"):  # another model, data set, optimizer
        return then
    return {**today, **{key: _merged(today.get(key), value) for key, value in then.items()}}


def run_name(name: str) -> str:
    """Checks the name of a run's folder: it must stay inside runs/, and be free."""
    if not re.fullmatch("[A-Za-z0-9][A-Za-z0-9._-]{0,63}", name):
        raise ValueError("should be 1 to 64 letters, digits, dots, dashes or underscores")
    if name in ("latest", "record", "verify"):
        raise ValueError("should be another name: runs/ has a folder of that name for other things")
    return name


def power_of_two(value: int) -> int:
    """Checks a number of shards: their sum is a binary tree."""
    if value & (value - 1):
        raise ValueError("should be a power of two")
    return value


def _keys(model: Any, prefix: str = "") -> list[str]:
    """All settings as dotted names, looking into the alternatives of unions."""
    if get_origin(model) is not None:
        return [key for part in get_args(model) for key in _keys(part, prefix)]
    fields = getattr(model, "model_fields", {}).items()
    return [k for n, f in fields for k in (prefix + n, *_keys(f.annotation, f"{prefix}{n}."))]


def _in_words(config: type[BaseModel], fault: dict[str, Any]) -> str:
    """One line for one of pydantic's faults."""
    known = dict.fromkeys(_keys(config))
    loc = [str(part) for part in fault["loc"]]
    if len(loc) > 2 and ".".join(loc[:2]) not in known:
        del loc[1]  # pydantic puts the alternative's name (adamw) into the path of a union's field
    key, value = ".".join(loc), fault["input"]
    if fault["type"] == "extra_forbidden" and key in known:
        group = key.rpartition(".")[0]
        return f"{key}: another {group} has this setting, the chosen one does not"
    if fault["type"] == "extra_forbidden":
        siblings = [name for name in known if name.rpartition(".")[0] == key.rpartition(".")[0]]
        names = {name.rpartition(".")[2]: name for name in [*known, *siblings]}
        near = difflib.get_close_matches(loc[-1], names, 1, 0.7)
        hint = f"did you mean {names[near[0]]}?" if near else f"there are {', '.join(siblings)}"
        return f"{key}: there is no such setting; {hint}"
    if fault["type"] == "missing":
        return f"{key}: not set; give it a value in configs/ or on the command line"
    if fault["type"] == "union_tag_invalid":
        return f"{key}.name={value['name']}: should be one of {fault['ctx']['expected_tags']}"
    message = fault["msg"].removeprefix("Value error, ").replace("Input should", "should")
    if not key:  # of the config as a whole
        return str(message)
    return f"{key}: {message}" if isinstance(value, dict) else f"{key}={value}: {message}"
