"""Words for a person: shortened lists, and nested values as flat names."""

from typing import Any


def listed(names: list[str], shown: int = 3) -> str:
    """The first of some names, and how many more there are."""
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more


def flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    """Nested dicts as one dict, keys like "config: training.epochs"."""
    if not isinstance(value, dict):
        return {prefix: value}
    flat = {}
    for key, item in value.items():
        name = key if not prefix else f"{prefix}.{key}" if ": " in prefix else f"{prefix}: {key}"
        flat.update(flatten(item, name))
    return flat
