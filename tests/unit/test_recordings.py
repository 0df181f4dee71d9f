"""The pictures of the README: what they show, and how tools/recordings.py makes them."""

import re
import sys
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
from conftest import ROOT

sys.path.insert(0, str(ROOT / "tools"))

import recordings

NAMESPACE = "http://www.w3.org/2000/svg"


def text_of(svg: str) -> str:
    """The words of a picture, with ordinary spaces."""
    return "\n".join(ElementTree.fromstring(svg).itertext()).replace("\u00a0", " ")


@pytest.mark.parametrize("recording", [recordings.REPRODUCE, recordings.DIFF], ids=lambda r: r.name)
def test_a_picture_shows_its_command_and_asks_for_nothing(
    recording: recordings.Recording,
) -> None:
    svg = (ROOT / "docs" / f"{recording.name}.svg").read_text()
    shown = text_of(svg)
    for words in (recording.command, *recording.shows):
        assert words in shown
    assert set(re.findall(r"\w+://[^\s\"'<)]+", svg)) == {NAMESPACE}
    assert set(re.findall(r"url\(([^)])", svg)) == {"#"}  # places in the picture itself
    assert "@import" not in svg
    assert len(svg) < 60_000
    readme = (ROOT / "README.md").read_text()
    assert f"](docs/{recording.name}.svg)" in readme


def project_of(folder: Path, program: str) -> Path:
    """A folder with a command `say` among those of its environment."""
    commands = folder / ".venv" / "bin"
    commands.mkdir(parents=True)
    script = commands / "say"
    script.write_text(f"#!/bin/sh\n{program}\n")
    script.chmod(0o755)
    return folder


def test_a_picture_has_what_stands_on_the_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = r"""
test -t 1 && printf '\033[1ma terminal\033[0m\n'
printf ' 1/2\r\033[2K 2/2\n<&>\n'
printf 'epoch 2\nepoch 3\n\nthe end\n'
"""
    project = project_of(tmp_path / "project", program)
    monkeypatch.setattr(recordings, "DOCS", tmp_path)
    recording = recordings.Recording("said", "say it", 0, ("2/2",), left_out="^epoch")
    monkeypatch.setattr(recordings, "ROOT", tmp_path)
    with pytest.raises(SystemExit, match="expected exit code 1"):
        recordings.record(replace(recording, exit_code=1), project)
    with pytest.raises(SystemExit, match="expected '3/3'"):
        recordings.record(replace(recording, shows=("3/3",)), project)
    recordings.record(recording, project)
    shown = text_of((tmp_path / "said.svg").read_text()).splitlines()
    assert "say it" in "".join(shown)
    assert {"a terminal", " 2/2", "<&>", "the end"} <= set(shown)
    assert " 1/2" not in shown
    assert shown.count("...") == 1
    assert not any("epoch" in line for line in shown)
    recordings.record(replace(recording, left_out=recordings.DIFF.left_out), project)
    assert "..." not in text_of((tmp_path / "said.svg").read_text())


def test_a_folder_of_this_machine_is_in_no_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recordings, "DOCS", tmp_path)
    recording = recordings.Recording("said", "say", 0, ())
    with pytest.raises(SystemExit, match="of this machine"):
        recordings.record(recording, project_of(tmp_path / "project", "pwd"))
    assert not (tmp_path / "said.svg").exists()
