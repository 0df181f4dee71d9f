"""Jinja filters of the template: they check the answers and print them as data.

cookiecutter loads this file through `_extensions` in cookiecutter.json. `checked` runs while the
private variable `__check` is rendered, before any folder is made: a bad answer ends in one line on
standard error and exit code 1, while a hook that fails ends in cookiecutter's traceback. Of a
replay only the files are rendered; the first of all is the folder's name, and `_finalize` checks
there.

`only` and `task_file` put a task's own files into a project: they lie in templates/tasks/ as they
stand there, and are inserted as text. A Jinja include would render what looks like Jinja in Python.

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
from pathlib import Path

from cookiecutter import __version__
from jinja2 import Environment, pass_context
from jinja2.ext import Extension
from jinja2.runtime import Context

OLDEST = (2, 2)  # of cookiecutter: earlier ones find no included file
TASKS = Path(__file__).parent / "templates" / "tasks"
LONGEST = 300
LONGEST_SLUG = 80
REQUIRED = ("project_name", "project_slug", "author_name")
OPTIONAL = ("description", "repository_url")
CHOSEN = ("license", "task", "scale", "tracker", "base_image")

# What a folder, a Python package and (in lower case) a container image may all be called.
SLUG = re.compile(r"[A-Za-z0-9]+(?:(?:[._]|__|-+)[A-Za-z0-9]+)*")

# Names that Docker, conda and Windows keep for themselves; Windows also with an extension.
TAKEN = re.compile(r"(?i)scratch|base|[0-9a-f]{64}|(con|prn|aux|nul|(com|lpt)[0-9])(\..*)?")

# What nobody sees: control characters, marks of formats and directions, lone surrogates (no UTF-8
# for them), line and paragraph separators. The project refuses them, too (repro/core/text.py).
UNSEEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}
JOINERS = "\u200c\u200d"  # of letters in Persian and Indian scripts, and of emoji


def checked(answers: Mapping[str, object]) -> str:
    """Return nothing, or end the program with the first fault in one line."""
    if tuple(map(int, __version__.split(".")[:2])) < OLDEST:
        raise SystemExit(
            f"cookiecutter: {__version__} is too old: pip install 'cookiecutter>=2.2.3'"
        )
    for name in REQUIRED + OPTIONAL:
        value = answers.get(name)
        fault = _fault(name, value) if isinstance(value, str) else "is no text: put it in quotes"
        if fault:
            text = re.sub("//.*@", "//***@", str(value))
            shown = ascii(text if len(text) <= 60 else f"{text[:60]}...")
            raise SystemExit(f"cookiecutter: {name} {fault}: {shown}")
    return ""


def _fault(name: str, value: str) -> str | None:
    """Say what is wrong with an answer; None if nothing is."""
    # Something to be seen: letters, numbers, punctuation or symbols.
    if name in REQUIRED and not any(unicodedata.category(c)[0] in "LNPS" for c in value):
        return "is empty"
    shown = [c for c in value if c not in JOINERS]
    if any(unicodedata.category(c) in UNSEEN or c in "\ufffe\uffff" for c in shown):
        return "has a line break or another character that cannot be seen"
    if name == "project_slug":
        if len(value) > LONGEST_SLUG:
            return f"has {len(value)} characters, at most {LONGEST_SLUG} fit a folder name"
        if not SLUG.fullmatch(value):
            return "must be letters and digits, with single . _ or - between them"
        if TAKEN.fullmatch(value):
            return "is a name that Docker, conda or Windows keeps for itself"
    if len(value) > LONGEST:
        return f"has {len(value)} characters, at most {LONGEST} are allowed"
    if name == "repository_url" and re.match("[^/]*/{2,}[^/?#]*@", value):
        return "holds a login, and files show it: write it without the part before the @"
    if name == "repository_url" and not re.fullmatch(r"(https?://[^\s/][^\s<>\"\\]*)?", value):
        return "must be empty or start with https:// and hold no spaces or quotes"
    return None


def _replayed(answers: Mapping[str, object]) -> None:
    """Check what a replay may have kept: answers that are no choice any more, older versions."""
    checked(answers)
    template = json.loads(Path(__file__).with_name("cookiecutter.json").read_text("utf-8"))
    for name in CHOSEN:
        if answers.get(name) not in template[name]:
            known = ", ".join(template[name])
            raise SystemExit(f"cookiecutter: {name} is {answers.get(name)!a}: expected {known}")
    if answers.get("_stack") != template["_stack"]:
        raise SystemExit(
            "cookiecutter: the replay has other versions than this template: answer the prompts "
            "again, or give answers in a --config-file"
        )


def slug(name: object) -> str:
    """Suggest a folder name: 'My  Study: Part 2' -> 'my-study-part-2', 'Søren' -> 'soren'."""
    plain = "".join(map(_base, unicodedata.normalize("NFKD", str(name).casefold())))
    return re.sub("[^a-z0-9]+", "-", plain)[:60].strip("-") or "experiment"


def _base(sign: str) -> str:
    """Return the letters that a Latin letter was made of: o of ø, ae of æ; "" of an accent."""
    if unicodedata.combining(sign):
        return ""
    letter = r"LATIN SMALL (?:LETTER|LIGATURE) (?:DOTLESS )?([A-Z]{1,2})(?: WITH .+)?"
    found = re.fullmatch(letter, unicodedata.name(sign, ""))
    return found[1].lower() if found else sign


def quoted(text: str) -> str:
    """Escape for the double quotes of a TOML or YAML string: as in JSON, but emoji stay."""
    return json.dumps(text, ensure_ascii=False)[1:-1]


def docker(text: str) -> str:
    """Escape for the double quotes of a LABEL in a Dockerfile, where `$NAME` is replaced."""
    return re.sub(r'(["\\$])', r"\\\1", text)


def markdown(text: str) -> str:
    """Escape for a heading, a paragraph or a table cell of Markdown; an address is no link."""
    special = r"([\\`*_\[\]<>&~|$#]|^[-+=]|:(?=//)|(?<=www)\.)"
    text = re.sub(special, r"\\\1", text.strip())
    return re.sub(r"^(\d+)([.)])", r"\1\\\2", text)


@pass_context
def only(context: Context, name: str, *choices: str) -> str:
    """Return a file's name if one of the choices was made, else "": then it is left out."""
    answers = context["cookiecutter"]
    made = {answers["task"], answers["scale"], answers["tracker"]}
    return name if made & {*choices} else ""


@pass_context
def task_file(context: Context, name: str) -> str:
    """Return a file of the chosen task, to the letter but for its last line break."""
    folder: Path = TASKS / context["cookiecutter"]["task"]
    return (folder / name).read_text(encoding="utf-8").removesuffix("\n")


class Answers(Extension):
    """Give the template what is above, and check the answers of a replay."""

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        environment.finalize = self._finalize
        self._is_checked = False
        environment.filters.update(
            checked=checked,
            slug=slug,
            toml=quoted,
            yaml=quoted,
            docker=docker,
            markdown=markdown,
            shell=shlex.quote,
        )
        environment.globals.update(only=only, task_file=task_file)

    @pass_context
    def _finalize(self, context: Context, value: object) -> object:
        """Check once, at the first expression after cookiecutter set `_output_dir` to write."""
        answers = context.get("cookiecutter", {})
        if not self._is_checked and "_output_dir" in answers:
            _replayed(answers)
            self._is_checked = True
        return value
