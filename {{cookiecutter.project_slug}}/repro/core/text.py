"""Words for a person: shortened lists, flat names, plain letters, and texts that can be seen.

A line that names what was found stays a line, however much was found; how much it leaves out is
said.

What an author writes about a work (claims, title, names, what only the author knows) comes out
letter for letter in pages, papers and terminals. A character that nobody sees can make it read as
something else there: a mark that turns the direction, an escape that a terminal obeys. One rule
holds for all these texts where they are read: `refuse_unseen`.
"""

import re
import unicodedata
from collections.abc import Iterator

from repro.core.errors import refuse
from repro.core.files import Json, JsonObject

# Control characters, what overrides or isolates a direction, characters of no width, ends of lines
# that are none in a file. Scripts need others of their kind: joiners (Persian, Indian scripts,
# emoji), marks of a direction (Hebrew, Arabic), soft hyphens, tags (flags of parts of countries).
_UNSEEN = re.compile(
    r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f"
    r"\u200b\u2028-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb]"
)


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


def plain_letters(text: str) -> str:
    """Return a text in small letters, each Latin one as what it was made of: o for ø, ae for æ."""
    signs = unicodedata.normalize("NFKD", text.casefold())
    return "".join(_base(sign) for sign in signs if not unicodedata.combining(sign))


def _base(sign: str) -> str:
    letter = r"LATIN SMALL (?:LETTER|LIGATURE) (?:DOTLESS )?([A-Z]{1,2})(?: WITH .+)?"
    found = re.fullmatch(letter, unicodedata.name(sign, ""))
    return found[1].lower() if found else sign


def unseen(text: str) -> str | None:
    """Return the first character of a text that nobody sees, as U+202E; None without any."""
    found = _UNSEEN.search(text)
    return f"U+{ord(found[0]):04X}" if found else None


def refuse_unseen(value: Json, where: str) -> None:
    """Raise UserError for each text in a value, and each name, that has a character nobody sees."""
    refuse(
        [
            f"{where}: {text[:60]!a} has {found}, which cannot be seen: take it out"
            for text in _texts(value)
            if (found := unseen(text))
        ]
    )


def _texts(value: Json) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for name, item in value.items():
            yield from (*_texts(name), *_texts(item))  # YAML has keys that are no texts: 5, on
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)
