"""Write down what a run was made of, and read it: code, uncommitted changes, machine, software.

Promises that no secret that can be recognised (by its name, its shape, as a value of the
environment, in a URL) goes into a run's files, and that the unknown is null, with a note of why.
Does not see into compressed files, nor a secret that looks like any other word.
"""

import json
import platform
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

from repro.core.files import Json, JsonObject, read_object
from repro.core.layout import CONTEXT, PATCH, context_folders
from repro.core.redaction import redact_mapping
from repro.environment.cuda import find_foreign
from repro.environment.locks import LOCK
from repro.environment.machine import (
    Hardware,
    Software,
    get_environment_variables,
    get_hardware,
    get_software,
    import_torch,
)
from repro.runs.conditions import (
    AsItIs,
    Conditions,
    ConditionsOnDisk,
    DatasetFacts,
    differences,
)
from repro.runs.git import GitInfo, get_git_info, uncommitted_changes


@dataclass(frozen=True)
class Context:
    """What experiment_context.json holds; what an older file lacks is empty or None.

    `environment`: the variables that can change bits. `flags`: torch's. `seeds`: of the phases.
    """

    git: GitInfo
    hostname: str
    hardware: Hardware
    software: Software
    environment: dict[str, str]
    conditions: Conditions
    hardware_class: str
    dataset: DatasetFacts
    flags: Annotated[JsonObject, AsItIs()]
    seed: int | None
    seeds: dict[str, int]


_UNKNOWN = Context(
    git=GitInfo(),
    hostname="",
    hardware=Hardware("", [], None, 0.0, [], None),
    software=Software("", "", "", "", None, None, None, None, {}),
    environment={},
    conditions=Conditions({}, {}, "", "", {}),
    hardware_class="",
    dataset=DatasetFacts(),
    flags={},
    seed=None,
    seeds={},
)


def read_context(folder: Path) -> Context | None:
    """Read the context in a folder of a run; None if the file is missing or damaged."""
    from pydantic import TypeAdapter, ValidationError  # only here: whoever writes needs none

    context = read_object(folder / CONTEXT)
    if not context:
        return None
    values: JsonObject = {}
    for name, unknown in asdict(_UNKNOWN).items():
        value = context.get(name, unknown)
        values[name] = {**unknown, **value} if _both_objects(unknown, value) else value
    hardware = context.get("hardware")
    if isinstance(hardware, dict):
        values["hostname"] = hardware.get("hostname", "")
    try:
        return TypeAdapter(Context).validate_python(values)
    except ValidationError:
        return None


def other_code(run: Path, code: ConditionsOnDisk) -> list[str]:
    """Return a line for each file or package that a run ever had otherwise than in `code`.

    A run that was resumed has a context of each of these times.
    """
    lines = []
    for folder in context_folders(run):
        if not (folder / CONTEXT).is_file():  # a copy of a checkpoint has none around it
            continue
        context = read_context(folder)
        if context is None:
            lines.append(f"{folder / CONTEXT} is damaged")
        else:
            lines += differences(code.as_json(), context.conditions.on_disk.as_json())
    return list(dict.fromkeys(lines))


def log_experiment_context(folder: Path, root: Path, extra: JsonObject) -> JsonObject:
    """Write experiment_context.json, and the patch if there is one; return the context.

    Prints a warning for each CUDA library that is not the lock's. `extra` is merged at the top
    level; ValueError if it holds a section that is written here.
    """
    context: JsonObject = {
        "git": asdict(get_git_info(root)),
        "hardware": {"hostname": platform.node(), **asdict(get_hardware())},
        "environment": {**get_environment_variables()},
    }
    if clash := {*context, "software"} & extra.keys():
        raise ValueError(f"extra holds {sorted(clash)}, written here as well: use other names")
    context = redact_mapping(context | extra)
    if "conditions" in extra:  # without secrets already; a masked digest would be another condition
        context["conditions"] = extra["conditions"]
    # Its keys are names of packages: "secretstorage" is no secret.
    context["software"] = asdict(get_software()) | {"not_as_locked": _foreign_libraries(root)}
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(context, indent=2, sort_keys=True) + "\n"
    (folder / CONTEXT).write_text(text, "utf-8")
    if patch := uncommitted_changes(root):
        (folder / PATCH).write_bytes(patch.encode("utf-8", "surrogateescape"))
    return context


def _foreign_libraries(root: Path) -> list[str]:
    """Warn of each CUDA library that is not the lock's, and return those lines."""
    torch = import_torch()
    lines = find_foreign(root / LOCK, torch) if torch else []
    for line in lines:
        print(f"warning: {line}", flush=True)
    return lines


def _both_objects(one: Json, two: Json) -> bool:
    return isinstance(one, dict) and isinstance(two, dict)
