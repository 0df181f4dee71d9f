"""Check a safetensors file by its header, before a library opens it.

The format (https://github.com/huggingface/safetensors#format): eight bytes with the length of the
header, the header, which is a JSON object, and the tensors' bytes. Promises that a file without a
fault has each of its tensors inside it, in its own place, with as many bytes as type and shape say.
Takes as long as the header is, whatever the tensors' size.
"""

from math import prod
from pathlib import Path
from typing import Any, NamedTuple

from repro.core.bounded import parse_json
from repro.core.errors import reason_of

_LONGEST_HEADER = 100_000_000  # bytes, as in the library
_METADATA = "__metadata__"
_FIELDS = {"dtype", "shape", "data_offsets"}
# Bytes of a value. Types of less than a byte are left out: torch has none that it could load.
_SIZES = {
    **dict.fromkeys(("BOOL", "I8", "U8", "F8_E4M3", "F8_E5M2", "F8_E8M0"), 1),
    **dict.fromkeys(("F8_E4M3FNUZ", "F8_E5M2FNUZ"), 1),
    **dict.fromkeys(("I16", "U16", "F16", "BF16"), 2),
    **dict.fromkeys(("I32", "U32", "F32"), 4),
    **dict.fromkeys(("I64", "U64", "F64", "C64"), 8),
}


class _Place(NamedTuple):
    """Where a tensor's bytes lie behind the header."""

    start: int
    end: int
    name: str


def fault_of_tensors(path: Path) -> str | None:
    """Say what is wrong with a safetensors file; None if it is whole, OSError without one."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or not 2 <= length <= min(size - 8, _LONGEST_HEADER):
            return f"its header would have {length} bytes, and the file has {size}"
        header = file.read(length)
    try:
        entries = parse_json(header)
    except ValueError as error:
        return f"its header is no JSON: {reason_of(error)}"
    if not isinstance(entries, dict):
        return "its header is no JSON object"
    metadata = entries.pop(_METADATA, {})
    if not isinstance(metadata, dict) or not all(isinstance(x, str) for x in metadata.values()):
        return f"{_METADATA} holds something else than text"
    places = []
    for name, entry in entries.items():
        place = _place_of(name, entry)
        if isinstance(place, str):
            return place
        places.append(place)
    return _fault_of_places(sorted(places), size - 8 - length)


def _place_of(name: str, entry: Any) -> _Place | str:
    """Return where a tensor lies, by its entry in the header; what is wrong, where it is none."""
    if not isinstance(entry, dict) or entry.keys() != _FIELDS:
        return f"tensor {name!a}: expected {', '.join(sorted(_FIELDS))}"
    kind, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(kind, str) or kind not in _SIZES:
        return f"tensor {name!a}: no type of torch's: {str(kind)[:40]!a}"
    if not _are_counts(shape):
        return f"tensor {name!a}: its shape is no list of sizes"
    if not _are_counts(offsets) or len(offsets) != 2:
        return f"tensor {name!a}: data_offsets are not two places"
    wanted = prod(shape) * _SIZES[kind]
    if offsets[1] - offsets[0] != wanted:
        return f"tensor {name!a}: {kind} {shape!s:.60} takes {wanted} bytes, data_offsets differ"
    return _Place(offsets[0], offsets[1], name)


def _are_counts(values: Any) -> bool:
    """Tell whether a value is a list of numbers that can count bytes."""
    return isinstance(values, list) and all(type(x) is int and 0 <= x < 1 << 63 for x in values)


def _fault_of_places(places: list[_Place], size: int) -> str | None:
    """Say where tensors overlap, leave a gap, or do not end where the file does."""
    end = 0
    for place in places:
        if place.start != end:
            return (
                f"tensor {place.name!a} begins at {place.start}, and the one before ends at {end}"
            )
        end = place.end
    return None if end == size else f"its tensors take {end} bytes, and {size} are there"
