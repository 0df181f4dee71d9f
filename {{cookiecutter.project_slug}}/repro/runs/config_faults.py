"""Say in words what pydantic finds wrong with a config: one line for each fault."""

import difflib
from typing import get_args, get_origin

from pydantic import BaseModel
from pydantic_core import ErrorDetails

_ALIKE = 0.7  # from which on a name is taken for a misspelt one


def fault_in_words(config: type[BaseModel], fault: ErrorDetails) -> str:
    """Return the line for one fault of a config: the setting, its value, what is expected."""
    known = list(dict.fromkeys(_keys(config)))
    parts = [str(part) for part in fault["loc"]]
    if len(parts) > 2 and ".".join(parts[:2]) not in known:
        del parts[
            1
        ]  # pydantic puts the alternative's name (adamw) into the path of a union's field
    key = ".".join(parts)
    value = fault["input"]
    if fault["type"] == "extra_forbidden":
        return f"{key}: {_unknown_setting(key, known)}"
    if fault["type"] == "missing":
        return f"{key}: not set; give it a value in configs/ or on the command line"
    if fault["type"] == "union_tag_invalid":
        return f"{key}.name={value['name']}: should be one of {fault['ctx']['expected_tags']}"
    message = fault["msg"].removeprefix("Value error, ").replace("Input should", "should")
    if not key:  # of the config as a whole
        return message
    return f"{key}: {message}" if isinstance(value, dict) else f"{key}={value}: {message}"


def _unknown_setting(key: str, known: list[str]) -> str:
    """Say that a setting is unknown, and which one was meant."""
    group, _, name = key.rpartition(".")
    if key in known:
        return f"another {group} has this setting, the chosen one does not"
    siblings = [other for other in known if other.rpartition(".")[0] == group]
    full_names = {other.rpartition(".")[2]: other for other in [*known, *siblings]}
    near = difflib.get_close_matches(name, full_names, 1, _ALIKE)
    hint = f"did you mean {full_names[near[0]]}?" if near else f"there are {', '.join(siblings)}"
    return f"there is no such setting; {hint}"


def _keys(kind: object, prefix: str = "") -> list[str]:
    """Return all settings as dotted names, looking into the alternatives of unions."""
    if get_origin(kind) is not None:
        return [key for part in get_args(kind) for key in _keys(part, prefix)]
    if not (isinstance(kind, type) and issubclass(kind, BaseModel)):
        return []
    keys = []
    for name, field in kind.model_fields.items():
        keys.append(f"{prefix}{name}")
        keys += _keys(field.annotation, f"{prefix}{name}.")
    return keys
