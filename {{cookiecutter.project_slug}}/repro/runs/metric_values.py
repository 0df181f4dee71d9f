"""Compare metrics of two runs exactly, and show two values so that their difference is seen."""

import json
from collections.abc import Mapping

from repro.core.files import Json


def differing_metrics(a: Mapping[str, Json], b: Mapping[str, Json]) -> list[str]:
    """Return the names that only one has or whose values are not exactly equal, in A's order.

    NaN equals NaN.
    """
    names = [*a, *(name for name in b if name not in a)]
    return [name for name in names if name not in a or name not in b or not _equal(a, b, name)]


def shown_values(a: Json, b: Json) -> tuple[str, str]:
    """Return two values for a person: in 9 digits, and exactly where those are the same."""
    one = _shown(a)
    two = _shown(b)
    if one == two and isinstance(a, float) and isinstance(b, float):
        return f"{one} ({a.hex()})", f"{two} ({b.hex()})"
    return one, two


def _equal(a: Mapping[str, Json], b: Mapping[str, Json], name: str) -> bool:
    # As text: it has all digits of a float, and NaN is equal to itself.
    return json.dumps(a[name], sort_keys=True) == json.dumps(b[name], sort_keys=True)


def _shown(value: Json) -> str:
    if value is None:
        return "not there"
    return f"{value:.9g}" if isinstance(value, float) else json.dumps(value, ensure_ascii=False)
