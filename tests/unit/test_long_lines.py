"""What reads the texts of a project takes time in proportion to their length.

A file of one long line, as programs write it, must not stop `make archive ARGS=--anonymous`. Each
text is read at a tenth of its length first: where the time grew with the square of the length, the
whole text took a hundred times as long, and not ten times.
"""

import json
import time
from collections.abc import Callable

import pytest
from repro.core import layout, redaction
from repro.publishing.anonymity.candidates import candidates
from repro.publishing.anonymity.documents import without_names
from repro.publishing.anonymity.people_lists import people_in
from repro.publishing.anonymity.spellings import Spellings

CONTEXT = f"{layout.RUNS}/a/{layout.CONTEXT}"
LICENCE = "copyright 2020 "
LIST = "[project]\nname = 'a'\n[tool.x]\nl = [\n{}]\n"


def assert_in_proportion(read: Callable[[str], object], unit: str, length: int) -> None:
    """Read `length` characters made of `unit`, and a tenth of them."""
    took = []
    for size in (length // 10, length):
        text = unit * (size // len(unit))
        start = time.process_time()
        read(text)
        took.append(time.process_time() - start)
    assert took[1] < 40 * max(took[0], 0.005)


@pytest.mark.parametrize(
    ("unit", "length"),
    [
        ("-", 40_000),
        ("//", 40_000),
        ('fill="#3fa2b1" ', 300_000),
        ("ab/3kd//Zk+9", 300_000),
        ("a-", 40_000),
        ("Ab-", 40_000),
        ("a@b.co\n", 400_000),
    ],
)
def test_what_an_author_should_look_at_is_looked_for_in_long_lines(unit: str, length: int) -> None:
    assert_in_proportion(lambda text: candidates({"notes.md": text.encode()}), unit, length)


@pytest.mark.parametrize("word", ["jane doe", "/home/jane"])
def test_words_are_replaced_before_a_long_row_of_backslashes(word: str) -> None:
    words = Spellings({word: "someone"})
    assert_in_proportion(lambda row: words.replace(f"{word} {row}".encode()), "\\", 20_000)


@pytest.mark.parametrize(
    ("name", "unit", "length"),
    [("AUTHORS", "\n", 20_000), ("AUTHORS", " ", 20_000), ("job.sh", "\n", 80_000)],
)
def test_a_list_of_people_may_have_many_blanks(name: str, unit: str, length: int) -> None:
    assert_in_proportion(lambda text: people_in(name, text), unit, length)


@pytest.mark.parametrize(
    ("unit", "before", "after"), [(" ", "x", "{"), (" ", "x", "y"), ("1", "", "{"), (" ", "", "<")]
)
def test_a_licence_may_have_long_lines(unit: str, before: str, after: str) -> None:
    def read(text: str) -> None:
        without_names("LICENSE", f"{LICENCE}{before}{text}{after}".encode())

    assert_in_proportion(read, unit, 20_000)


def test_a_list_in_pyproject_toml_is_parsed_once() -> None:
    def read(lines: str) -> None:
        without_names("pyproject.toml", LIST.format(lines).encode())

    assert_in_proportion(read, '  "abcdefghijklmnopqrstuvwxyz",\n', 50_000)


def test_a_platform_may_be_long() -> None:
    def read(platform: str) -> None:
        context = {"software": {"platform": platform}}
        without_names(CONTEXT, json.dumps(context).encode())

    assert_in_proportion(read, "1-a", 40_000)


@pytest.mark.parametrize(
    ("read", "unit", "length"),
    [
        (redaction.redact_url, ":", 100_000),
        (lambda text: redaction.redact_command([text]), "a", 20_000),
        (lambda text: redaction.redact_text(f"key:{text}!"), " ", 40_000),
    ],
)
def test_addresses_commands_and_settings_may_be_long(
    read: Callable[[str], object], unit: str, length: int
) -> None:
    assert_in_proportion(read, unit, length)


@pytest.mark.parametrize("unit", ["key=", "author=", "password=", "--token="])
@pytest.mark.parametrize("tail", ["{", "("])
def test_assignments_that_end_in_a_bracket_are_looked_at_once(unit: str, tail: str) -> None:
    assert_in_proportion(lambda text: redaction.redact_text(text + tail), unit, 100_000)


# ---------------------------------------------------------------- what is still told apart

STATEMENTS = '''[project] # a [b]
name = "a"
authors = [
  { name = "Jane", email = "a@b.c" }, # ]
]
[tool.x]
s = """
[project]
authors = [ \\"""
"""
t = \'\'\'it''s ]
\'\'\'
u = [[1], ["]", '['], """""\n""""" ]
[ tool . repro ]
doi = "10.1/x"
keep = { a = [
  1 ] }'''


def test_statements_of_several_lines_end_outside_of_brackets_and_texts() -> None:
    left = without_names("pyproject.toml", STATEMENTS.encode()).decode()
    start, _, rest = STATEMENTS.partition("authors")
    end = rest.partition("]\n[tool.x]")[2].replace('doi = "10.1/x"\n', "")
    assert left == f'{start}authors = [{{ name = "Anonymous authors" }}]\n[tool.x]{end}'


def test_a_second_kernel_is_taken_out_and_another_system_stays() -> None:
    def shown(platform: str) -> str:
        context = {"software": {"platform": platform}}
        new = json.loads(without_names(CONTEXT, json.dumps(context).encode()))
        return str(new["software"]["platform"])

    assert shown("Linux-5.4.0-lab-x86_64-with-glibc2.31") == "Linux-5.4.0-x86_64-with-glibc2.31"
    assert shown("macOS-14.1-arm64-arm-64bit") == "macOS-14.1-arm64-arm-64bit"
    assert shown("Linux-5-a") == "Linux-5-a"
