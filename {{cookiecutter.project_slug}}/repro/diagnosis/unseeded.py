"""Randomness that the kit does not seed, found in the author's source without running it.

Promises to find what `RULES` names where the file's own text shows it: names are followed through
imports and one assignment. Does not see into libraries, nor what comes out of a function, an
attribute or another file, nor a seed passed on by a parameter. Draws inside functions are no fault:
training seeds the global generators for every step and sample. `# repro: ignore[rule] reason`
behind a place silences a rule there.
"""

import ast
import io
import tokenize
import warnings
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from repro.core.errors import UserError
from repro.diagnosis.source_search import Search

RULES = {  # and their remedies
    "import-time-draw": "draw inside a function: at import nothing is seeded yet",
    "unseeded-generator": "seed it from the config: derive_seed(seed, 'purpose', ...)",
    "time-as-seed": "take the seed from the config: this is another number in every process",
    "set-order": "iterate over sorted(...): a set has no order of its own",
    "listing-order": "put sorted(...) around it: the order is the file system's",
    "default-dtype": "leave it to the config and the kit: it switches the whole process",
    "environment-read": "make it a setting of the config: no record of a run shows it",
    "ignore-comment": "write # repro: ignore[rule] and the reason why it does no harm",
    "syntax": "mend it: nothing in this file was checked",
}


@dataclass(frozen=True, order=True)
class Finding:
    """A place in the source: its path relative to the root, and its text in `found`."""

    path: str
    line: int
    rule: str
    found: str
    remedy: str


class _IgnoreComment(NamedTuple):
    """A comment that silences rules on its line."""

    line: int
    text: str
    rules: set[str]
    reason: str


def find_unseeded(root: Path, folders: Sequence[str]) -> list[Finding]:
    """Find what breaks a rule in the Python files below `folders` of `root`, sorted.

    Raises UserError for a folder that is not there: it would look like one without a fault.
    """
    findings = []
    for folder in folders:
        if not (root / folder).is_dir():
            raise UserError(f"{root / folder}: no such folder, so nothing was checked")
        for path in sorted((root / folder).rglob("*.py")):
            name = path.relative_to(root)
            if path.is_file() and not any(part.startswith(".") for part in name.parts):
                findings += _check(name.as_posix(), path.read_bytes())
    return sorted(findings)


def _check(path: str, source: bytes) -> list[Finding]:
    """Find what breaks a rule in one file."""
    try:
        with warnings.catch_warnings(action="ignore"):  # the parser's own, of "\d"
            search = Search(ast.parse(source))
    except SyntaxError as error:
        return [Finding(path, error.lineno or 1, "syntax", error.msg, RULES["syntax"])]
    except (ValueError, MemoryError, RecursionError) as error:  # null bytes; too deep
        return [Finding(path, 1, "syntax", str(error) or "nested too deep", RULES["syntax"])]
    places: set[tuple[int, str, str]] = set()
    silenced: dict[int, set[str]] = defaultdict(set)
    for comment in _ignore_comments(source):
        silenced[comment.line] |= comment.rules
        if not (comment.reason and comment.rules and comment.rules <= RULES.keys()):
            places.add((comment.line, "ignore-comment", comment.text))
    for rule, node in search.found:
        lines = range(node.lineno, (node.end_lineno or node.lineno) + 1)
        if not any(rule in silenced[line] for line in lines):
            places.add((node.lineno, rule, ast.unparse(node)))
    return [Finding(path, line, rule, text, RULES[rule]) for line, rule, text in sorted(places)]


def _ignore_comments(source: bytes) -> Iterator[_IgnoreComment]:
    """Yield the comments that silence rules."""
    for token in tokenize.tokenize(io.BytesIO(source).readline):
        _, mark, rest = token.string.partition("# repro: ignore")
        if token.type == tokenize.COMMENT and mark:
            names, _, reason = rest.removeprefix("[").partition("]")
            rules = set(names.replace(",", " ").split())
            yield _IgnoreComment(token.start[0], mark + rest, rules, reason.strip())
