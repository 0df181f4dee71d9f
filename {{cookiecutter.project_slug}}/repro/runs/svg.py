"""Write elements of SVG, and texts that fit into a width.

Texts may hold any characters: they are escaped, and what XML forbids is replaced. No font is
measured, so the width of a text is an estimate, rather too wide than too narrow.
"""

import html
import re
import textwrap
import unicodedata
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate

FONT = 14  # pixels, the size of all texts
_LETTER = 0.58  # of the font's size: the width of a letter
_WIDE_LETTER = 1.1  # the same in Chinese, Japanese and Korean
_FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # in XML 1.0


def tag(name: str, content: str | Sequence[str] = "", **attributes: str) -> str:
    """Return an element: `content` is a clean text, or the elements in it.

    `class_` stands for class, `stroke_width` for stroke-width. Attributes are written as they are.
    """
    written = "".join(f' {_attribute(key)}="{value}"' for key, value in attributes.items())
    if not isinstance(content, str):
        return "\n".join([f"<{name}{written}>", *content, f"</{name}>"])
    return f"<{name}{written}>{content}</{name}>" if content else f"<{name}{written}/>"


def _attribute(key: str) -> str:
    return key.rstrip("_").replace("_", "-")


def clean(text: str) -> str:
    """Return a text for an element, in one line: escaped, without what XML forbids."""
    return html.escape(_FORBIDDEN.sub("\ufffd", " ".join(text.split())))


def text_width(text: str) -> float:
    """Return about how many pixels a text takes."""
    return sum(map(_letter_width, text))


def fitted(text: str, width: int) -> str:
    """Return as much of a text as fits into a width in pixels, clean."""
    ends = list(accumulate(map(_letter_width, text)))  # where each letter ends
    fitting = bisect_right(ends, width)
    return clean(text if fitting == len(text) else f"{text[: fitting - 1]}…")


def wrapped(text: str, width: int) -> list[str]:
    """Return a text as lines that fit into a width in pixels, three at most; not clean yet."""
    mean = text_width(text) / len(text) if text else FONT
    return textwrap.wrap(text, int(width / mean), max_lines=3, placeholder=" …") or [""]


def _letter_width(letter: str) -> float:
    is_wide = unicodedata.east_asian_width(letter) in "WF"
    return FONT * (_WIDE_LETTER if is_wide else _LETTER)
