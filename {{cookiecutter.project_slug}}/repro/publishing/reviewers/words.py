"""Write numbers, times and settings for the readers of an archive's papers."""

import json

from repro.core.files import JsonObject
from repro.core.markdown import code


def time_words(seconds: int | None) -> str:
    """Write a time for a reader, exact to the second below an hour."""
    if seconds is None:
        return "not recorded"
    if seconds < 120:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min"


def in_bytes(size: int) -> str:
    """Write a number of bytes for a reader."""
    for unit, name in ((10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if size >= unit:
            return f"{size / unit:.1f} {name}"
    return f"{size} bytes"


def plural(count: int, one: str, several: str = "") -> str:
    """Write a number of things."""
    return f"{count} {one if count == 1 else several or one + 's'}"


def setting_words(config: JsonObject) -> dict[str, str]:
    """Return the settings of a config by their dotted names, each value as JSON."""
    words: dict[str, str] = {}
    for key, value in config.items():
        if isinstance(value, dict):
            inner = setting_words(value)
            words |= {f"{key}.{name}": text for name, text in inner.items()}
        else:
            words[key] = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return words


def short_digest(digest: str) -> str:
    """Return the beginning of a digest as code: a whole one would fill a table's line."""
    return f"{code(digest[:16])}…" if len(digest) > 16 else code(digest)
