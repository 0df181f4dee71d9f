"""`make archive` on a small recorded project: what is in it, its bytes, and what it gives again."""

import json
import re
import stat
import subprocess
import zipfile
from pathlib import Path, PurePosixPath

import pytest
from conftest import CHECKS, ROOT, VENV, Project, clean_environ, commit, faults, git, last_line

CONTEXT = ROOT / "tests" / "data" / "ro-crate-1.1-context.jsonld"  # CC0, of RO-Crate 1.1


@pytest.fixture(scope="module")
def packed(recorded: Project) -> Path:
    """The archive as `make archive` writes it."""
    done = recorded.make("--silent", "archive")
    assert done.returncode == 0, done.stdout + done.stderr
    head = git(recorded, "rev-parse", "HEAD")
    (path,) = recorded.path.glob("*.zip")
    assert path.name == f"{recorded.path.name}-{head[:12]}.zip"
    assert git(recorded, "status", "--porcelain") == ""  # git does not see the archive
    return path


def contents(path: Path) -> dict[str, bytes]:
    """The files of an archive by their names below its folder."""
    with zipfile.ZipFile(path) as archive:
        return {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}


def unpack(path: Path, folder: Path) -> Path:
    subprocess.run([VENV / "bin" / "python", "-m", "zipfile", "-e", path, folder], check=True)
    (unpacked,) = folder.iterdir()
    return unpacked


def run_folder(project: Project) -> Path:
    (found,) = (project.path / "runs" / "record" / "short").glob("*/seed-42")
    return found


# What comes out of it -------------------------------------------------------------------------


def test_the_unpacked_archive_gives_identical(
    recorded: Project, packed: Path, tmp_path: Path
) -> None:
    unpacked = Project(unpack(packed, tmp_path / "empty"))
    done = unpacked.module("repro", "verify")
    assert done.returncode == 0, done.stdout + done.stderr
    assert last_line(done.stdout) == "IDENTICAL"
    (context,) = (unpacked.path / "runs" / "verify").glob("*/experiment_context.json")
    known = json.loads(context.read_text())["git"]
    assert known["source"] == "archive"
    assert known["commit_hash"] == git(recorded, "rev-parse", "HEAD")
    # The author's runs are of use without their links: nothing is trained anew.
    done = unpacked.module("repro", "record")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "nothing is left to train" in done.stdout
    assert "resuming" not in done.stdout


def test_the_metadata_is_a_valid_process_run_crate(packed: Path, tmp_path: Path) -> None:
    """The validator's cache is filled with the one page that it asks the network for."""
    fill = """
import io, sys
import requests, requests_cache
from pathlib import Path
from urllib3 import HTTPResponse

class Page(requests.adapters.HTTPAdapter):
    def send(self, request, **options):
        headers = {"Content-Type": "application/ld+json"}
        body = io.BytesIO(Path(sys.argv[2]).read_bytes())
        raw = HTTPResponse(body, headers, status=200, preload_content=False)
        return self.build_response(request, raw)

session = requests_cache.CachedSession(sys.argv[1], expire_after=-1)
session.mount("https://", Page())
assert session.get("https://w3id.org/ro/crate/1.1/context").ok
"""
    cache, report = tmp_path / "cache", tmp_path / "report.json"
    subprocess.run([CHECKS / "python", "-c", fill, cache, CONTEXT], check=True)
    command = [CHECKS / "rocrate-validator", "--no-interactive", "validate", "--offline"]
    command += ["--cache-path", cache, "--output-format", "json", "--output-file", report]
    command += ["--requirement-severity", "REQUIRED", unpack(packed, tmp_path / "crate")]
    environment = clean_environ(HOME=str(tmp_path))
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    found = json.loads(report.read_text())
    assert found["passed"], [issue["message"] for issue in found["issues"]]
    assert done.returncode == 0, done.stdout + done.stderr
    assert found["validation_settings"]["profile_identifier"] == "process-run-crate-0.5"


def test_the_metadata_tells_what_was_made_of_what(recorded: Project, packed: Path) -> None:
    files = contents(packed)
    graph = json.loads(files["ro-crate-metadata.json"])["@graph"]
    by_id = {entity["@id"]: entity for entity in graph}
    (action,) = [entity for entity in graph if entity["@type"] == "CreateAction"]
    software = by_id[by_id["./"]["mainEntity"]["@id"]]
    assert software["version"] == git(recorded, "rev-parse", "HEAD")
    trained = by_id[action["instrument"]["@id"]]
    assert trained["version"] == git(recorded, "rev-parse", "HEAD^")  # the results came after it
    assert by_id[action["agent"]["@id"]]["name"] == "The Authors"
    assert by_id["./"]["license"] == {"@id": "https://spdx.org/licenses/MIT"}
    place = run_folder(recorded).relative_to(recorded.path)
    inputs = {part["@id"] for part in action["object"]}
    manifest = "data-manifest/digits/manifest.json"
    assert inputs == {f"{place}/config_used.yaml", "requirements.lock", manifest}
    results = {part["@id"] for part in action["result"]}
    checkpoint = f"{place}/checkpoints/step-000000003/tensors.safetensors"
    assert {checkpoint, f"{place}/metrics.json", f"{place}/trace.jsonl"} <= results
    assert {part["@id"] for part in by_id["./"]["hasPart"]} >= inputs | results
    assert "odd%20n%C3%A4me%20%281%29.txt" in by_id


# What is in it --------------------------------------------------------------------------------


def test_another_clone_gives_the_same_bytes(own: Project, packed: Path, tmp_path: Path) -> None:
    output = tmp_path / "other.zip"
    command = f"umask 077; python -m repro archive --output {output}"
    command = command.replace("python", str(own.venv / "bin" / "python"))
    done = own.run("sh", "-c", command, TZ="Asia/Tokyo", LC_ALL="C")
    assert done.returncode == 0, done.stderr
    assert output.read_bytes() == packed.read_bytes()


def test_every_path_stays_inside_and_nothing_is_a_link(packed: Path) -> None:
    with zipfile.ZipFile(packed) as archive:
        entries = archive.infolist()
    names = [entry.filename for entry in entries]
    assert names == sorted(names)
    assert len({name.casefold() for name in names}) == len(names)
    assert len({entry.date_time for entry in entries}) == 1
    for entry in entries:
        path = PurePosixPath(entry.filename)
        assert path.parts[0] == packed.stem
        assert len(path.parts) > 1
        assert not {"..", "."} & {*entry.filename.split("/")}
        assert "\\" not in entry.filename
        executable = path.name in ("run.sh", "verify.sh")
        assert entry.external_attr >> 16 == stat.S_IFREG | (0o755 if executable else 0o644)


def test_it_holds_the_commit_the_runs_and_the_manifest(recorded: Project, packed: Path) -> None:
    files = contents(packed)
    tracked = git(recorded, "ls-files", "-z").strip("\0").split("\0")
    for name in tracked:
        if name != ".git_archival.txt":
            assert files[name] == (recorded.path / name).read_bytes()
    assert files["link.md"] == files["README.md"]
    assert files[".git_archival.txt"].decode() == f"commit: {git(recorded, 'rev-parse', 'HEAD')}\n"
    run = run_folder(recorded)
    place = run.relative_to(recorded.path)
    below = [path for path in run.rglob("*") if path.is_file() and path.name[0] != "."]
    kept = [path for path in below if not {"last", "best"} & {*path.parts}]
    assert {path.name for path in kept} >= {"trace.jsonl", "metrics.json", "tensors.safetensors"}
    expected = {str(place / path.relative_to(run)) for path in kept}
    assert {name for name in files if name.startswith("runs/")} == expected
    forms = {"ro-crate-metadata.json", "croissant.json", "codecheck.yml", "SHA256SUMS", "verify.sh"}
    papers = {"papers/artifact-appendix.md", "papers/checklist.md"}
    manifest = "data-manifest/digits/manifest.json"
    assert set(files) == {*tracked, *expected, *forms, *papers, manifest}


def test_the_sums_are_those_of_all_other_files(packed: Path, tmp_path: Path) -> None:
    folder = unpack(packed, tmp_path / "sums")
    command = ["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    listed = {line[66:] for line in (folder / "SHA256SUMS").read_text().splitlines()}
    assert listed == contents(packed).keys() - {"SHA256SUMS"}


def test_a_file_that_an_archive_writes_itself_is_not_replaced(own: Project) -> None:
    for name in ("SHA256SUMS", "ro-crate-metadata.json"):
        (own.path / name).write_text("mine")
    git(own, "add", "--all")
    git(own, "commit", "-qm", "Files of such names")
    done = own.module("repro", "archive")
    assert done.returncode == 2
    lines = faults(done)
    assert [line.split()[1] for line in lines] == ["SHA256SUMS", "ro-crate-metadata.json"]
    assert all("would be replaced" in line for line in lines)


def test_data_and_changes_go_in_where_that_is_asked(own: Project) -> None:
    (own.path / "data" / ".secret").write_text("x")
    own.edit("README.md", "which\nresults", "what\nresults")
    done = own.module("repro", "archive", "--with-data", "--allow-dirty")
    assert done.returncode == 0, done.stderr
    (path,) = own.path.glob("*-dirty.zip")
    files = contents(path)
    data = {name: text for name, text in files.items() if name.startswith("data")}
    expected = [path for path in (own.path / "data").rglob("[!.]*") if path.is_file()]
    assert data == {str(p.relative_to(own.path)): p.read_bytes() for p in expected}
    assert "data/digits/prepared/data.safetensors" in data
    assert b"which\nresults" in files["README.md"]
    assert b"what" in files["uncommitted_changes.diff"]


COUNTED = """
import sys
from collections import Counter
from pathlib import Path

import experiment.data
from repro.publishing import archive as module

calls = Counter()

def counted(owner, name):
    function = getattr(owner, name)
    def call(*arguments):
        calls[name] += 1
        return function(*arguments)
    setattr(owner, name, call)

counted(experiment.data, "datasets")
counted(module, "describe")
path = Path(sys.argv[1])
module.archive(Path.cwd(), path, limit=10**9)
print("made:", *calls.values())
module.archive(Path.cwd(), path, limit=path.stat().st_size - 1)
print("made:", *calls.values())
"""


def test_forms_and_the_parts_of_the_data_are_made_once(own: Project, tmp_path: Path) -> None:
    """The author's code is asked once; forms are made anew only where something is left out."""
    done = own.run("python", "-c", COUNTED, str(tmp_path / "x.zip"))
    made = [line for line in done.stdout.splitlines() if line.startswith("made:")]
    assert made == ["made: 1 1", "made: 2 3"], done.stdout + done.stderr


# What is refused ------------------------------------------------------------------------------


def refused(project: Project) -> str:
    done = project.module("repro", "archive")
    (line,) = faults(done)
    assert list(project.path.glob("*.zip")) == []
    return line


def test_without_results_commit_or_cleanness_it_is_refused(own: Project) -> None:
    results = own.path / "results" / "expected_metrics.json"
    text = results.read_text()
    results.write_text(text.replace("A short", "a short"))
    assert "not committed: results/expected_metrics.json; git commit, or --allow-dirty" in refused(
        own
    )
    results.unlink()
    assert "nothing is recorded yet: make record" in refused(own)
    results.write_text(text)
    (own.path / "new.txt").write_text("")
    assert "not committed: new.txt; git commit, or --allow-dirty" in refused(own)
    (own.path / "new.txt").unlink()
    (own.path.parent.parent / ".git").rename(own.path.parent.parent / "gone")
    assert "is made of a commit" in refused(own)


def test_what_was_recorded_otherwise_is_refused(own: Project) -> None:
    own.edit("experiment/model.py", "nn.ReLU()", "nn.GELU()")
    commit(own)
    assert refused(own).endswith("code: experiment/model.py changed: make record")


def test_what_the_commit_lacks_is_refused(own: Project) -> None:
    with (own.path / ".gitignore").open("a") as file:
        file.write("/configs/optimizer/sgd.yaml\n")
    git(own, "rm", "--quiet", "--cached", "configs/optimizer/sgd.yaml")
    commit(own)
    line = "configs/optimizer/sgd.yaml was recorded and git ignores it: git add --force"
    assert line in refused(own)
    (own.path / "out.txt").symlink_to("/etc/hostname")
    commit(own)
    assert "out.txt is a link to no file of the commit" in refused(own)


CHANGED = """
import sys
from pathlib import Path

from repro.core.errors import UserError
from repro.publishing import archive as module

find = module.find_runs

def find_and_change(root, *rest):
    (root / "README.md").write_text("of somebody who edits meanwhile")
    return find(root, *rest)

module.find_runs = find_and_change
try:
    module.archive(Path.cwd(), Path(sys.argv[1]))
except UserError as error:
    print("refused:", *error.lines)
"""


def test_a_change_while_it_is_made_is_refused(own: Project, tmp_path: Path) -> None:
    done = own.run("python", "-c", CHANGED, str(tmp_path / "x.zip"))
    line = "refused: a file was changed while the archive was made: let all else end first"
    assert line in done.stdout.splitlines(), done.stdout + done.stderr
    assert not (tmp_path / "x.zip").exists()


def test_names_that_other_systems_cannot_have_are_each_named(own: Project) -> None:
    folder = own.path / "notes"
    for name in ("aux.py", "x:y.txt", "A.txt", "a.txt", "Dir/one", "dir/two", "e\u0301", "\u00e9"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    (folder / "x\udcff.txt").write_text("no UTF-8 in its name")
    commit(own)
    done = own.module("repro", "archive")
    assert faults(done) == [
        *(
            f"error: 'notes/{name}' is no name for every system ({why}): rename it"
            for name, why in [
                ("aux.py", "aux is a device of Windows"),
                ("x:y.txt", "no name on Windows has :"),
                ("x\\xff.txt", "it is not UTF-8"),
            ]
        ),
        *(
            f"error: {pair} are one name on Windows or macOS: rename one"
            for pair in [
                "'notes/A.txt' and 'notes/a.txt'",
                "'notes/Dir' and 'notes/dir'",
                r"'notes/e\u0301' and 'notes/\xe9'",
            ]
        ),
    ]
    assert list(own.path.glob("*.zip")) == []
    words = next(
        line for line in own.module("repro", "doctor").stdout.splitlines() if "aux.py" in line
    )
    assert words.split()[:2] == ["fail", "committed:"]
    assert words.endswith("rename it and 5 more")


def test_a_missing_changed_or_damaged_run_is_refused(own: Project) -> None:
    run = run_folder(own)
    run.rename(run.with_name("elsewhere"))
    missing = "short: the recorded run of seed 42 is not in runs/record: make record"
    assert missing in refused(own)
    run.with_name("elsewhere").rename(run)
    text = (run / "metrics.json").read_text()
    (run / "metrics.json").write_text(re.sub(r'"bits": "\w+"', '"bits": "0"', text))
    assert missing in refused(own)
    (run / "metrics.json").write_text(text)
    tensors = run / "checkpoints" / "last" / "tensors.safetensors"
    data = bytearray(tensors.read_bytes())
    data[-1] ^= 1
    tensors.write_bytes(data)
    assert re.search("step-000000003 is damaged .*: delete .*, then make record", refused(own))
