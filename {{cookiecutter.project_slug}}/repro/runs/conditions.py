"""The conditions of a run: all that may change its bits, and how two runs differ in them.

Not among them: names, licence, results, and settings that only say where to run. The seed is not
either: a claim is about several.
"""

import os
from itertools import chain
from pathlib import Path
from typing import Any

from repro.core.hashing import derive_seed, sha256_file, sha256_json
from repro.core.layout import CODE
from repro.core.text import flatten
from repro.data.manifest import data_digest
from repro.environment.locks import LOCK, not_as_locked
from repro.environment.machine import get_hardware
from repro.environment.profile import PROFILES

_NO_CODE = ("tests", "runs", "data", "results")


def seeds_by_hand(config: dict[str, Any]) -> dict[str, int]:
    """Of the config's four seeds those that do not follow from the master seed."""
    return {k: v for k, v in config["seeds"].items() if v != derive_seed(config["seed"], k)}


def installed(root: Path) -> dict[str, Any]:
    """Those of the conditions that lie on the disk: code, lock, packages that are not as locked."""
    code = {name: sha256_file(root / name) for name in code_files(root)}
    code.pop("configs/claims.yaml", None)  # says what to record, not how to train
    packages = not_as_locked(root / LOCK)
    return {"code": code, "lock": sha256_file(root / LOCK), "packages": packages}


def code_files(root: Path) -> list[str]:
    """All files of CODE, and Python files elsewhere in the project, which training may import.

    Sorted. Left out: caches, hidden files, environments, and bootstrap.py, which only makes those.
    """
    found = []
    linked = [os.walk(root / name) for name in CODE if (root / name).is_symlink()]
    for place, folders, files in chain(os.walk(root), *linked):
        here = Path(place).relative_to(root)
        below = [name for name in folders if name[0] != "." and str(here / name) not in _NO_CODE]
        marks = ("pyvenv.cfg", "conda-meta")
        folders[:] = [x for x in below if not any(Path(place, x, mark).exists() for mark in marks)]
        of_code = here.parts[:1] in [(name,) for name in CODE]
        names = [name for name in files if name[0] != "." and here.name != "__pycache__"]
        found += [here / name for name in names if of_code or name.endswith(".py")]
    found = [path for path in found if (root / path).is_file() and path != Path("bootstrap.py")]
    return sorted(path.as_posix() for path in found)


def conditions_here(
    root: Path, config: dict[str, Any], manifest: dict[str, Any], profile: str, device: str
) -> dict[str, Any]:
    """Conditions, hardware class and data set of a training here, as JSON.

    `config`: the settings that may change the bits. `manifest`: of the data.
    """
    settings = {k: v for k, v in config.items() if k != "seed"}
    told = ("dataset", "samples", "source", "raw_sha256")
    return {
        "conditions": {
            **installed(root),
            "config": {**settings, "seeds": seeds_by_hand(config)},
            "data": data_digest(manifest),
            "environment": {k: os.environ[k] for k in PROFILES["portable"] if k in os.environ},
        },
        "hardware_class": hardware_class(profile, device),
        "dataset": {name: manifest[name] for name in told if name in manifest},
    }


def differences(recorded: dict[str, Any], found: dict[str, Any]) -> list[str]:
    """One line for each condition that differs, in words; empty if all agree."""
    then, now = flatten(recorded), flatten(found)
    lines = []
    for key in sorted(then.keys() | now.keys()):
        if then.get(key) == now.get(key):
            continue
        kind, _, name = key.partition(": ")
        if kind in ("code", "lock", "data"):  # digests tell a person nothing
            change = "is missing" if key not in now else "is new" if key not in then else "changed"
            lines.append(f"{kind}: {name} {change}" if name else f"{kind}: {change}")
        else:
            lines.append(f"{key} is {now.get(key, 'not set')}, recorded {then.get(key, 'not set')}")
    return lines


def hardware_class(profile: str, device: str) -> str:
    """Machines of one hardware class are promised the same bits under the same conditions."""
    if device == "cuda":
        import torch  # only here: this module serves commands that need no torch

        name = torch.cuda.get_device_name()
        return f"cuda {name}, torch {torch.__version__}, cuDNN {torch.backends.cudnn.version()}"
    if profile == "portable":
        return "cpu x86-64-v3 portable"
    found = get_hardware()  # virtual machines hide the model: the features tell more
    return f"cpu {found.cpu_model} ({sha256_json(found.cpu_features)[:8]}) native"
