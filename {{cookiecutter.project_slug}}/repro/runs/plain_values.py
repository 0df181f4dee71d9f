"""Refuse what YAML or Hydra would take for something else than a reader does, without a word.

To YAML 010 is 8, 0x10 is 16, 1_0 is 10 and 1:30 is 90. Such a number would be recorded as another
one than stands in the file. `hydra:` is read by Hydra's own launcher, which this project has none
of: what it says there has no effect.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import yaml  # type: ignore[import-untyped]  # omegaconf brings it
from hydra.core.override_parser.types import Override

from repro.core.bounded import read_text
from repro.core.errors import UserError

NO_HYDRA = "Hydra's own settings have no effect here: run_dir=FOLDER says where a run goes"

_OCTAL = r"0[0-7_]+"
_OTHER_BASE = r"0(?:b[01_]+|x[0-9a-fA-F_]+)"
_UNDERSCORED = r"[0-9]+(?:\.[0-9]*)?_[0-9_.]*(?:[eE][-+]?[0-9]+)?"
_SIXTIES = r"[0-9][0-9_]*(?::[0-5]?[0-9])+(?:\.[0-9_]*)?"
_ODD = re.compile(f"[-+]?(?:{_OCTAL}|{_OTHER_BASE}|{_UNDERSCORED}|{_SIXTIES})")
_HYDRA = re.compile(r"(?:override )?hydra(?:/.*)?")


class _Scalar(NamedTuple):
    """A value without quotes in a YAML file, or the name of one, and its line."""

    text: str
    line: int
    is_name: bool


def odd_numbers(path: Path) -> list[str]:
    """Return a line for each number in a YAML file that is another one than it looks like."""
    return [
        f"{path}:{scalar.line}: {scalar.text} is {_read(scalar.text)} to YAML: expected a decimal "
        f"number as people write it, or quotes around a text"
        for scalar in _scalars(path)
        if not scalar.is_name and _ODD.fullmatch(scalar.text)
    ]


def settings_of_hydra(path: Path) -> list[str]:
    """Return a line for each place in a config file that sets something of Hydra's own."""
    return [
        f"{path}:{scalar.line}: {scalar.text}: {NO_HYDRA}"
        for scalar in _scalars(path)
        if scalar.is_name and _HYDRA.fullmatch(scalar.text)
    ]


def fault_of(text: str, override: Override) -> str:
    """Say what is wrong with an override that Hydra has understood; nothing if it is as it looks.

    Hydra reads no 010 and no 0x10 as a number, but 1_0.
    """
    value = text.partition("=")[2]
    if isinstance(override.value(), str) or not re.search(r"(?<![\w.])[0-9.]+_[0-9]", value):
        return ""
    return (
        f"{text}: a number with _ in it: expected one as people write it, or quotes around a text"
    )


def is_of_hydra(text: str) -> bool:
    """Tell whether an override is of Hydra's own settings."""
    return re.match(r"[+~]{0,2}hydra(?:[./@=]|$)", text) is not None


def _scalars(path: Path) -> Iterator[_Scalar]:
    """Yield the scalars of a file; none of one that cannot be read, which Hydra says in words."""
    try:
        root = yaml.compose(read_text(path), yaml.SafeLoader)
    except (yaml.YAMLError, OSError, ValueError, RecursionError, UserError):
        return
    waiting = [root]
    seen = set()
    while waiting:
        node = waiting.pop()
        if node is None or id(node) in seen:  # an alias names a node once more
            continue
        seen.add(id(node))
        line = node.start_mark.line + 1
        if isinstance(node, yaml.ScalarNode) and node.style is None:
            yield _Scalar(node.value, line, is_name=False)
        elif isinstance(node, yaml.SequenceNode):
            waiting += node.value
        elif isinstance(node, yaml.MappingNode):
            for name, value in node.value:
                yield _Scalar(str(name.value), line, is_name=True)
                waiting.append(value)


def _read(text: str) -> object:
    return yaml.safe_load(text)
