"""Rewrite an author's imports of the kit after its modules have moved: `python -m repro migrate`.

`cruft update` moves the kit, and merges what changed in the author's files; imports that the author
wrote stay behind. Promises that only import statements and the names that they bind are changed,
that the rest of a file keeps its bytes, and that a second call changes nothing. What the kit has no
more is named with its file and line, and left for the author.

`repro/core/moved.py` is the table of what moved where.
"""

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from repro.core.layout import TESTS, USER_CODE
from repro.core.moved import GONE, MODULES, NAMES


class Edit(NamedTuple):
    """Replace the text between two offsets in the bytes of a file."""

    start: int
    end: int
    text: str


@dataclass
class Result:
    """Files that were rewritten, and lines that the author has to look at."""

    changed: list[Path] = field(default_factory=list)
    left: list[str] = field(default_factory=list)


def migrate(root: Path) -> Result:
    """Rewrite the Python files of the author's folders and tests below `root`."""
    result = Result()
    for folder in (*USER_CODE, TESTS):
        for path in sorted((root / folder).rglob("*.py")):
            if not path.is_file():  # a folder, or a link that leads nowhere
                continue
            source = path.read_bytes()
            try:
                rewritten, left = rewrite(source)
            except SyntaxError as error:
                line = error.lineno or 1
                left = [(line, "this file cannot be read as Python, so it was left as it is")]
                rewritten = source
            name = path.relative_to(root).as_posix()
            result.left += [f"{name}:{line}: {reason}" for line, reason in left]
            if rewritten != source:
                path.write_bytes(rewritten)
                result.changed.append(path)
    return result


def rewrite(source: bytes) -> tuple[bytes, list[tuple[int, str]]]:
    """Return a file's bytes with today's imports, and what is gone, by line."""
    rewriter = _Rewriter(source)
    for node in ast.walk(rewriter.tree):
        if isinstance(node, ast.ImportFrom):
            rewriter.import_from(node)
        elif isinstance(node, ast.Import):
            rewriter.import_modules(node)
    rewriter.follow_modules()
    return rewriter.text(), rewriter.left


# Packages of today have names of old modules: `from repro.results import record` is no old import.
_TODAY = {*MODULES.values(), *(place.rpartition(".")[0] for place in NAMES.values())}


def new_place(module: str, name: str) -> tuple[str, str]:
    """Return the module and the name that `name` of the old `module` has today."""
    moved = NAMES.get(f"{module}.{name}")
    if moved is None:
        return MODULES[module], name
    home, _, today = moved.rpartition(".")
    return home, today


class _Rewriter:
    """The edits of one file, collected node by node."""

    def __init__(self, source: bytes) -> None:
        self.source = source
        self.tree = ast.parse(source)
        self.left: list[tuple[int, str]] = []
        self._edits: list[Edit] = []
        self._modules: dict[
            str, str
        ] = {}  # a name in the file -> the old module that it stands for
        self._statements: dict[str, ast.stmt] = {}  # the import that binds this name
        lines = source.splitlines(keepends=True)
        self._starts = [0]
        for line in lines:
            self._starts.append(self._starts[-1] + len(line))

    def text(self) -> bytes:
        """Return the bytes with all edits made, the last one first."""
        result = self.source
        for edit in sorted(self._edits, reverse=True):
            result = result[: edit.start] + edit.text.encode() + result[edit.end :]
        return result

    def import_from(self, node: ast.ImportFrom) -> None:
        """Rewrite `from repro.old import name` and `from repro import old`."""
        if node.level or not node.module:
            return
        if node.module == "repro":
            self._import_from_kit(node)
        elif node.module in MODULES and not self._is_of_today(node):
            self._import_names(node, node.module)

    @staticmethod
    def _is_of_today(node: ast.ImportFrom) -> bool:
        return all(f"{node.module}.{alias.name}" in _TODAY for alias in node.names)

    def _import_names(self, node: ast.ImportFrom, module: str) -> None:
        homes: dict[str, list[str]] = {}
        for alias in node.names:
            old = f"{module}.{alias.name}"
            if old in GONE:
                self.left.append((node.lineno, f"{old} is gone: {GONE[old]}"))
            home, today = new_place(module, alias.name)
            bound = alias.asname or alias.name  # the file goes on calling it so
            shown = today if today == bound else f"{today} as {bound}"
            homes.setdefault(home, []).append(shown)
        self._replace(node, [f"from {home} import {', '.join(n)}" for home, n in homes.items()])

    def _import_from_kit(self, node: ast.ImportFrom) -> None:
        homes: dict[str, list[str]] = {}
        for alias in node.names:
            old = f"repro.{alias.name}"
            bound = alias.asname or alias.name
            if old not in MODULES or old == "repro.environment":  # that one keeps its functions
                homes.setdefault("repro", []).append(ast.unparse(alias))
                continue
            package, _, today = MODULES[old].rpartition(".")
            homes.setdefault(package, []).append(today if today == bound else f"{today} as {bound}")
            self._modules[bound] = old
            self._statements[bound] = node
        if any(home != "repro" for home in homes):
            self._replace(node, [f"from {home} import {', '.join(n)}" for home, n in homes.items()])

    def import_modules(self, node: ast.Import) -> None:
        """Rewrite `import repro.old as name`; without `as`, the dotted uses change as well."""
        renamed = {alias: MODULES[alias.name] for alias in node.names if alias.name in MODULES}
        if not renamed:
            return
        parts = []
        for alias in node.names:
            today = renamed.get(alias, alias.name)
            parts.append(f"{today} as {alias.asname}" if alias.asname else today)
            if alias in renamed:
                bound = alias.asname or alias.name
                self._modules[bound] = alias.name
                self._statements[bound] = node
        self._replace(node, [f"import {', '.join(parts)}"])

    def follow_modules(self) -> None:
        """Rewrite `module.name` where the name or its module is called otherwise now."""
        wanted: dict[ast.stmt, set[str]] = {}
        for node in ast.walk(self.tree):
            if not isinstance(node, ast.Attribute):
                continue
            bound = ast.unparse(node.value)
            old = self._modules.get(bound)
            if old is None:
                continue
            if f"{old}.{node.attr}" in GONE:
                self.left.append((node.lineno, f"{old}.{node.attr} is gone"))
            home, today = new_place(old, node.attr)
            if home != MODULES[old]:
                package, _, short = home.rpartition(".")
                wanted.setdefault(self._statements[bound], set()).add(
                    f"from {package} import {short}"
                )
                self._edits.append(self._edit(node, f"{short}.{today}"))
            elif today != node.attr or bound == old:
                prefix = home if bound == old else bound
                self._edits.append(self._edit(node, f"{prefix}.{today}"))
        self._add_imports(wanted)

    def _add_imports(self, wanted: dict[ast.stmt, set[str]]) -> None:
        """Put further imports below the statements that they follow from."""
        for statement, lines in wanted.items():
            edit = self._edit(statement, "")
            below = "".join(f"\n{self._indent(statement)}{line}" for line in sorted(lines))
            self._edits.append(Edit(edit.end, edit.end, below))

    def _replace(self, node: ast.stmt, lines: list[str]) -> None:
        text = f"\n{self._indent(node)}".join(lines)
        edit = self._edit(node, text)
        if self.source[edit.start : edit.end].decode() != text:
            self._edits.append(edit)

    def _indent(self, node: ast.stmt) -> str:
        return " " * node.col_offset

    def _edit(self, node: ast.stmt | ast.expr, text: str) -> Edit:
        start = self._starts[node.lineno - 1] + node.col_offset
        end_line = (node.end_lineno or node.lineno) - 1
        return Edit(start, self._starts[end_line] + (node.end_col_offset or 0), text)


def lines_of(result: Result, root: Path) -> Iterator[str]:
    """Say in lines what was done."""
    for path in result.changed:
        yield f"{path.relative_to(root).as_posix()}: the imports of the kit are today's"
    yield from result.left
    if not result.changed and not result.left:
        yield "All imports of the kit are today's: nothing was changed."
