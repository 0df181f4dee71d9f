"""Commands in the shells that people have: closed streams, odd locales, variables left behind."""

import json
import os
import subprocess

import pytest
from conftest import Project, clean_environ, faults, last_line

ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
SHORT = ("training.max_steps=1", "evaluation.every=1")


@pytest.fixture(scope="module")
def compared(project: Project) -> str:
    """The words that compare two runs of two seeds: equal bits, so the exit code is 0."""
    for seed in (1, 2):
        done = project.train(f"run_dir=runs/shells/{seed}", f"seed={seed}", *SHORT)
        assert done.returncode == 0, done.stderr
    return "-m repro compare runs/shells"


def shell(
    project: Project, words: str, after: str = "", **variables: str
) -> subprocess.CompletedProcess[bytes]:
    """`python WORDS AFTER` by a shell that tells the exit code of the command in a pipe, too."""
    python = project.venv / "bin" / "python"
    command = f'set -o pipefail; "{python}" {words} {after}'
    environ = clean_environ(**variables)
    return subprocess.run(
        ["bash", "-c", command], cwd=project.path, env=environ, capture_output=True
    )


@pytest.mark.parametrize(
    ("variables", "after", "code"),
    [
        ({"PYTHONIOENCODING": "ascii"}, "", 0),
        ({"PYTHONIOENCODING": "latin-1:strict"}, "", 0),
        (ASCII, "", 0),
        ({"NO_COLOR": "1"}, "", 0),
        ({"FORCE_COLOR": "1", "TTY_COMPATIBLE": "1"}, "", 0),
        ({"TERM": "dumb", "COLUMNS": "1"}, "", 0),
        ({"PYTHONWARNINGS": "error"}, "", 0),
        ({"PYTHONOPTIMIZE": "2"}, "", 0),
        ({}, ">&-", 0),
        ({}, "<&- >&- 2>&-", 0),
        ({}, "2>/dev/full", 0),
        ({}, "| head -1", 141),
        ({}, ">/dev/full", 2),
        ({}, "--json >/dev/full", 2),
        ({}, "--json | true", 141),
        ({}, "| true", 141),
    ],
)
def test_what_compare_prints_to_decides_no_verdict(
    project: Project, compared: str, variables: dict[str, str], after: str, code: int
) -> None:
    done = shell(project, compared, after, **variables)
    # Whoever reads a line alone may have read it before the next one, or not.
    codes = (0, 141) if "head" in after else (code,)
    assert done.returncode in codes, done.stderr
    assert b"Traceback" not in done.stderr
    assert b"\x1b" not in done.stdout
    if code == 0 and not after:
        plain = shell(project, compared).stdout.decode()
        as_ascii = plain.replace("±", "+-").encode()
        assert done.stdout in (plain.encode(), plain.encode("latin-1"), as_ascii)


@pytest.mark.parametrize(
    ("variables", "after"),
    [(ASCII, ""), ({"PYTHONWARNINGS": "error", "PYTHONOPTIMIZE": "2"}, ""), ({}, "<&- >&- 2>&-")],
)
def test_a_training_is_the_same_in_any_shell(
    project: Project, compared: str, variables: dict[str, str], after: str
) -> None:
    name = "-".join([*variables, str(len(after))])
    words = f"-m experiment.train run_dir=runs/shell-{name} seed=1 {' '.join(SHORT)}"
    done = shell(project, words, after, **variables)
    assert done.returncode == 0, done.stderr
    assert done.stderr == b""

    def made(run: str) -> bytes:
        folder = project.path / "runs" / run
        weights = folder / "checkpoints" / "last" / "tensors.safetensors"
        return weights.read_bytes() + (folder / "metrics.jsonl").read_bytes()

    assert made(f"shell-{name}") == made("shells/1")


def test_names_of_files_are_the_same_in_any_locale(own_project: Project) -> None:
    (own_project.path / "experiment" / "näme.txt").write_text("a file of the code")
    words = "-m experiment.train --conditions"
    usual = shell(own_project, words)
    assert "experiment/näme.txt" in json.loads(usual.stdout)["conditions"]["code"]
    for option, variables in (("", ASCII), ("-X utf8=0 ", {**ASCII, "PYTHONUTF8": ""})):
        done = shell(own_project, option + words, **variables)
        assert done.returncode == 0, done.stderr
        assert done.stdout == usual.stdout


@pytest.mark.parametrize(
    ("variables", "named"),
    [
        ({"RANK": "3"}, "RANK=3 is set without WORLD_SIZE"),
        ({"WORLD_SIZE": "2"}, "WORLD_SIZE=2 is set without RANK"),
        ({"RANK": "x"}, "RANK=x is set"),
        ({"RANK": "2", "WORLD_SIZE": "2"}, "RANK=2 is not below WORLD_SIZE=2"),
        ({"RANK": "0", "WORLD_SIZE": "2"}, "without MASTER_ADDR and MASTER_PORT"),
    ],
)
def test_variables_of_a_launcher_left_in_the_shell_are_one_line(
    project: Project, variables: dict[str, str], named: str
) -> None:
    done = project.train("run_dir=runs/never", "training.shards=2", **variables)
    (line,) = faults(done)
    assert named in line
    assert not (project.path / "runs" / "never").exists()


def test_empty_variables_of_a_launcher_are_none(project: Project) -> None:
    empty = dict.fromkeys(("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_PORT"), "")
    done = project.train("run_dir=runs/shell-empty", *SHORT, **empty)
    assert done.returncode == 0, done.stderr
    assert (project.path / "runs" / "shell-empty" / "metrics.jsonl").is_file()


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ("experiment/train.py", "python -m experiment.train"),
        ("experiment/evaluate.py", "python -m experiment.evaluate"),
        ("experiment/prepare.py", "python -m experiment.prepare"),
        ("repro compare runs", "python -m repro"),
        ("repro/__main__.py verify", "python -m repro"),
    ],
)
def test_a_command_that_is_started_as_a_file_names_its_module(
    project: Project, words: str, named: str
) -> None:
    done = project.run("python", *words.split())
    assert faults(done) == [f"error: started as a file: expected {named}"]


def test_make_starts_python_whatever_a_shell_left(own_project: Project) -> None:
    """With some values Python does not start at all, or does not find the project."""
    left = {"PYTHONSAFEPATH": "1", "PYTHONHASHSEED": "none", "PYTHONHOME": "/nowhere"}
    done = own_project.make("train", f"ARGS={' '.join(SHORT)}", **left)
    assert done.returncode == 0, done.stderr
    assert last_line(done.stdout).startswith("run ")
    assert os.path.isdir(own_project.path / "runs" / "latest" / "checkpoints")
