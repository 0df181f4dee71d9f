"""What a run was made of: code with its uncommitted changes, environment, hardware.

Promises that no secret that can be recognised (by its name, its shape, as a value of the
environment, in a URL) goes into a run's files, and that the unknown is null, with a note of why.
Does not see into compressed files, nor a secret that looks like any other word.
"""

import json
import platform
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from repro.core.redaction import redact_mapping
from repro.environment.cuda import find_foreign
from repro.environment.locks import LOCKS
from repro.environment.machine import (
    get_environment_variables,
    get_hardware,
    get_software,
    import_torch,
)
from repro.runs.git import get_git_info, uncommitted_changes


def log_experiment_context(folder: Path, root: Path, extra: dict[str, Any]) -> dict[str, Any]:
    """Write `experiment_context.json`, and the patch if there is one; return the context.

    Prints a warning for each CUDA library that is not the lock's. `extra` is merged at the top
    level; ValueError if it holds a section that is written here.
    """
    context: dict[str, Any] = {
        "git": get_git_info(root),
        "hardware": {"hostname": platform.node(), **asdict(get_hardware())},
        "environment": get_environment_variables(),
    }
    if clash := {*context, "software"} & extra.keys():
        raise ValueError(f"extra holds {sorted(clash)}, written here as well: use other names")
    context = redact_mapping(context | extra)
    if "conditions" in extra:  # without secrets already; a masked digest would be another condition
        context["conditions"] = extra["conditions"]
    foreign = find_foreign(root / LOCKS[0], torch) if (torch := import_torch()) else []
    for line in foreign:
        print(f"warning: {line}", flush=True)
    # Not redacted: its keys are packages, and "secretstorage" is no secret.
    context["software"] = asdict(replace(get_software(), not_as_locked=foreign))
    patch = uncommitted_changes(root)
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(context, indent=2, sort_keys=True) + "\n"
    (folder / "experiment_context.json").write_text(text, "utf-8")
    if patch:
        (folder / "uncommitted_changes.diff").write_bytes(patch.encode("utf-8", "surrogateescape"))
    return context
