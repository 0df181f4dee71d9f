"""Keep an archive below a size: leave out checkpoints first, then traces, then whole runs.

Code, results and data stay: without the runs the archive still gives the verdict.
"""

import re
from collections.abc import Callable, Iterator
from pathlib import PurePosixPath
from typing import NamedTuple

from repro.core import layout
from repro.core.errors import UserError
from repro.publishing.contents import Files, PackedTraining, content_size

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "ki": 2**10, "mi": 2**20, "gi": 2**30}
_OF_A_ZIP = 22  # bytes at its end
_OF_A_FILE = 30 + 46  # bytes of the two entries of a file, twice its name not counted
_OF_A_LARGE_FILE = 20 + 28  # above 2 GiB the format differs


class LeftOut(NamedTuple):
    """Something that an archive lacks: a folder or a file, and how large it is."""

    name: str
    size: int

    def __str__(self) -> str:
        return f"left out: {self.name} ({self.size / 1e6:.1f} MB)"


def parse_size(text: str) -> int:
    """Return the bytes of a size such as 100MB or 64MiB; ValueError for another text."""
    match = re.fullmatch(r"(?i)([0-9]+(?:\.[0-9]+)?)\s*([kmg]i?)?b?", text.strip())
    if not match:
        raise ValueError(f"{text}: expected a size such as 100MB or 64MiB")
    return int(float(match[1]) * _UNITS[(match[2] or "").lower()])


def zip_size(top: str, files: Files) -> int:
    """Return how many bytes the zip of these files takes below the folder `top`."""
    size = _OF_A_ZIP
    for name, content in files.items():
        length = content_size(content)
        path = len(f"{top}/{name}".encode("utf-8", "surrogateescape"))
        size += length + _OF_A_FILE + 2 * path + (_OF_A_LARGE_FILE if length >= 1 << 31 else 0)
    return size


def within_limit(
    files: Files, trainings: list[PackedTraining], limit: int, size: Callable[[Files], int]
) -> tuple[Files, list[LeftOut]]:
    """Return the files that fit, and what was left out; UserError if too much would stay.

    `size`: how large the finished archive of some files is, the forms of venues included.
    """
    left_out = []
    kept = {**files}
    now = size(kept)
    for name, members in _in_order(kept, trainings):
        if now <= limit:
            break
        there = [member for member in members if member in kept]
        taken = LeftOut(name, sum(content_size(kept.pop(member)) for member in there))
        if there:
            left_out.append(taken)
            now = size(kept)
    if now > limit:
        raise UserError(
            f"--limit: without any run the archive still has {now / 1e6:.1f} MB, expected at most "
            f"{limit / 1e6:.1f} MB: code, data and results stay in it, so take a larger limit"
        )
    return kept, left_out


def _in_order(files: Files, trainings: list[PackedTraining]) -> Iterator[tuple[str, list[str]]]:
    """Yield what may be left out, one after the other; of a run its first checkpoint goes first.

    The first trainings are those that `verify` repeats by itself, so they go last.
    """
    places = [training.place for training in reversed(trainings)]
    for place in places:
        top = f"{place}/{layout.CHECKPOINTS}/"
        folders = {
            f"{top}{name[len(top) :].partition('/')[0]}" for name in files if name.startswith(top)
        }
        for folder in sorted(folders):
            yield folder, [name for name in files if name.startswith(f"{folder}/")]
    for place in places:
        traces = [
            n for n in files if n.startswith(f"{place}/") and PurePosixPath(n).name == layout.TRACE
        ]
        for name in traces:
            yield name, [name]
    for place in places:
        yield place, [name for name in files if name.startswith(f"{place}/")]


def packed_trainings(trainings: list[PackedTraining], files: Files) -> list[PackedTraining]:
    """Return the trainings whose runs are among the files."""
    return [training for training in trainings if f"{training.place}/{layout.CONFIG_USED}" in files]
