"""Find the columns of a table that is text, and what kind of values each has.

Promises a kind that fits every value of its column, and nothing for a text that other programs
would not read as the same table: without names above the columns, with a name twice, with rows of
other lengths.
"""

import csv
import re
from pathlib import Path

_KINDS = {  # of Croissant, from the narrowest on
    "sc:Integer": re.compile(r"[+-]?[0-9]{1,18}"),
    "sc:Float": re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?"),
}
_TEXT = "sc:Text"


def read_columns(path: Path) -> dict[str, str] | None:
    """Return the kind of each column of a file of comma- or tab-separated values, by its name."""
    delimiter = "\t" if path.suffix == ".tsv" else ","
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.reader(file, delimiter=delimiter, strict=True)
            names = next(rows, [])
            possible = [[*_KINDS] for _ in names]
            for row in rows:
                if len(row) != len(names):
                    return None
                for cell, kinds in zip(row, possible, strict=True):
                    if cell:
                        kinds[:] = [kind for kind in kinds if _KINDS[kind].fullmatch(cell)]
    except (UnicodeDecodeError, csv.Error):
        return None
    if not names or not all(names) or len({*names}) < len(names):
        return None
    return {name: [*kinds, _TEXT][0] for name, kinds in zip(names, possible, strict=True)}
