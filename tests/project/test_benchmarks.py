"""The benchmarks' own flow, in one short round: no time is asserted."""

import re
from pathlib import Path

import pytest
from conftest import ROOT, VENV, Project, clean_environ, finish, generate

PEERS = ROOT / "benchmarks" / "peers.py"
FRAMEWORKS = ROOT / ".build" / "frameworks"
LOW = "[images]\nours = 0.0\ntraced = 0.0\n[text]\nours = 0.0\n"
IMPOSSIBLE = "[images]\nours = 1000.0\ntraced = 0.0\n"


def command(venv: Path, *words: object) -> list[str]:
    return [str(venv / "bin" / "python"), *map(str, words)]


def page_of(tmp_path: Path) -> Path:
    page = tmp_path / "page.md"
    page.write_text((ROOT / "docs" / "benchmarks.md").read_text())
    return page


def test_bench_peers_trains_in_turn_and_prints_the_table(
    own_project: Project, tmp_path: Path
) -> None:
    """Those that need no framework; a bound that is missed gives exit code 1."""
    (tmp_path / "bounds.toml").write_text(IMPOSSIBLE)
    page = page_of(tmp_path)
    options = ("--rounds", 1, "--starts", 1, "--steps", 2, "--only", "plain,ours,duties", "--write")
    places = ("--bounds", tmp_path / "bounds.toml", "--page", page)
    words = command(VENV, PEERS, *options, *places, f"images={own_project.path}")
    done = finish(words, tmp_path, clean_environ())
    assert done.returncode == 1, done.stdout + done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: images: ours has ")
    rows = re.findall(r"(?m)^\| (plain PyTorch|ours, [a-z ]+) \|", done.stdout)
    assert rows == ["plain PyTorch", "ours, no trace", "ours, equal duties"]
    assert done.stdout.strip() in page.read_text()
    assert not (own_project.path / "runs").exists()


def test_bench_fails_for_a_bound_that_is_missed(own_project: Project, tmp_path: Path) -> None:
    for text, code in ((LOW, 0), (IMPOSSIBLE, 1)):
        (tmp_path / "bounds.toml").write_text(text)
        options = ("--task", "images", "--rounds", 1, "--steps", 1)
        script = ROOT / "benchmarks" / "throughput.py"
        places = ("--bounds", tmp_path / "bounds.toml")
        words = command(VENV, script, own_project.path, *options, *places)
        done = finish(words, tmp_path, clean_environ())
        assert done.returncode == code, done.stdout + done.stderr
        assert "throughput traced/plain " in done.stdout


@pytest.mark.long
@pytest.mark.parametrize("task", ["images", "text"])
def test_all_peers_train_a_round(task: str, tmp_path: Path) -> None:
    project = generate(tmp_path, f"task={task}").path
    options = ("--rounds", 1, "--starts", 1, "--steps", 2, "--bounds", "/dev/null")
    words = command(FRAMEWORKS, PEERS, *options, f"{task}={project}")
    done = finish(words, project, clean_environ())
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("\n| ") == 7
    assert "Ours with equal duties has " in done.stdout
