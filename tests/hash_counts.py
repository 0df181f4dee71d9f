"""Count which files a command hashes, in all its processes, by a hook that Python itself loads."""

import re
from collections import Counter
from pathlib import Path
from typing import Any

from conftest import Project, torchrun

# Every digest of a file goes through this function (repro/core/hashing.py).
_HOOK = """
import hashlib, os
_digest = hashlib.file_digest

def file_digest(file, *rest, **more):
    with open(os.environ["HASHED"], "a") as log:
        log.write(f"{os.path.realpath(file.name)}\\n")
    return _digest(file, *rest, **more)

hashlib.file_digest = file_digest
"""
_DATA = re.compile(r"data/\w+/prepared(\.partial)?/")
_CODE = re.compile(r"(experiment|repro|configs)/")


class Counts:
    """How often the files of data and those of code were hashed, by their names."""

    def __init__(self, hashed: list[str]) -> None:
        found = Counter(hashed)
        self.data = {name: number for name, number in found.items() if _DATA.match(name)}
        self.code = {name: number for name, number in found.items() if _CODE.match(name)}


def counted(project: Project, place: Path, *command: str, **variables: str) -> tuple[Counts, Any]:
    """Run a command, `python ...`; its counts, and what it printed. A process, not a fork."""
    hook = place / "hook"
    hook.mkdir(exist_ok=True)
    (hook / "sitecustomize.py").write_text(_HOOK)
    log = place / "hashed"
    log.write_text("")
    done = project.run(*command, PYTHONPATH=str(hook), HASHED=str(log), **variables)
    root = project.path.resolve()
    paths = map(Path, log.read_text().splitlines())
    names = [str(path.relative_to(root)) for path in paths if path.is_relative_to(root)]
    return Counts(names), done


def training(processes: int, *settings: str) -> list[str]:
    several = torchrun(processes) if processes > 1 else []
    shards = [f"training.shards={processes}"] if processes > 1 else []
    return ["python", "-m", *several, "experiment.train", *SHORT, *shards, *settings]


SHORT = ("training.max_steps=3", "output.log_every=1", "device=cpu", "num_workers=0")
