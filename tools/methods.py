"""Write the list of methods that the kit calls into docs/adapting.md, from their docstrings.

example:
  .build/venv/bin/python tools/methods.py
"""

import ast
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
KIT = ROOT / "{{cookiecutter.project_slug}}" / "repro"
PAGE = ROOT / "docs" / "adapting.md"
MARKS = "<!-- methods: tools/methods.py writes them -->", "<!-- methods end -->"
# Where each class is, and what an author calls it.
CLASSES = {
    "Task": ("tasks/task.py", "The task"),
    "DataModule": ("data/prepared.py", "The module of data"),
    "WithOwnFiles": ("data/prepared.py", "The module of data, for files that stay where they are"),
    "Samples": ("tasks/samples.py", "A data set"),
}


def section(name: str) -> str:
    """Return the methods and attributes of a class, as a list in Markdown."""
    path, title = CLASSES[name]
    tree = ast.parse((KIT / path).read_text())
    found = next(node for node in tree.body if getattr(node, "name", "") == name)
    assert isinstance(found, ast.ClassDef)
    about = ast.get_docstring(found) or ""
    head = f"### {title}\n\n`repro/{path}`, class `{name}`. {_joined(about)}"
    items = [*_attributes(found), *_methods(found)]
    return "\n\n".join([_wrapped(head), "\n".join(map(_item, items))])


def _methods(found: ast.ClassDef) -> Iterator[str]:
    for node in found.body:
        if isinstance(node, ast.FunctionDef) and not _is_property(node) and node.name != "__init__":
            contract = ast.get_docstring(node) or ""
            must = "**Must be there.** " if "_missing" in ast.unparse(node) else ""
            yield f"`{_signature(node)}`: {must}{_joined(contract)}"


def _attributes(found: ast.ClassDef) -> Iterator[str]:
    """Yield the attributes that have a docstring of their own, with what they are by default."""
    for node, after in zip(found.body, found.body[1:], strict=False):
        match node, after:
            case ast.AnnAssign(), ast.Expr(ast.Constant(str(text))) if node.value:
                told = f"{ast.unparse(node.target)} = {ast.unparse(node.value)}".replace("'", '"')
                yield f"`{told}`: {_joined(text)}"


def _signature(node: ast.FunctionDef) -> str:
    names = [argument.arg for argument in [*node.args.posonlyargs, *node.args.args]]
    result = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    return f"{node.name}({', '.join(name for name in names if name != 'self')}){result}"


def _is_property(node: ast.FunctionDef) -> bool:
    return "property" in map(ast.unparse, node.decorator_list)


def _joined(text: str) -> str:
    return " ".join(text.split())


def _item(text: str) -> str:
    return textwrap.fill(f"- {text}", 116, subsequent_indent="  ", break_on_hyphens=False)


def _wrapped(text: str) -> str:
    parts = text.split("\n\n")
    return "\n\n".join(textwrap.fill(part, 116, break_on_hyphens=False) for part in parts)


def written(page: str) -> str:
    """Return a page with the list between its marks as the docstrings have it now."""
    begin, end = MARKS
    text = "\n\n".join(section(name) for name in CLASSES)
    pattern = f"(?s){re.escape(begin)}.*?{re.escape(end)}"
    return re.sub(pattern, lambda _: f"{begin}\n{text}\n{end}", page)


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text()))
