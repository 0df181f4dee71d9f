"""What the pages name is there: tests that hold the claims, commands, files."""

import re
from pathlib import Path

import pytest
from conftest import ROOT, TEMPLATE, Project

OURS = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
THEIRS = [TEMPLATE / "README.md", TEMPLATE / "REPRODUCE.md"]


def named(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("page", [*OURS, *THEIRS], ids=named)
def test_every_test_that_a_page_names_is_there(page: Path) -> None:
    folders = ROOT / "tests", TEMPLATE / "tests"
    files = [path for folder in folders for path in folder.rglob("test_*.py")]
    there = {path.name for path in files}
    for path in files:
        there |= set(re.findall(r"(?m)^(?:async )?def (test_\w+)\(", path.read_text()))
    told = set(
        re.findall(
            r"`(?:tests/(?:unit/|project/|system/)?)?(test_\w+\.py|test_\w+_\w+)`", page.read_text()
        )
    )
    assert told or page.name in ("CHANGELOG.md", "README.md", "REPRODUCE.md")
    assert sorted(told - there) == []


@pytest.mark.parametrize("page", [*OURS, *THEIRS], ids=named)
def test_no_paragraph_names_a_test_twice(page: Path) -> None:
    """Two versions of a paragraph that a merge has put behind each other do."""
    for paragraph in page.read_text().split("\n\n"):
        if not paragraph.lstrip().startswith("|"):
            told = re.findall(r"`(test_\w+_\w+)`", paragraph)
            assert len(told) == len(set(told)), paragraph


def code_in(text: str) -> str:
    """What stands in fences and between backticks, a line each."""
    found = re.findall(r"(?s)^```\w*\n(.*?)^```|`([^`]+)`", text, re.M)
    return "\n".join(fence or span for fence, span in found)


@pytest.mark.parametrize("page", [*OURS, *THEIRS], ids=named)
def test_every_command_that_a_page_names_is_there(project: Project, page: Path) -> None:
    helped = Project(ROOT).run("make").stdout + project.make().stdout
    verbs = set(re.findall(r"(?m)^  make ([a-z-]+) ", helped))
    listed = project.module("repro", "-h").stdout
    commands = set(re.findall(r"(?m)^    ([a-z][a-z-]+) ", listed))
    assert {"demo", "setup"} <= verbs
    assert {"verify", "diff"} <= commands
    code = code_in(page.read_text())
    assert set(re.findall(r"(?m)(?:^|[\s&;])make ([a-z][a-z-]*)", code)) <= verbs
    assert set(re.findall(r"-m repro ([a-z][a-z-]*)", code)) <= commands


@pytest.mark.parametrize("page", [ROOT / "README.md", TEMPLATE / "README.md"], ids=named)
def test_every_package_of_the_kit_is_in_the_tree_that_a_page_draws(page: Path) -> None:
    (tree,) = re.findall(r"(?s)\brepro/ *(?:the kit[^\n]*)?\n(.*?── tasks/)", page.read_text())
    packages = [path.parent.name for path in (TEMPLATE / "repro").glob("*/__init__.py")]
    assert sorted(re.findall(r"── (\w+)/", tree)) == sorted(packages)
