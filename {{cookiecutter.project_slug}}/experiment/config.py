"""Every setting: its name, its type and its range. Hydra composes the values, pydantic checks them.

`load_config` promises that a typo, a wrong type or a value out of range is refused before anything
is written, with one line per fault and all faults at once. The rest of the code sees one frozen,
typed `Config`. To add a setting: add a field here and its value in configs/.
"""

import difflib
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml  # type: ignore[import-untyped]  # omegaconf brings it; for its errors only
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from repro.command import UserError
from repro.hashing import derive_seed
from repro.redaction import redact_mapping

ROOT = Path(__file__).resolve().parent.parent
CONFIGS = ROOT / "configs"

# Settings that say where and how to run; they may differ between two runs of equal bits.
FREE = ("output", "num_workers", "data_dir", "run_dir", "resume")

Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
PathName = Annotated[
    str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
]  # stays in its folder


class Settings(BaseModel):
    """Frozen; unknown keys, "3" for 3 and NaN are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class SmallCNN(Settings):
    name: Literal["small_cnn"]
    width: Count
    dropout: Fraction


class Digits(Settings):
    name: Literal["digits"]
    validation_fraction: Annotated[float, Field(gt=0, lt=0.5)]
    test_fraction: Annotated[float, Field(gt=0, lt=0.5)]
    shift: Annotated[int, Field(ge=0, le=4)]


class AdamW(Settings):
    name: Literal["adamw"]
    learning_rate: Annotated[float, Field(gt=0)]
    weight_decay: Annotated[float, Field(ge=0)]
    betas: Annotated[list[Fraction], Field(min_length=2, max_length=2)]


class SGD(Settings):
    name: Literal["sgd"]
    learning_rate: Annotated[float, Field(gt=0)]
    weight_decay: Annotated[float, Field(ge=0)]
    momentum: Fraction


# With a second model or data set: Annotated[Union[SmallCNN, Mine], Field(discriminator="name")].
Model = SmallCNN
Dataset = Digits
Optimizer = Annotated[Union[AdamW, SGD], Field(discriminator="name")]  # noqa: UP007


class Seeds(Settings):
    data_split: Seed
    model_init: Seed
    training: Seed
    evaluation: Seed


def _power_of_two(value: int) -> int:
    if value & (value - 1):
        raise ValueError("should be a power of two")
    return value


class Training(Settings):
    epochs: Count
    batch_size: Count
    shards: Annotated[Count, AfterValidator(_power_of_two)]
    drop_last: bool
    warmup_epochs: Annotated[float, Field(ge=0)]
    gradient_clip: Annotated[float, Field(gt=0)] | None
    precision: Literal["fp32", "bf16"]
    max_steps: Count | None

    @model_validator(mode="after")
    def _consistent(self) -> "Training":
        if self.shards > self.batch_size:
            raise ValueError("shards should be at most batch_size")
        if self.warmup_epochs > self.epochs:
            raise ValueError("warmup_epochs should be at most epochs")
        return self


class Evaluation(Settings):
    batch_size: Count


def _not_taken(name: str) -> str:
    if name in ("latest", "record", "verify"):
        raise ValueError("should be another name: runs/ has a folder of that name for other things")
    return name


class Output(Settings):
    log_every: Count
    checkpoint_every: Count | None
    keep_checkpoints: Count


class Config(Settings):
    name: Annotated[PathName, AfterValidator(_not_taken)]
    seed: Seed
    seeds: Seeds
    profile: Literal["portable", "native"]
    determinism: Literal["strict", "warn", "off"]
    device: Literal["auto", "cpu", "cuda"]
    threads: Annotated[int, Field(ge=1, le=1024)]
    model: Model
    dataset: Dataset
    optimizer: Optimizer
    training: Training
    evaluation: Evaluation
    output: Output
    num_workers: Annotated[int, Field(ge=0, le=1024)]
    data_dir: Annotated[str, Field(min_length=1)]
    run_dir: Annotated[str, Field(min_length=1)] | None
    resume: Annotated[str, Field(min_length=1)] | None

    @model_validator(mode="before")
    @classmethod
    def _derive_seeds(cls, values: Any) -> Any:
        """Fill the phases' seeds that were not given, each as a function of the master seed."""
        seed, seeds = values.get("seed"), values.get("seeds")
        if not isinstance(seeds, dict):
            return values  # the field's own check will say so
        seed = seed if isinstance(seed, int) else 0  # likewise
        derived = {k: derive_seed(seed, k) if v is None else v for k, v in seeds.items()}
        return {**values, "seeds": derived}

    def bits_settings(self) -> dict[str, Any]:
        """The settings that may change the bits, as JSON: all but FREE, and no secrets."""
        settings: dict[str, Any] = redact_mapping(
            self.model_dump(mode="json", exclude=set(FREE)), clean=str
        )
        return settings


def load_config(overrides: list[str]) -> Config:
    """Compose configs/config.yaml with `overrides` in Hydra's grammar and validate the result.

    Raises UserError with one line per fault.
    """
    parsed, faults = parse_overrides(overrides)
    lines = []
    for override in parsed:
        text = str(override.input_line)
        if override.is_sweep_override():
            faults.append(f"{text}: several values are a sweep, which needs -m")
        elif override.type is OverrideType.CHANGE and not _choices(override):
            lines.append(
                f"++{text}"
            )  # adds unknown keys: validation then names all of them at once
        else:
            lines.append(text)
    try:
        with initialize_config_dir(str(CONFIGS)):
            values = OmegaConf.to_container(compose("config", lines), resolve=True)
    except (HydraException, OmegaConfBaseException, yaml.YAMLError) as error:
        raise UserError([*faults, " ".join(str(error).split())]) from error
    return validate(values, faults)


def validate(values: Any, faults: list[str]) -> Config:
    """The frozen config, or UserError with `faults` and those that are found here."""
    try:
        config = Config.model_validate(values)
    except ValidationError as error:
        faults = faults + [_in_words(dict(fault)) for fault in error.errors()]
    if faults:
        raise UserError(faults)
    return config


def parse_overrides(overrides: list[str]) -> tuple[list[Override], list[str]]:
    """The overrides that can be understood, and a line for each that cannot."""
    parser, parsed, faults = OverridesParser.create(), [], []
    for text in overrides:
        try:
            override = parser.parse_override(_quoted(text))
        except HydraException:
            faults.append(f"{text}: not of the form key=value (Hydra reads key='any text')")
            continue
        choices, key = _choices(override), override.key_or_group
        if choices and not override.is_sweep_override() and override.value() not in choices:
            faults.append(f"{text}: no such choice; configs/{key}/ has {', '.join(choices)}")
        else:
            parsed.append(override)
    return parsed, faults


def _quoted(text: str) -> str:
    """The override with a path in quotes: Hydra's grammar refuses spaces, brackets and umlauts."""
    key, _, value = text.partition("=")
    if (
        key not in ("run_dir", "data_dir", "resume")
        or value[:1] in ("'", '"', "")
        or value == "null"
    ):
        return text
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'{key}="{escaped}"'


def _choices(override: Override) -> list[str]:
    """The files to choose from if the override names a folder of configs/."""
    return sorted(path.stem for path in (CONFIGS / override.key_or_group).glob("*.yaml"))


def _keys(model: Any, prefix: str = "") -> list[str]:
    """All settings as dotted names, looking into the alternatives of unions."""
    if get_origin(model) is not None:
        return [key for part in get_args(model) for key in _keys(part, prefix)]
    fields = getattr(model, "model_fields", {}).items()
    return [k for n, f in fields for k in (prefix + n, *_keys(f.annotation, f"{prefix}{n}."))]


def _in_words(fault: dict[str, Any]) -> str:
    """One line for one of pydantic's faults."""
    known = dict.fromkeys(_keys(Config))
    loc = [str(part) for part in fault["loc"]]
    if len(loc) > 2 and ".".join(loc[:2]) not in known:
        del loc[1]  # pydantic puts the alternative's name (adamw) into the path of a union's field
    key, value = ".".join(loc), fault["input"]
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
    if fault["type"] == "string_pattern_mismatch":
        message = "should be 1 to 64 letters, digits, dots, dashes or underscores"
    return f"{key}: {message}" if isinstance(value, dict) else f"{key}={value}: {message}"
