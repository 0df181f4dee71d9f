"""./verify.sh of an unpacked archive, for a reviewer who has neither make nor git.

The archive is that of a small recorded project, unpacked in a path with a space. Environments are
the tests' own (`--venv`); tests/system/test_verify_script_container.py has one made.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import time
import zipfile
from pathlib import Path

import pytest
from conftest import CHECKS, HANGS, TEMPLATE, VENV, Project, clean_environ, finish, last_line
from repro.core.hashing import sha256_file
from test_other_systems import answers, foreign_words

SOURCE = TEMPLATE / "repro" / "publishing" / "verify.sh"
ENVIRONMENT = ("--venv", str(VENV))
UNKNOWN = ("--claim", "nothing")  # it ends after all that comes before the training
SHELLS = ["dash", "bash --posix", "busybox sh"]


@pytest.fixture(scope="module")
def packed(recorded: Project, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The archive, beside a project that stays as it is."""
    path = tmp_path_factory.mktemp("packed") / "archive.zip"
    done = recorded.module("repro", "archive", "--output", str(path))
    assert done.returncode == 0, done.stdout + done.stderr
    return path


def unpack(packed: Path, folder: Path) -> Path:
    """The unpacked archive, by the tool that most reviewers have."""
    subprocess.run(["unzip", "-q", packed, "-d", folder], check=True)
    (unpacked,) = folder.iterdir()
    return unpacked


@pytest.fixture
def unpacked(packed: Path, tmp_path: Path) -> Path:
    return unpack(packed, tmp_path / "a path")


def verify(
    archive: Path, *words: str, shell: str = "dash", **variables: str
) -> subprocess.CompletedProcess[str]:
    """The answer of verify.sh, started from another folder."""
    command = [*shell.split(), str(archive / "verify.sh"), *words]
    return finish(command, archive.parent.parent, clean_environ(**variables))


def sum_anew(archive: Path) -> None:
    """Let SHA256SUMS be that of changed files: whoever changes both is caught by verify alone."""
    names = [line[66:] for line in (archive / "SHA256SUMS").read_text().splitlines()]
    sums = subprocess.check_output(["sha256sum", *names], cwd=archive, text=True)
    (archive / "SHA256SUMS").write_text(sums)


def line_of(done: subprocess.CompletedProcess[str], code: int = 2) -> str:
    """The only line on standard error of a start that came to nothing."""
    assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
    (line,) = done.stderr.splitlines()
    return line


# The verdict ----------------------------------------------------------------------------------


def test_it_says_what_it_costs_and_gives_identical_twice(unpacked: Path) -> None:
    done = verify(unpacked, *ENVIRONMENT)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    head = lines[0]
    commit = unpacked.name.rpartition("-")[2]
    assert head == f"Reproducible Experiment, commit {commit}"
    count = len((unpacked / "SHA256SUMS").read_text().splitlines())
    assert f"  1. compare {count} files with SHA256SUMS;" in lines
    (cost,) = [line for line in lines if line.startswith("     - short, ")]
    assert re.fullmatch(r"     - short, \d+ seconds on .+: A short training", cost)
    assert lines[-1] == "IDENTICAL"
    # What it wrote there is no damage, and another one may follow: here with a name and a seed.
    chosen = ("--claim", "short", "--seed", "42", "--markdown")
    done = verify(unpacked, *ENVIRONMENT, *chosen, shell="bash --posix")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("**IDENTICAL**: A short training\n")
    assert len(done.stdout.splitlines()) <= 12


def test_quick_compares_the_first_steps_and_claims_no_more(unpacked: Path) -> None:
    done = verify(unpacked, *ENVIRONMENT, "--quick", "--markdown")
    assert done.returncode == 0, done.stderr
    assert last_line(done.stderr) == "PREFIX AGREES (3 of 3 steps; the value was not evaluated)"
    assert "IDENTICAL" not in done.stdout + done.stderr
    head, _, *facts = done.stdout.splitlines()
    assert head == "**PREFIX AGREES (3 of 3 steps; the value was not evaluated)**: A short training"
    (found,) = unpacked.glob("runs/verify/*/verdict.json")
    verdict = json.loads(found.read_text())
    told = dict(fact.removeprefix("- ").split(": ", 1) for fact in facts)
    assert told["hardware class"] == f"{verdict['hardware_class']} (recorded: yes)"
    assert told["commit"] == f"`{verdict['commit']}`"
    assert told["conditions"] == f"`{verdict['conditions_digest']}`"
    assert re.fullmatch(r"\d:\d\d:\d\d", told["time"])


def test_a_step_with_other_bits_is_a_prefix_that_differs(unpacked: Path) -> None:
    traces = [*unpacked.glob("runs/record/*/*/*/trace.jsonl"), *unpacked.glob("results/trace/*")]
    assert len(traces) > 1
    for trace in traces:
        lines = trace.read_text().splitlines(keepends=True)
        changed = re.sub(r'"loss": "?[\w.+-]+"?', '"loss": 0.5', lines[-1])
        assert changed != lines[-1]
        trace.write_text("".join([*lines[:-1], changed]))
    sum_anew(unpacked)
    done = verify(unpacked, *ENVIRONMENT, "--quick")
    assert done.returncode == 1, done.stdout + done.stderr
    assert last_line(done.stdout).startswith("PREFIX DIFFERS: they part at step 3: loss ")
    assert "IDENTICAL" not in done.stdout + done.stderr


def test_changed_code_is_named_and_nothing_is_trained(unpacked: Path) -> None:
    model = unpacked / "experiment" / "model.py"
    model.write_text(model.read_text() + "# changed\n")
    sum_anew(unpacked)
    done = verify(unpacked, *ENVIRONMENT, "--markdown")
    assert done.returncode == 1, done.stderr
    assert done.stdout.startswith("**DIFFERENT**: A short training\n")
    assert "- differs: code: experiment/model.py changed\n" in done.stdout
    assert last_line(done.stderr) == "DIFFERENT"


def test_on_other_hardware_quick_says_what_to_do(unpacked: Path) -> None:
    path = unpacked / "results" / "expected_metrics.json"
    path.write_text(path.read_text().replace('"cpu x86-64-v3 portable"', '"cpu of nobody"'))
    sum_anew(unpacked)
    line = line_of(verify(unpacked, *ENVIRONMENT, "--quick"))
    assert "recorded on cpu of nobody: a part of a training has other bits here" in line
    assert line.endswith("verify the whole, without --quick, --prefix and --segments")


# The files ------------------------------------------------------------------------------------


@pytest.mark.parametrize("shell", SHELLS)
def test_each_damaged_missing_and_extra_file_is_a_line(unpacked: Path, shell: str) -> None:
    (unpacked / "LICENSE").unlink()
    (unpacked / "odd näme (1).txt").write_text("other\n")
    (unpacked / "experiment" / "a b.py").write_text("")
    (run,) = unpacked.glob("runs/record/short/*/seed-42")
    (run / "extra").write_text("")
    for name in ("runs/mine/log", "data/digits/x", "repro/__pycache__/x", ".venv/x", ".git/x"):
        (unpacked / name).parent.mkdir(parents=True, exist_ok=True)
        (unpacked / name).write_text("of the reader's own work")
    done = verify(unpacked, *ENVIRONMENT, shell=shell)
    assert done.returncode == 2
    place = run.relative_to(unpacked)
    assert sorted(done.stderr.splitlines()) == [
        "error: LICENSE is missing: unpack the archive again",
        "error: experiment/a b.py is not of this archive: delete it",
        "error: odd näme (1).txt is damaged: unpack the archive again",
        f"error: {place}/extra is not of this archive: delete it",
    ]
    assert not (unpacked / "runs" / "verify").exists()


def test_damaged_sums_are_a_line_and_many_faults_are_counted(unpacked: Path) -> None:
    sums = unpacked / "SHA256SUMS"
    text = sums.read_text()
    for damage in ("", text.replace(text[:64], "x" * 64, 1), "\0" * 100):
        sums.write_text(damage)
        assert line_of(verify(unpacked)).startswith("error: SHA256SUMS is damaged: unpack ")
    sums.write_text("".join(text.splitlines(keepends=True)[30:]))
    done = verify(unpacked)
    assert done.returncode == 2
    lines = done.stderr.splitlines()
    assert len(lines) == 21
    assert lines[-1] == "error: and 10 more files"
    sums.unlink()
    assert line_of(verify(unpacked)).startswith("error: found no SHA256SUMS beside verify.sh")


@pytest.mark.parametrize(
    "tool", ["unzip -q ARCHIVE", "python -m zipfile -e ARCHIVE .", "bsdtar -xf ARCHIVE"]
)
def test_each_unpacker_leaves_what_can_be_verified(packed: Path, tmp_path: Path, tool: str) -> None:
    """zipfile drops permissions, and so do some programs with windows: `sh verify.sh` does."""
    words = [str(packed) if word == "ARCHIVE" else word for word in tool.split()]
    words[0] = str(VENV / "bin" / "python") if words[0] == "python" else words[0]
    if shutil.which(words[0]) is None:
        pytest.skip(f"there is no {words[0]}")
    subprocess.run(words, cwd=tmp_path, check=True)
    (folder,) = tmp_path.iterdir()
    script = folder / "verify.sh"
    assert os.access(script, os.X_OK) == (tool != "python -m zipfile -e ARCHIVE .")
    start = [str(script)] if os.access(script, os.X_OK) else ["sh", "verify.sh"]
    done = finish([*start, *ENVIRONMENT, *UNKNOWN], folder, clean_environ())
    assert "claim 'nothing' is not recorded" in line_of(done)


def test_sums_are_made_by_what_is_there(unpacked: Path, tmp_path: Path) -> None:
    """macOS has shasum and no sha256sum; busybox has a sha256sum of its own."""
    tools = [
        "sh",
        "dirname",
        "readlink",
        "mkdir",
        "rmdir",
        "ls",
        "id",
        "find",
        "grep",
        "sed",
        "awk",
        "cut",
        "uname",
    ]
    (unpacked / "LICENSE").write_text("x")
    for name, missing in (("shasum", ""), ("", "error: found neither sha256sum nor shasum")):
        folder = tmp_path / f"path-{name}"
        folder.mkdir()
        for tool in [*tools, *filter(None, [name])]:
            (folder / tool).symlink_to(shutil.which(tool) or tool)
        done = verify(unpacked, shell=shutil.which("dash") or "sh", PATH=str(folder))
        assert line_of(done).startswith(missing or "error: LICENSE is damaged")


# Where it works -------------------------------------------------------------------------------


def test_in_a_folder_of_its_own_it_leaves_the_archive_alone(unpacked: Path, tmp_path: Path) -> None:
    before = sorted(unpacked.rglob("*"))
    work = tmp_path / "work folder"
    link = tmp_path / "a link"
    link.symlink_to(unpacked / "verify.sh")
    command = ["dash", str(link), *ENVIRONMENT, "--work", "work folder"]
    done = finish([*command, "--quick"], tmp_path, clean_environ())
    assert done.returncode == 0, done.stderr
    assert f"The work is done in a copy, in {work}, which stays for the next start" in done.stdout
    assert "copying the archive to" in done.stdout
    assert sorted(unpacked.rglob("*")) == before
    assert [path.name for path in work.iterdir()] == ["project"]
    # A second start takes the copy, and one that is damaged is no copy.
    (work / "project" / "LICENSE").write_text("x")
    done = finish([*command, *UNKNOWN], tmp_path, clean_environ())
    assert line_of(done) == "error: LICENSE is damaged: unpack the archive again"
    shutil.copy(unpacked / "LICENSE", work / "project")
    done = finish([*command, *UNKNOWN, "--clean"], tmp_path, clean_environ())
    assert "claim 'nothing' is not recorded" in line_of(done)
    assert "copying" not in done.stdout
    assert not work.exists()


def test_a_folder_that_cannot_be_written_is_copied_to_one_of_the_readers_own(
    unpacked: Path, tmp_path: Path
) -> None:
    """A container with a read-only folder does it truly; here only mkdir says that it is one."""
    refusing = f'case $1 in */.verify-*) exit 1;; *) exec {shutil.which("mkdir")} "$@";; esac'
    path = answers(tmp_path / "bin", mkdir=refusing)
    top = tmp_path / "a tmp"
    top.mkdir()

    def start() -> subprocess.CompletedProcess[str]:
        return verify(unpacked, *ENVIRONMENT, *UNKNOWN, PATH=path, TMPDIR=f"{top}/")

    done = start()
    assert "claim 'nothing' is not recorded" in line_of(done)
    (work,) = top.glob("verify-*")
    digest = sha256_file(unpacked / "SHA256SUMS")[:12]
    assert work.name == f"verify-{os.getuid()}-{digest}"
    assert work.stat().st_mode & 0o777 == 0o700
    assert f"copying the archive to {work}/project" in done.stdout
    done = start()
    assert "claim 'nothing' is not recorded" in line_of(done)
    assert "copying" not in done.stdout
    # Its name can be foretold, so it has to be the reader's alone.
    work.chmod(0o777)
    expected = "cannot be made, or is somebody else's: name another folder by --work DIR"
    assert line_of(start()) == f"error: {work} {expected}"
    work.chmod(0o700)
    work.rename(top / "elsewhere")
    work.symlink_to(top / "elsewhere")
    assert line_of(start()) == f"error: {work} {expected}"
    work.unlink()
    (top / "elsewhere").rename(work)
    if os.getuid() == 0:
        os.chown(work, 12345, 12345)
        assert line_of(start()) == f"error: {work} {expected}"


def test_a_folder_of_others_is_refused(unpacked: Path, tmp_path: Path) -> None:
    work = tmp_path / "thesis"
    work.mkdir()
    (work / "thesis.tex").write_text("")
    line = line_of(verify(unpacked, "--work", str(work)))
    assert "thesis is not empty, and not of verify.sh: name another folder" in line
    shutil.copytree(unpacked, work / "project")
    (work / "project" / "SHA256SUMS").write_text("of another archive")
    line = line_of(verify(unpacked, "--work", str(work)))
    assert "thesis has the copy of another archive: name another folder by --work DIR" in line
    line = line_of(verify(unpacked, "--work", f"{unpacked}/work"))
    assert "lies in the archive's folder: name another one" in line
    line = line_of(verify(unpacked, "--work", str(tmp_path / "none" / "deep")))
    assert "there is no folder above it" in line
    assert sorted(path.name for path in work.iterdir()) == ["project", "thesis.tex"]


def test_a_copy_for_which_the_disk_is_too_small_is_a_line(unpacked: Path, tmp_path: Path) -> None:
    full = "echo \"cp: error writing '$2': No space left on device\" >&2; exit 1"
    path = answers(tmp_path / "bin", cp=full)
    line = line_of(verify(unpacked, "--work", str(tmp_path / "work"), PATH=path))
    work = tmp_path / "work"
    reason = "(No space left on device): name another folder by --work DIR"
    assert line == f"error: copying to {work} failed {reason}"
    assert [*work.iterdir()] == []


@pytest.mark.parametrize("moment", ["copying", "training"])
def test_after_an_interrupt_the_next_start_begins_anew(
    unpacked: Path, tmp_path: Path, moment: str
) -> None:
    work = tmp_path / "work"
    variables = {}
    if moment == "copying":
        real = shutil.which("cp")
        # Without `touch`: where Ctrl-C comes while a command ends by itself, a shell goes on.
        slow = f'case $1 in */experiment/*) : > "{tmp_path}/now"; sleep 1000;; esac; {real} "$@"'
        variables["PATH"] = answers(tmp_path / "bin", cp=slow)
    words = ["dash", unpacked / "verify.sh", *ENVIRONMENT, "--work", work, "--quick"]
    process = subprocess.Popen(
        [*map(str, words)],
        env=clean_environ(**variables),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # A shell that started the tests in the background has Ctrl-C ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    if moment == "copying":
        while not (tmp_path / "now").exists():
            assert process.poll() is None
            time.sleep(0.01)
    else:
        for line in process.stdout or ():
            if line.startswith("conditions"):
                break
    os.killpg(process.pid, signal.SIGINT)
    _, error = process.communicate(timeout=HANGS)
    assert process.returncode == 130
    assert last_line(error) == "interrupted: start it again"
    assert "Traceback" not in error
    done = verify(unpacked, *ENVIRONMENT, "--work", str(work), "--quick")
    assert done.returncode == 0, done.stderr
    assert last_line(done.stdout) == "PREFIX AGREES (3 of 3 steps; the value was not evaluated)"


# Python and its packages ----------------------------------------------------------------------


def test_without_a_python_that_fits_it_is_a_line(unpacked: Path, tmp_path: Path) -> None:
    old = 'case "$*" in *version_info*) exit 1;; *) echo Python 3.5.3;; esac'
    names = ("python3.13", "python3.12", "python3.11")
    path = answers(tmp_path / "old", python3=old, **dict.fromkeys(names, "exit 127"))
    expected = "expected Python 3.11 to 3.13: install one, or PYTHON=PATH"
    assert line_of(verify(unpacked, PATH=path)) == f"error: found Python 3.5.3, {expected}"
    path = answers(tmp_path / "none", **dict.fromkeys([*names, "python3"], "exit 127"))
    assert line_of(verify(unpacked, PATH=path)) == f"error: found no Python, {expected}"
    line = line_of(verify(unpacked, PYTHON="/nowhere/python"))
    assert line == "error: found no Python 3 that starts as PYTHON=/nowhere/python"
    line = line_of(verify(unpacked, "--venv", str(tmp_path)))
    assert "has no bin/python: name an environment" in line


def test_without_a_network_it_is_a_line_and_nothing_is_left(unpacked: Path, tmp_path: Path) -> None:
    before = {path.name for path in unpacked.iterdir()}
    no_index = {"PIP_CONFIG_FILE": os.devnull, "PIP_INDEX_URL": "http://127.0.0.1:9/simple"}
    quick = {"PIP_RETRIES": "1", "PIP_EXTRA_INDEX_URL": "", "PIP_FIND_LINKS": ""}
    line = line_of(verify(unpacked, **no_index, **quick))
    assert line.startswith("setup: no package index was reached: the network is needed once")
    assert line.endswith("nothing is changed")
    assert {path.name for path in unpacked.iterdir()} == before


# How it is started ----------------------------------------------------------------------------


@pytest.mark.parametrize("shell", SHELLS)
def test_wrong_options_show_the_usage(unpacked: Path, shell: str) -> None:
    done = verify(unpacked, "--help", shell=shell)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("usage: ./verify.sh [options]")
    usage = done.stdout
    for words, fault in (
        (["--fast"], "error: found --fast, which is no option: expected those above"),
        (["all"], "error: found all, which is no option: expected those above"),
        (["--work"], "error: --work: expected a value after it"),
        (["--claim", ""], "error: --claim: expected a value after it"),
        (["--claim", "--help"], "error: --claim: expected a value after it"),
    ):
        done = verify(unpacked, *words, shell=shell)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr == f"{usage}{fault}\n"


def test_it_is_written_for_every_sh() -> None:
    command = [CHECKS / "shellcheck", "--shell=sh", SOURCE]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    text = SOURCE.read_text()
    either = ("command -v sha256sum", "sum=sha256sum", "SHA256SUMS", "found neither sha256sum")
    for choice in either:  # the other way is beside it
        text = text.replace(choice, "")
    assert foreign_words(text) == []


def test_the_kit_of_a_project_has_it_as_it_is_here(project: Project) -> None:
    copied = project.path / "repro" / "publishing" / "verify.sh"
    assert copied.read_bytes() == SOURCE.read_bytes()
    assert os.access(copied, os.X_OK)
    done = finish(["dash", str(copied)], project.path, clean_environ())
    assert line_of(done).startswith("error: found no SHA256SUMS beside verify.sh")


def test_the_archive_holds_it_with_its_own_facts(packed: Path) -> None:
    with zipfile.ZipFile(packed) as archive:
        (entry,) = [
            e for e in archive.infolist() if e.filename.count("/") == 1 and "verify" in e.filename
        ]
        lines = archive.read(entry).decode().splitlines()
    assert entry.external_attr >> 16 & 0o777 == 0o755
    filled = dict(line.split("=", 1) for line in lines if re.match("(title|commit|claims)=", line))
    source = SOURCE.read_text().splitlines()
    assert [line for line in lines if line not in source] == [f"{k}={v}" for k, v in filled.items()]
    assert filled["title"] == "'Reproducible Experiment'"
