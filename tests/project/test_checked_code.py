"""What runs is what the files say: compiled files are known by the hash of their source."""

import os
from pathlib import Path

import pytest
from conftest import Project, faults

CACHED = {"PYTHONDONTWRITEBYTECODE": ""}  # as a user has it
EARLY = ["experiment/__init__.py", "experiment/train.py", "repro/__init__.py"]


def edit_within_the_second(path: Path) -> None:
    """Put a print into the docstring's place: the same size, and the same time."""
    before = path.stat()
    text = path.read_text()
    end = text.index('"""', 3)
    code = "print('edited')"
    path.write_text(f'"""{"x" * (end - 4 - len(code))}"""\n{code}{text[end + 3 :]}')
    assert path.stat().st_size == before.st_size
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize("name", [*EARLY, "repro/core/checked_code.py", "experiment/model.py"])
def test_an_old_compiled_file_is_never_run(own_project: Project, name: str) -> None:
    """Also one of the files that are imported before anything can look after them."""
    done = own_project.run("python", "-m", "compileall", "-q", "experiment", "repro", **CACHED)
    assert done.returncode == 0, done.stderr
    edit_within_the_second(own_project.path / name)
    train = ("python", "-m", "experiment.train", "training.max_steps=1")
    done = own_project.run(*train, **CACHED)
    assert done.returncode == 0, done.stderr
    assert "edited" in done.stdout.splitlines()


def test_compiled_files_of_a_project_have_the_hash_of_their_source(own_project: Project) -> None:
    for _ in range(2):
        done = own_project.run("python", "-m", "experiment.train", "--conditions", **CACHED)
        assert done.returncode == 0, done.stderr
        compiled = [*own_project.path.rglob("*.pyc")]
        assert len(compiled) > 20
        assert {path.read_bytes()[4] for path in compiled} == {3}


def test_a_file_that_is_edited_while_a_command_starts_is_named(own_project: Project) -> None:
    """What was imported is not what the conditions would name."""
    with (own_project.path / "experiment/config.py").open("a") as file:
        file.write("open(__file__, 'a').write('#')\n")
    (line,) = faults(own_project.train("training.max_steps=1"))
    assert "experiment/config.py was edited while this command started: start it again" in line
    assert not (own_project.path / "runs").exists()
