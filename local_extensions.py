"""Jinja filters of the template: they check the answers and print them as data.

cookiecutter loads this file through `_extensions` in cookiecutter.json. `checked` runs while the
private variable `__check` is rendered, before any folder is made: a bad answer ends in one line on
standard error and exit code 1. (A hook could not: cookiecutter prints a traceback for it.)

The other filters escape an answer for one kind of file, so that quotes, backslashes, braces, emoji
and `$(...)` come out verbatim and run nothing. `toml`, `yaml` and `docker` go between double quotes
that the template writes; `shell` brings its own. In a Makefile an answer stands in a comment, with
text behind it: a backslash at the end of the line would continue the comment.
"""

from __future__ import annotations

import json
import re
import shlex
import unicodedata
from collections.abc import Mapping

from jinja2 import Environment
from jinja2.ext import Extension

LONGEST = 300
LONGEST_SLUG = 100
REQUIRED = ("project_name", "project_slug", "author_name")
OPTIONAL = ("description", "repository_url")

# What a folder, a Python package and (in lower case) a container image may all be called.
SLUG = re.compile(r"[A-Za-z0-9]+(?:(?:[._]|__|-+)[A-Za-z0-9]+)*")

# Control characters, lone surrogates (no UTF-8 for them), line and paragraph separators.
UNPRINTABLE = {"Cc", "Cs", "Zl", "Zp"}


def checked(answers: Mapping[str, object]) -> str:
    """Return nothing, or end the program with the first fault in one line."""
    for name in REQUIRED + OPTIONAL:
        value = answers[name]
        fault = _fault(name, value if isinstance(value, str) else "")
        if fault:
            shown = ascii(value if len(str(value)) <= 60 else f"{str(value)[:60]}...")
            raise SystemExit(f"cookiecutter: {name} {fault}: {shown}")
    return ""


def _fault(name: str, value: str) -> str | None:
    if name in REQUIRED and not value.strip():
        return "is empty"
    if any(unicodedata.category(c) in UNPRINTABLE or c in "\ufffe\uffff" for c in value):
        return "has a line break or another control character"
    if name == "project_slug":
        if len(value) > LONGEST_SLUG:
            return f"has {len(value)} characters, at most {LONGEST_SLUG} fit a folder name"
        if not SLUG.fullmatch(value):
            return "must be letters and digits, with single . _ or - between them"
    if len(value) > LONGEST:
        return f"has {len(value)} characters, at most {LONGEST} are allowed"
    if name == "repository_url" and re.match("[^/]*//[^/]*@", value):
        return "holds a login, and files show it: write it without the part before the @"
    if name == "repository_url" and value and not re.fullmatch(r"https?://[^\s<>\"\\]+", value):
        return "must be empty or start with https:// and hold no spaces or quotes"
    return None


def slug(name: object) -> str:
    """The suggested folder name: 'My  Study: Part 2' -> 'my-study-part-2'."""
    plain = unicodedata.normalize("NFKD", str(name).casefold()).encode("ascii", "ignore").decode()
    return re.sub("[^a-z0-9]+", "-", plain)[:60].strip("-") or "experiment"


def quoted(text: str) -> str:
    """Inside the double quotes of a TOML or YAML string: as in JSON, but emoji as they are."""
    return json.dumps(text, ensure_ascii=False)[1:-1]


def docker(text: str) -> str:
    """Inside the double quotes of a LABEL in a Dockerfile, where `$NAME` is replaced."""
    return re.sub(r'(["\\$])', r"\\\1", text)


def markdown(text: str) -> str:
    """In a heading, a paragraph or a table cell of a Markdown file."""
    text = re.sub(r"([\\`*_\[\]<>&~|$#]|^[-+=])", r"\\\1", text.strip())
    return re.sub(r"^(\d+)([.)])", r"\1\\\2", text)


class Answers(Extension):
    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        environment.filters.update(
            checked=checked,
            slug=slug,
            toml=quoted,
            yaml=quoted,
            docker=docker,
            markdown=markdown,
            shell=shlex.quote,
        )
