"""Words for a person: shortened lists, and nested values as flat names.

A line that names what was found stays a line, however much was found; how much it leaves out is
said.
"""

from repro.core.files import Json, JsonObject


def listed(names: list[str], shown: int = 3) -> str:
    """Join the first `shown` names, and say how many more there are: "a, b, c and 4 more"."""
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more


def flatten(value: Json) -> JsonObject:
    """Return nested objects as one object, with keys like "config: training.epochs"."""
    if not isinstance(value, dict):
        return {"": value}
    flat: JsonObject = {}
    for group, item in value.items():
        for name, leaf in dotted(item):
            flat[f"{group}: {name}" if name else group] = leaf
    return flat


def dotted(value: Json) -> list[tuple[str, Json]]:
    """Return the values below `value` with their dotted names; its own name is empty."""
    if not isinstance(value, dict):
        return [("", value)]
    leaves = []
    for key, item in value.items():
        for name, leaf in dotted(item):
            leaves.append((f"{key}.{name}" if name else key, leaf))
    return leaves
