"""`make archive ARGS=--anonymous`, and `--limit`: what reviewers get, and that it verifies."""

import json
import subprocess
import zipfile
from pathlib import Path

import pytest
from anonymity import REMOTE, clone, machine, plant, run_of, traces_of, unpack_anonymous
from conftest import Project, commit, faults, git, last_line


@pytest.fixture(scope="module")
def author(
    recorded: Project, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Project, dict[str, str], dict[str, str]]:
    """A project full of identities that are in no condition; these; the author's machine."""
    folder = tmp_path_factory.mktemp("author")
    project = clone(recorded, folder / "clone")
    return project, plant(project), machine(folder)


@pytest.fixture(scope="module")
def hidden(author: tuple[Project, dict[str, str], dict[str, str]]) -> tuple[Path, str]:
    """The anonymous archive, and what was printed."""
    project, _, variables = author
    done = project.make("--silent", "archive", "ARGS=--anonymous", **variables)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = project.path.glob("*.zip")
    return path, done.stdout


def contents_of(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}


# What is taken out ----------------------------------------------------------------------------


def test_no_identity_is_left_anywhere(
    author: tuple[Project, dict[str, str], dict[str, str]], hidden: tuple[Path, str]
) -> None:
    project, identities, _ = author
    assert len(identities) >= 20
    before = project.path.parent / "named.zip"
    done = project.module("repro", "archive", "--output", str(before))
    assert done.returncode == 0, done.stderr
    in_plain = {what for what, _ in traces_of(identities, before)}
    assert in_plain >= identities.keys()  # the search finds what is there
    path, output = hidden
    assert traces_of(identities, path) == []
    assert path.name == f"{project.path.name}-anonymous.zip"
    assert "left out: .mailmap (a list of people)" in output
    # What was printed for the author is not in it.
    assert not any(
        line.startswith(b"look at:")
        for data in contents_of(path).values()
        for line in data.splitlines()
    )


def test_the_unpacked_folder_gives_identical_without_the_authors_home(
    author: tuple[Project, dict[str, str], dict[str, str]], hidden: tuple[Path, str], tmp_path: Path
) -> None:
    unpacked = unpack_anonymous(hidden[0], tmp_path / "empty")
    nobody = {
        "HOME": str(tmp_path / "nowhere"),
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "USER": "reviewer",
    }
    sums = unpacked.run("sha256sum", "--quiet", "--check", "SHA256SUMS")
    assert sums.returncode == 0, sums.stdout
    for name in ("docs/SUMS", *(str(p) for p in run_of(unpacked).rglob("SHA256SUMS"))):
        place = unpacked.path / name
        done = subprocess.run(
            ["sha256sum", "--check", place.name], cwd=place.parent, capture_output=True
        )
        assert done.returncode == 0, (name, done.stdout)
    done = unpacked.module("repro", "verify", **nobody)
    assert done.returncode == 0, done.stdout + done.stderr
    assert last_line(done.stdout) == "IDENTICAL"
    (context,) = (unpacked.path / "runs" / "verify").glob("*/experiment_context.json")
    git_info = json.loads(context.read_text())["git"]
    assert (git_info["source"], git_info["commit_hash"]) == ("archive", None)
    quick = unpacked.module("repro", "doctor", **nobody)
    told = {line.strip() for line in quick.stdout.splitlines()}
    assert any("an anonymous archive names no commit" in line for line in told), quick.stdout
    assert any("left out of an anonymous archive" in line for line in told), quick.stdout
    done = unpacked.module("repro", "record", **nobody)  # the author's runs are of use
    assert "nothing is left to train" in done.stdout, done.stdout + done.stderr


def test_its_documents_are_of_anonymous_authors(hidden: tuple[Path, str]) -> None:
    files = contents_of(hidden[0])
    assert b"Copyright (c) 2026 Anonymous authors\n" in files["LICENSE"]
    assert b"name: Anonymous authors\n" in files["CITATION.cff"]
    assert b'authors = [{ name = "Anonymous authors" }]' in files["pyproject.toml"]
    assert files[".git_archival.txt"] == b"commit: anonymous\n"
    assert b"Recorded from a commit that this copy does not name.\n" in files["REPRODUCE.md"]
    assert not any(b"swh:1:" in files[name] for name in ("REPRODUCE.md", "ro-crate-metadata.json"))
    assert "tree" not in json.loads(files["results/expected_metrics.json"])
    graph = json.loads(files["ro-crate-metadata.json"])["@graph"]
    people = [entity["name"] for entity in graph if entity["@type"] == "Person"]
    assert people == ["Anonymous authors"]
    assert not any("version" in entity for entity in graph)
    crate = next(entity for entity in graph if entity["@id"] == "./")
    assert crate["datePublished"] == "1970-01-01"  # RO-Crate wants a date
    assert crate["description"].endswith(
        "1970-01-01 stands for a date that an anonymous archive does not tell.)"
    )
    assert "datePublished" not in json.loads(files["croissant.json"])  # Croissant does not
    with zipfile.ZipFile(hidden[0]) as archive:
        entries = archive.infolist()
    assert {entry.date_time for entry in entries} == {(1980, 1, 1, 0, 0, 0)}
    assert {(entry.create_system, entry.extra, entry.comment) for entry in entries} == {
        (3, b"", b"")
    }


def test_another_clone_on_another_machine_gives_the_same_bytes(
    author: tuple[Project, dict[str, str], dict[str, str]], hidden: tuple[Path, str], tmp_path: Path
) -> None:
    project, _, variables = author
    other = clone(project, tmp_path / "elsewhere")
    git(other, "remote", "add", "lab", REMOTE)  # what only git's configuration says is no file's
    elsewhere = {**machine(tmp_path, "someoneelse"), "TZ": "Asia/Tokyo", "LC_ALL": "C"}
    for place, where in ((project, variables), (other, elsewhere)):
        output = tmp_path / "again.zip"
        done = place.module("repro", "archive", "--anonymous", f"--output={output}", **where)
        assert done.returncode == 0, done.stderr
        assert output.read_bytes() == hidden[0].read_bytes()


def test_the_author_is_told_what_cannot_be_known(hidden: tuple[Path, str]) -> None:
    lines = hidden[1].splitlines()
    assert any(line.startswith("searched for ") for line in lines)
    assert any(line.startswith("not searched for: ") for line in lines)
    assert any(line.startswith("look at: ") for line in lines)
    assert any(line.startswith("not known: names in pictures") for line in lines)


# What is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("citation", "place"),
    [
        ("family-names: Transpose\n    given-names: Max", "experiment/model.py: line {line}"),
        ("name: Joan Mpmath", "requirements.lock: line {line}"),
    ],
)
def test_an_identity_in_a_condition_is_refused_by_file_and_line(
    citation: str, place: str, own: Project
) -> None:
    """The code was recorded with the word in it; then somebody of that name became an author."""
    name = place.partition(":")[0]
    word = "transpose" if name.endswith(".py") else "mpmath"
    (own.path / "CITATION.cff").write_text(f"title: T\nauthors:\n  - {citation}\n")
    commit(own)
    text = (own.path / name).read_text().lower().splitlines()
    line = next(number for number, line in enumerate(text, 1) if word in line)
    done = own.module("repro", "archive", "--anonymous")
    lines = faults(done)
    assert any(
        entry.startswith(f"error: {place.format(line=line)} has ")
        and "make record, or --keep" in entry
        for entry in lines
    ), lines
    assert list(own.path.glob("*.zip")) == []


def test_a_word_that_is_nobodys_can_be_kept(own: Project) -> None:
    (own.path / "CITATION.cff").write_text("title: T\nauthors:\n  - name: Transpose\n")
    commit(own)
    done = own.module("repro", "archive", "--anonymous", "--keep", "transpose")
    assert done.returncode == 0, done.stderr
    assert faults(own.module("repro", "archive", "--keep", "x")) == [
        "error: --keep is for --anonymous: expected both"
    ]


def test_authors_who_are_called_as_words_of_the_kit_are_not_refused(own: Project) -> None:
    names = ("Lee Young", "Hugh Grant", "Carl Gauss", "Denis Poisson")
    citation = "".join(f"  - name: {name}\n" for name in names)
    (own.path / "CITATION.cff").write_text(f"title: T\nauthors:\n{citation}")
    readme = own.path / "README.md"
    readme.write_text(readme.read_text() + "\nAsk Gauss or Denis Poisson.\n")
    commit(own)
    git(own, "remote", "add", "lab", "https://gitlab.example.org/lab9q/net9q.git")
    done = own.module("repro", "archive", "--anonymous")
    assert done.returncode == 0, done.stderr
    (path,) = own.path.glob("*.zip")
    assert contents_of(path)["README.md"].endswith(b"\nAsk anonymous or Anonymous authors.\n")


def test_a_recorded_setting_with_an_identity_is_refused(own: Project) -> None:
    """results/ is no condition, but it states those that `verify` compares with."""
    (own.path / "CITATION.cff").write_text("title: T\nauthors:\n  - name: Baseline\n")
    commit(own)
    lines = faults(own.module("repro", "archive", "--anonymous"))
    stated = "an identity is in a condition that this file states"
    assert any(
        line.startswith("error: results/expected_metrics.json: line") and stated in line
        for line in lines
    )


def test_a_machine_called_root_at_localhost_refuses_nothing(own: Project, tmp_path: Path) -> None:
    variables = {"HOME": "/root", "USER": "root", "LOGNAME": "test", "HOSTNAME": "localhost"}
    (own.path / "CITATION.cff").write_text("title: T\nauthors:\n  - name: test\n")
    commit(own)
    done = own.module("repro", "archive", "--anonymous", **variables)
    assert done.returncode == 0, done.stderr
    assert (
        "not searched for: 'root' (the user of this machine) is a name that tells nobody"
        in done.stdout
    )
    uncommitted = own.module("repro", "archive", "--anonymous", "--allow-dirty")
    assert faults(uncommitted)[0].endswith("not of --allow-dirty: git commit")


# How large it is ------------------------------------------------------------------------------


def test_a_limit_leaves_out_checkpoints_then_traces_then_runs(own: Project, tmp_path: Path) -> None:
    whole = tmp_path / "whole.zip"
    assert own.module("repro", "archive", f"--output={whole}").returncode == 0
    size = whole.stat().st_size
    run = run_of(own).relative_to(own.path).as_posix()
    checkpoint = f"{run}/checkpoints/step-000000003"
    small = tmp_path / "small.zip"

    def left_out(limit: int) -> list[str]:
        done = own.module("repro", "archive", f"--output={small}", f"--limit={limit}")
        assert done.returncode == 0, done.stderr
        assert small.stat().st_size <= limit
        lines = done.stdout.splitlines()
        return [line.split()[2] for line in lines if line.startswith("left out: ")]

    assert left_out(size) == []
    assert small.read_bytes() == whole.read_bytes()
    assert left_out(size - 1) == [checkpoint]
    trace = (own.path / run / "trace.jsonl").stat().st_size
    rest = small.stat().st_size
    assert left_out(rest - 1) == [checkpoint, f"{run}/trace.jsonl"]
    assert left_out(rest - trace - 2000) == [checkpoint, f"{run}/trace.jsonl", run]
    unpacked = unpack_anonymous(small, tmp_path / "empty")
    assert not (unpacked.path / "runs").exists()
    assert (unpacked.path / "results" / "expected_metrics.json").is_file()
    done = unpacked.module("repro", "verify")
    assert last_line(done.stdout) == "IDENTICAL", done.stdout + done.stderr
    (line,) = faults(own.module("repro", "archive", "--limit=1kB"))
    assert "--limit: without any run the archive still has" in line
    (line,) = faults(own.module("repro", "archive", "--limit=much"))
    assert "much: expected a size such as 100MB or 64MiB" in line
