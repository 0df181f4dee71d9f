"""Read files that anybody may have cut, edited or made to do harm, and stay within bounds.

All JSON, JSON Lines and text that commands read comes through here; YAML through
repro/runs/yaml_files.py, TOML through repro/core/project.py, tensors through
repro/core/tensor_files.py. Promises that a file which
nobody could have written with this kit is a `DamagedFile`, a line for the user, before it costs
more memory than the bounds allow. Whoever writes what the kit reads again keeps to the same bounds
(`refuse_unreadable`).
"""

from __future__ import annotations  # `make image-digest` runs with older Pythons, too

import json
import re
from codecs import BOM_UTF8
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from repro.core.errors import UserError, reason_of
from repro.core.special_files import fault_of_kind

LARGEST = 1 << 28  # bytes of a file that is read as a whole: a manifest of two million files
LARGEST_BY_HAND = 1 << 20  # bytes of a file that people write: settings, claims, pyproject.toml
LONGEST_LINE = 1 << 24  # bytes: the header of a trace has the digest of each file of code
DEEPEST = 100  # lists and objects in each other: whoever walks through them calls itself for each
# What one file may hold: a value takes up to a hundred bytes of memory, and three in the file.
MOST_VALUES = 1 << 23
# All lines of a log together, where they are held at once: a trace of two million steps.
LARGEST_LOG = 1 << 30
MOST_VALUES_OF_A_LOG = 1 << 25
_OF_A_LINE = 4  # values that a line costs beside those in it: its object, its step

_HALF = re.compile(r"\\u[dD][89a-fA-F]")  # or a whole one, written as two halves

_TOO_DEEP = f"nested deeper than {DEEPEST} levels"

RESTORE = "restore it, or move it away"


class DamagedFile(UserError):
    """A file that cannot be read: `reason` says why in a few words, `remedy` what to do.

    `line`: the number of the line that is at fault, where it is one.
    """

    def __init__(self, path: Path, reason: str, remedy: str = RESTORE, line: int = 0) -> None:
        self.path = path
        self.reason = reason
        place = f"{path}: line {line}" if line else str(path)
        super().__init__(f"{place} is damaged ({reason}): {remedy}")


def read_whole(path: Path, most: int = LARGEST) -> bytes:
    """Return the bytes of a file; DamagedFile if there are more than `most`, or if it is none.

    OSError if it is not there or cannot be opened.
    """
    if fault := fault_of_kind(path):
        raise UserError(fault)
    size = path.stat().st_size
    if size > most:
        raise DamagedFile(path, f"it has {size} bytes, expected at most {most}")
    return path.read_bytes()


def read_text(path: Path, most: int = LARGEST_BY_HAND) -> str:
    """Return the text of a file as `read_whole` does; DamagedFile if it is not UTF-8."""
    try:
        return read_whole(path, most).decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise DamagedFile(path, f"no UTF-8 text at byte {error.start}") from error


def parse_json(text: str | bytes, names_once: bool = False) -> Any:
    """Return the value that a JSON text holds; ValueError with the reason if it holds none.

    `names_once` refuses an object that has a name twice, of which readers take one or the other.
    """
    if isinstance(text, bytes):
        text = text.removeprefix(BOM_UTF8).decode()
    if len(text) > MOST_VALUES and values_in(text) > MOST_VALUES:
        raise ValueError(f"it holds more than {MOST_VALUES} values")
    try:
        value = json.loads(text, object_pairs_hook=_names_once if names_once else None)
    except RecursionError as error:
        raise ValueError(_TOO_DEEP) from error
    if text.count("[") + text.count("{") > DEEPEST and is_too_deep(value):
        raise ValueError(_TOO_DEEP)
    if "\\u" in text and _HALF.search(text):  # a long trace has a million lines without any
        _refuse_halves(value)
    return value


def _names_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return the object of these names and values; ValueError if a name is there twice."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("an object has a name twice")
    return found


def _refuse_halves(value: Any) -> None:
    """Raise ValueError for half a character (a lone surrogate), which no file and terminal takes.

    The halves that stand for single bytes are let through: names of files may be any bytes.
    """
    try:
        json.dumps(value, ensure_ascii=False).encode(errors="surrogateescape")
    except UnicodeEncodeError as error:
        raise ValueError(f"half a character: {error.object[error.start]!a}") from error


def values_in(text: str) -> int:
    """Return how many values a JSON text can hold at most: quick, and before it is parsed."""
    return text.count(",") + text.count("[") + text.count("{") + 1


def is_too_deep(value: Any) -> bool:
    """Tell whether lists and objects lie in each other more than DEEPEST times."""
    level = [value]
    for _ in range(DEEPEST):
        inside: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                inside += item.values()
            elif isinstance(item, list | tuple):
                inside += item
        if not inside:
            return False
        level = inside
    return any(isinstance(item, dict | list | tuple) for item in level)


def read_json_file(path: Path, remedy: str = RESTORE) -> Any:
    """Return the JSON value that is all of a file; DamagedFile if it holds none.

    OSError if it is not there.
    """
    try:
        return parse_json(read_whole(path))
    except ValueError as error:
        raise DamagedFile(path, reason_of(error), remedy) from error


def json_lines(path: Path) -> Iterator[tuple[int, Any]]:
    """Yield the values of a JSON Lines file, each with its line's number; DamagedFile at a fault.

    A last line without its end is left out: a crash left it half written. No more than one line is
    held at a time, so a file may have any length.
    """
    if fault := fault_of_kind(path):
        raise UserError(fault)
    with path.open("rb") as file:
        number = 0
        while line := file.readline(LONGEST_LINE + 1):
            number += 1
            if len(line) > LONGEST_LINE:
                raise DamagedFile(path, f"more than {LONGEST_LINE} bytes", line=number)
            if not line.endswith(b"\n"):
                return
            try:
                value = parse_json(line)
            except ValueError as error:
                raise DamagedFile(path, reason_of(error), line=number) from error
            yield number, value


class Budget:
    """What is left of the memory for a log whose lines are held at once."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._left = MOST_VALUES_OF_A_LOG
        size = path.stat().st_size
        if size > LARGEST_LOG:
            self._refuse(f"{size} bytes, expected at most {LARGEST_LOG}")

    def spend(self, values: int) -> None:
        """Take a line of so many values; UserError when nothing is left."""
        self._left -= values + _OF_A_LINE
        if self._left < 0:
            self._refuse(f"more than {MOST_VALUES_OF_A_LOG} values")

    def _refuse(self, found: str) -> None:
        raise DamagedFile(self._path, f"{found}: too many to be held in memory")


def refuse_unreadable(what: str, text: str, value: Any) -> None:
    """Raise UserError for JSON that this kit would not read again: too large, or too deep."""
    if len(text) > LARGEST or values_in(text) > MOST_VALUES:
        found = f"JSON of {len(text)} bytes, expected at most {LARGEST}, and {MOST_VALUES} values"
        raise UserError(f"{what}: {found}: keep large lists as tensors, or in files")
    if is_too_deep(value):
        raise UserError(f"{what}: lists and dicts in each other, expected {DEEPEST} levels at most")
    try:
        if _HALF.search(text):  # json.dumps escapes all that is not ASCII
            _refuse_halves(value)
    except ValueError as error:
        raise UserError(f"{what}: {error}: expected whole characters") from error
