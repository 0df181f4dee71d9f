"""Write Markdown: tables, code, and texts of others, which come out as they were written.

A text of an author may hold anything: bars, backticks, angle brackets, line breaks. Promises that
`escaped` and `code` show it letter for letter in a paragraph and in a cell of a table, without a
link, an image, a formula, HTML or a heading that the author did not write as such.
"""

import re
from collections.abc import Iterable

# What Markdown, GitHub's tables and formulas, and links that need no brackets begin with.
_SPECIAL = re.compile(r"([\\`*_\[\]<>&~|$#@]|:(?=//)|(?<=www)\.)")


def one_line(text: str) -> str:
    """Return a text without line breaks and double spaces."""
    return " ".join(text.split())


def escaped(text: str) -> str:
    """Return a text for a cell or within a line, in one line, that is shown as it was written."""
    return _SPECIAL.sub(r"\\\1", one_line(text))


def cell(text: str) -> str:
    """Return Markdown for a cell of a table: one line, its bars kept."""
    return one_line(text).replace("\\", "\\\\").replace("|", "\\|")


def code(text: str, in_cell: bool = True) -> str:
    """Return a text as code, for a cell or for a paragraph; its fence is longer than those in it.

    In a cell a bar needs a backslash even in code; in a paragraph that would be shown.
    """
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    inside = one_line(text)
    if in_cell:
        inside = inside.replace("|", "\\|")
    return f"{fence}{inside}{fence}" if len(fence) == 1 else f"{fence} {inside} {fence}"


def table(head: str, rows: Iterable[str]) -> str:
    """Return a table; `head` names its columns, with bars between them."""
    line = "|" + "---|" * (head.count("|") + 1)
    return "\n".join([f"| {head} |", line, *rows])


def row(*cells: str) -> str:
    """Return a row of a table; the cells are Markdown already."""
    return f"| {' | '.join(cells)} |"


def block(lines: Iterable[str]) -> str:
    """Return commands as a block of code for a shell; its fence is longer than those in it."""
    text = "\n".join(lines)
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence}bash\n{text}\n{fence}"


def as_sentence(text: str) -> str:
    """Return a text as `escaped` does to begin a paragraph, with a full stop unless it has one."""
    words = re.sub(r"^([-+=])", r"\\\1", escaped(text))
    words = re.sub(r"^(\d+)([.)])", r"\1\\\2", words)
    return words if words.endswith((".", "!", "?")) else f"{words}."
