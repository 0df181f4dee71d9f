"""SWHIDs, DOI and ORCIDs of a recorded project: in REPRODUCE.md, CITATION.cff and the archive.

SWHIDs are compared with those that Software Heritage's own package computes of the files and of the
commit's parts, without git.
"""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from conftest import CHECKS, Project, clean_environ, commit, faults, git
from repro.results.claims import read_recording
from repro.results.document import outdated
from test_archive import contents

DOI = "10.5281/zenodo.1234567"
ORCID = "0000-0002-1825-0097"

# Of a folder as it lies on the disk, and of a commit by what it says.
COMPUTED = """
import json, re, sys
from swh.model.from_disk import Directory
from swh.model.model import Person, Revision, RevisionType, TimestampWithTimezone

text = sys.stdin.buffer.read()
head, _, message = text.partition(b"\\n\\n")
fields = [line.split(b" ", 1) for line in head.split(b"\\n")]
one = dict(fields)

def person(name):
    who, seconds, zone = re.fullmatch(rb"(.*) (\\d+) ([+-]\\d+)", one[name]).groups()
    minutes = (int(zone[1:3]) * 60 + int(zone[3:])) * (-1 if zone[:1] == b"-" else 1)
    date = {"timestamp": int(seconds), "offset": minutes}
    return Person.from_fullname(who), TimestampWithTimezone.from_dict(date)

author, date = person(b"author")
committer, committer_date = person(b"committer")
revision = Revision(
    message=message, author=author, committer=committer, date=date, committer_date=committer_date,
    type=RevisionType.GIT, directory=bytes.fromhex(one[b"tree"].decode()), synthetic=False,
    parents=tuple(bytes.fromhex(value.decode()) for name, value in fields if name == b"parent"),
)
folder = Directory.from_disk(path=sys.argv[1].encode(), max_content_length=None)
print(json.dumps([str(revision.swhid()), str(folder.swhid())]))
"""


def computed(project: Project, revision: str, scratch: Path) -> list[str]:
    """The SWHIDs of a commit and of the project's folder in it, by swh.model."""
    top = project.path.parent.parent
    said = subprocess.check_output(["git", "cat-file", "commit", revision], cwd=top)
    subprocess.run(["git", "clone", "--quiet", "--no-checkout", top, scratch], check=True)
    subprocess.run(["git", "checkout", "--quiet", revision], cwd=scratch, check=True)
    folder = scratch / project.path.relative_to(top)
    done = subprocess.run(
        [CHECKS / "python", "-c", COMPUTED, folder],
        input=said,
        env=clean_environ(),
        capture_output=True,
        check=True,
    )
    found: list[str] = json.loads(done.stdout)
    return found


def recording(project: Project) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(
        (project.path / "results" / "expected_metrics.json").read_text()
    )
    return found


def crate(project: Project, folder: Path, *arguments: str) -> dict[str, dict[str, Any]]:
    """The entities of an archive's crate by their names."""
    path = folder / "archive.zip"
    done = project.module("repro", "archive", "--output", str(path), *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    graph = json.loads(contents(path)["ro-crate-metadata.json"])["@graph"]
    return {entity["@id"]: entity for entity in graph}


def test_the_recorded_commit_has_its_identifiers(recorded: Project, tmp_path: Path) -> None:
    revision = recording(recorded)["commit"]
    of_commit, of_folder = computed(recorded, revision, tmp_path / "then")
    assert of_commit == f"swh:1:rev:{revision}"
    assert of_folder == f"swh:1:dir:{recording(recorded)['tree']}"
    text = (recorded.path / "REPRODUCE.md").read_text()
    assert f"Recorded from commit `{revision}`." in text
    assert f"`{of_commit}`, and that of the project's files in it `{of_folder}`." in text


def test_a_clone_without_history_says_the_same(recorded: Project, tmp_path: Path) -> None:
    top = recorded.path.parent.parent
    subprocess.run(["git", "clone", "--quiet", "--depth=1", f"file://{top}", tmp_path], check=True)
    root = tmp_path / recorded.path.relative_to(top)
    shallow = Project(root)
    assert git(shallow, "rev-list", "--count", "HEAD") == "1"
    assert outdated(root) == []
    assert read_recording(root).software_ids == read_recording(recorded.path).software_ids


def test_the_crate_has_those_of_the_recorded_and_of_the_archived_commit(
    recorded: Project, tmp_path: Path
) -> None:
    entities = crate(recorded, tmp_path)
    head = git(recorded, "rev-parse", "HEAD")
    software = entities[entities["./"]["mainEntity"]["@id"]]
    assert software["version"] == head
    assert software["identifier"] == computed(recorded, head, tmp_path / "now")
    (action,) = [e for e in entities.values() if e["@type"] == "CreateAction"]
    code = entities[action["instrument"]["@id"]]
    then = recording(recorded)["commit"]
    assert code["version"] == then != head
    assert code["identifier"] == computed(recorded, then, tmp_path / "then")


def test_code_that_is_not_committed_has_none(own: Project, tmp_path: Path) -> None:
    own.edit("README.md", "which\nresults", "what\nresults")  # no condition of the training
    done = own.module("repro", "record", "--allow-dirty")
    assert done.returncode == 0, done.stdout + done.stderr
    assert (recording(own)["dirty"], "tree" in recording(own)) == (True, False)
    assert "swh:" not in (own.path / "REPRODUCE.md").read_text()
    assert "swh:" not in json.dumps(crate(own, tmp_path, "--allow-dirty"))


# What the author states ------------------------------------------------------------------------


@pytest.fixture
def stated(own: Project) -> Project:
    """A project whose author has a DOI and an ORCID."""
    line = 'claims = "configs/claims.yaml"'
    own.edit("pyproject.toml", line, f'{line}\ndoi = "{DOI}"\norcid = "{ORCID}"')
    commit(own)
    return own


def test_record_writes_what_is_stated_and_archive_wants_it(stated: Project, tmp_path: Path) -> None:
    (line,) = faults(stated.module("repro", "archive"))
    assert line == "error: CITATION.cff does not say what [tool.repro] states: make record"
    before = (stated.path / "CITATION.cff").read_text()
    trained = recording(stated)["commit"]
    assert trained != git(stated, "rev-parse", "HEAD")
    done = stated.module("repro", "record")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "REPRODUCE.md, CITATION.cff, " in done.stdout
    assert recording(stated)["commit"] == trained  # nothing was trained at today's commit
    after = (stated.path / "CITATION.cff").read_text()
    assert [line for line in after.splitlines() if line not in before.splitlines()] == [
        f'doi: "{DOI}"',
        f'    orcid: "https://orcid.org/{ORCID}"',
    ]
    subprocess.run([CHECKS / "cffconvert", "--validate"], cwd=stated.path, check=True)
    commit(stated)
    entities = crate(stated, tmp_path)
    assert entities["./"]["identifier"] == f"https://doi.org/{DOI}"
    assert entities["./"]["author"] == {"@id": f"https://orcid.org/{ORCID}"}
    done = stated.module("repro", "record")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "CITATION.cff" not in done.stdout
    assert (stated.path / "CITATION.cff").read_text() == after


def test_what_cannot_be_cited_is_refused_before_anything_is_trained(stated: Project) -> None:
    (stated.path / "CITATION.cff").write_text("title: x\nauthors: [{name: A}, {name: B}]\n")
    commit(stated)
    (line,) = faults(stated.module("repro", "record"))
    assert "orcid in [tool.repro] is of one author, and CITATION.cff has 2" in line
    words = stated.module("repro", "doctor").stdout
    assert re.search("fail +documented: .*is of one author", words), words
