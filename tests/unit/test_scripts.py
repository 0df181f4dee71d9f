"""verify.sh as an archive gets it: filled with texts that may be anything."""

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import TEMPLATE
from recorded_claims import recorded_claim
from repro.core.errors import UserError
from repro.publishing.contents import Contents
from repro.publishing.scripts import scripts
from repro.results.about import read_about
from repro.results.recording import Cost, RecordedClaim, Recording

SOURCE = "repro/publishing/verify.sh"
HERE = "cpu x86-64-v3 portable"
NASTY = "It's $(touch no) `no` \\ \"x\" é\ncommit=''\n'; exit 7; '"
SHOWN = "It's $(touch no) `no` \\ \"x\" é commit='' '; exit 7; '"
MACHINE = "AMD \x1b[31mEPYC"  # no text of the author's: whatever the system says


def claim(text: str, seconds: int | None) -> RecordedClaim:
    cost = None if seconds is None else Cost(MACHINE, seconds, 900)
    return recorded_claim(text=text, bits={HERE: {"1": "0" * 64}}, steps=400, cost=cost)


@pytest.fixture
def contents() -> Contents:
    claims = {"a": claim(NASTY, 119), "b": claim("B", 5400), "c": claim("C", 36_000)}
    return Contents(
        root=Path("/nowhere"),
        files={SOURCE: TEMPLATE / SOURCE},
        about=replace(read_about({"pyproject.toml": b'[project]\nname = "name"\n'}), title=NASTY),
        recording=Recording({**claims, "d": claim("D", None)}),
        trainings=[],
        commit="1e2aadbd05adbf913ff4bd6ec998ff68d41a59c3",
        moment=0,
    )


def told(contents: Contents, folder: Path) -> list[str]:
    """The lines that the script has of the archive, as sh reads them."""
    text = scripts(contents)["verify.sh"].decode()
    head = text.partition("usage() {")[0]
    show = 'printf "%s\\n" "$title" "$commit" "$claims"'
    return subprocess.check_output(["dash", "-c", head + show], cwd=folder, text=True).splitlines()


def test_sh_reads_what_the_author_wrote_and_executes_nothing_of_it(
    contents: Contents, tmp_path: Path
) -> None:
    assert told(contents, tmp_path) == [
        SHOWN,
        "commit 1e2aadbd05ad",
        f"     - a, 119 seconds on AMD [31mEPYC: {SHOWN}",
        "     - b, 90 minutes on AMD [31mEPYC: B",
        "     - c, 10.0 hours on AMD [31mEPYC: C",
        "     - d, time not recorded: D",
    ]
    assert [*tmp_path.iterdir()] == []
    assert scripts(contents) == scripts(contents)


def test_an_archive_that_tells_no_commit_is_anonymous(contents: Contents, tmp_path: Path) -> None:
    assert told(replace(contents, commit=None), tmp_path)[1] == "anonymous"
    files = {**contents.files, "uncommitted_changes.diff": b""}
    changed = replace(contents, files=files)
    assert (
        told(changed, tmp_path)[1]
        == "commit 1e2aadbd05ad with the changes in uncommitted_changes.diff"
    )


def test_a_script_that_is_gone_or_was_edited_is_a_line(contents: Contents) -> None:
    with pytest.raises(UserError, match=r"repro/publishing/verify.sh is not committed: restore it"):
        scripts(replace(contents, files={}))
    with pytest.raises(UserError, match=r"verify.sh has no line title='': restore it"):
        scripts(replace(contents, files={SOURCE: b"#!/bin/sh\n"}))
