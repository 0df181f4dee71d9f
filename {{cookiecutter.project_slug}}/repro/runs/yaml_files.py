"""Read YAML files that people write or edit: bounded in size and depth, aliases counted.

YAML can be small and mean something huge: an alias stands for all that its anchor holds, and
aliases of aliases multiply. So what a file would become is counted before it is built.
"""

from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]  # omegaconf brings it
from omegaconf import OmegaConf

from repro.core.bounded import DEEPEST, LARGEST_BY_HAND, RESTORE, DamagedFile, read_text
from repro.core.errors import reason_of

_MOST_NODES = 10_000  # values, with what aliases stand for: no more than OmegaConf takes
_TOO_DEEP = f"nested deeper than {DEEPEST} levels"


def load_yaml(path: Path, remedy: str = RESTORE) -> Any:
    """Return what a YAML file holds, as OmegaConf reads it; DamagedFile if it cannot be read.

    OSError if it is not there.
    """
    if fault := fault_of_size(path):
        raise DamagedFile(path, fault, remedy)
    try:
        content = OmegaConf.to_container(OmegaConf.load(path))
    except OSError as error:
        if error.errno is not None:
            raise
        raise DamagedFile(path, reason_of(error), remedy) from error
    except Exception as error:  # whatever YAML's and OmegaConf's constructors raise at odd values
        raise DamagedFile(path, reason_of(error), remedy) from error
    if fault := fault_of_texts(content):
        raise DamagedFile(path, fault, remedy)
    return content


def fault_of_size(path: Path) -> str | None:
    """Say that a YAML file is too large, too deep, or would become too large; None if not.

    What is no YAML at all is no fault here: whoever loads it says so, with the line.
    """
    try:
        text = read_text(path, LARGEST_BY_HAND)
    except DamagedFile as error:
        return error.reason
    return fault_of_yaml(text)


def fault_of_yaml(text: str) -> str | None:
    """Say the same of a text."""
    try:
        return _fault_of_events(text)
    except (yaml.YAMLError, ValueError):
        return None


def _fault_of_events(text: str) -> str | None:
    """Walk through a text's parts as they come, and stop at the first that is too much."""
    sizes: dict[str, int] = {}  # of what has an anchor, by its name
    open_ones: list[tuple[str | None, int]] = [(None, 0)]  # anchor, and its size until now
    for event in yaml.parse(text, yaml.SafeLoader):
        size = 1
        anchor = getattr(event, "anchor", None)
        if isinstance(event, yaml.CollectionStartEvent):
            open_ones.append((anchor, 1))
            if len(open_ones) > DEEPEST + 1:
                return _TOO_DEEP
            continue
        if isinstance(event, yaml.CollectionEndEvent):
            anchor, size = open_ones.pop()
        elif isinstance(event, yaml.AliasEvent):
            if anchor not in sizes:
                return f"line {event.start_mark.line + 1}: *{anchor} stands for what it lies in"
            size = sizes[anchor]
        elif not isinstance(event, yaml.ScalarEvent):
            continue
        if anchor:
            sizes[anchor] = size
        above, before = open_ones.pop()
        open_ones.append((above, before + size))
        if before + size > _MOST_NODES:
            return f"with its aliases it holds more than {_MOST_NODES} values"
    return None


def fault_of_texts(value: Any) -> str | None:
    """Say that a text holds what no file name, no command and no terminal can."""
    if isinstance(value, str):
        try:
            value.encode(errors="surrogateescape")  # names of files may be any bytes
        except UnicodeEncodeError:
            return f"half a character: {value[:40]!a}"
        return f"a NUL character: {value[:40]!a}" if "\0" in value else None
    if isinstance(value, dict):
        inside = [*value, *value.values()]
    else:
        inside = value if isinstance(value, list) else []
    return next(filter(None, map(fault_of_texts, inside)), None)
