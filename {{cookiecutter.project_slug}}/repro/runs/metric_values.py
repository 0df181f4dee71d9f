"""Compare metrics of two runs exactly, and show two values so that their difference is seen."""

import json
from collections.abc import Mapping

from repro.core.files import Json, JsonObject
from repro.core.text import dotted

_PLACE = ("step", "split", "steps")  # no metrics: where a line belongs, and where training ends
_DEEPEST = 100  # groups or lists in each other: what reads and prints them calls itself for each


def metrics_of(values: JsonObject) -> JsonObject:
    """Return the metrics of a line or a file, those in groups with dotted names.

    ValueError if they are nested deeper than a person would write.
    """
    if _is_too_deep(values):
        raise ValueError(f"found values nested deeper than {_DEEPEST} levels, expected metrics")
    return {name: value for name, value in dotted(values) if name not in _PLACE}


def differing_metrics(a: Mapping[str, Json], b: Mapping[str, Json]) -> list[str]:
    """Return the names that only one has or whose values are not exactly equal, in A's order.

    NaN equals NaN; the whole number 1 and the float 1.0 differ.
    """
    names = [*a, *(name for name in b if name not in a)]
    return [name for name in names if name not in a or name not in b or not _equal(a, b, name)]


def shown_values(a: Json, b: Json) -> tuple[str, str]:
    """Return two values for a person: in 9 digits, and where those are the same in full.

    Two floats then have their exact form beside the digits; 1 and 1.0 are told apart by the point.
    """
    one = _shown(a)
    two = _shown(b)
    if one != two or (a is None and b is None):
        return one, two
    if isinstance(a, float) and isinstance(b, float):
        return f"{one} ({a.hex()})", f"{two} ({b.hex()})"
    return json.dumps(a), json.dumps(b)


def _is_too_deep(value: Json) -> bool:
    level = [value]
    for _ in range(_DEEPEST):
        inside: list[Json] = []
        for item in level:
            if isinstance(item, dict):
                inside += item.values()
            elif isinstance(item, list):
                inside += item
        level = inside
    return bool(level)


def _equal(a: Mapping[str, Json], b: Mapping[str, Json], name: str) -> bool:
    # As text: it has all digits of a float, and NaN is equal to itself.
    return json.dumps(a[name], sort_keys=True) == json.dumps(b[name], sort_keys=True)


def _shown(value: Json) -> str:
    if value is None:
        return "not there"
    return f"{value:.9g}" if isinstance(value, float) else json.dumps(value, ensure_ascii=False)
