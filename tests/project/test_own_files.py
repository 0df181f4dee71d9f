"""A claim on an author's own files: what REPRODUCE.md says of them, and where an archive has them.

The author names their folder by a variable; a reviewer of the archive knows nothing of it.
"""

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from conftest import CLAIMS, VENV, Project, clean_environ, commit, faults, finish, generate, git
from PIL import Image
from test_archive import unpack

SETTINGS = "dataset=image_folder, dataset.size=8, dataset.shift=0, dataset.flip=false, training"
OPTIONS = ["", "--anonymous"]
PLACE = "data/own_files/image_dir"


def images(folder: Path) -> Path:
    random = np.random.default_rng(1)
    for number in range(40):
        path = folder / ("cat", "dog")[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (8, 8, 3), np.uint8)).save(path)
    return folder


@pytest.fixture(scope="module")
def author(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project that recorded a claim on images and packed it; then they went to `away`."""
    project = generate(tmp_path_factory.mktemp("author"))
    claims = project.path / "configs" / "claims.yaml"
    claims.write_text(CLAIMS.replace("[training", f"[{SETTINGS}"))
    git(project, "init", "--quiet")
    commit(project)
    folder = images(project.path.parent / "images")
    done = project.module("repro", "record", IMAGE_DIR=str(folder))
    assert done.returncode == 0, done.stdout + done.stderr
    commit(project)
    for option in OPTIONS:
        output = f"--output={project.path.parent / 'packed'}{option}.zip"
        command = ("repro", "archive", "--with-data", output, *[option][: len(option)])
        done = project.module(*command, IMAGE_DIR=str(folder))
        assert done.returncode == 0, done.stdout + done.stderr
    folder.rename(folder.with_name("away"))
    return project


def by_script(unpacked: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = ["sh", str(unpacked / "verify.sh"), "--venv", str(VENV), *options]
    return finish(command, unpacked, clean_environ())


def verify(project: Project, *options: str) -> subprocess.CompletedProcess[str]:
    """By processes: forks of the tests' server do not hear what another command has said."""
    command = [VENV / "bin" / "python", "-m", "repro", "verify", *options]
    return finish([str(word) for word in command], project.path, clean_environ())


@pytest.mark.parametrize("option", OPTIONS)
def test_an_archive_finds_the_authors_own_files_that_it_has(
    author: Project, tmp_path: Path, option: str
) -> None:
    """A reviewer knows neither the setting nor its variable; the digests count all the same."""
    unpacked = unpack(author.path.parent / f"packed{option}.zip", tmp_path / "packed")
    assert len([*(unpacked / PLACE).glob("*/*.png")]) == 40
    done = by_script(unpacked, "--quick")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "PREFIX AGREES" in done.stdout
    reviewer = Project(unpacked)
    done = reviewer.module("experiment.prepare", "dataset=image_folder", "dataset.size=8")
    assert f"40 samples of image_folder in {unpacked / PLACE}" in done.stdout, done.stderr
    (unpacked / PLACE / "cat" / "0.png").write_bytes(b"other")
    (line,) = faults(verify(reviewer))  # and no second line, of the command that said it
    assert f"{PLACE}/cat/0.png: changed, says" in line


def test_the_commands_of_reproduce_md_run_where_it_says_that_the_files_go(
    author: Project, tmp_path: Path
) -> None:
    clone = author.copy(tmp_path / "clone")
    text = (clone.path / "REPRODUCE.md").read_text()
    assert f"in `{PLACE}/`, where each command finds them" in text
    assert "or name their folder by `export IMAGE_DIR=FOLDER`" in text
    assert "The code in `experiment/` checks the raw data" not in text
    (line,) = faults(verify(clone, "--prefix", "2"))
    assert "image_dir" in line
    place = clone.path / PLACE
    place.parent.mkdir(parents=True)
    place.symlink_to(author.path.parent / "away")
    done = verify(clone, "--prefix", "2")
    assert done.returncode == 0, done.stdout + done.stderr


def test_files_that_went_elsewhere_are_missed_only_where_they_are_packed(
    author: Project, tmp_path: Path
) -> None:
    """Before, the archive of a manifest alone ended in a traceback."""
    away = str(author.path.parent / "away")
    output = f"--output={tmp_path / 'x.zip'}"
    done = author.module("repro", "archive", output, IMAGE_DIR=away)
    assert done.returncode == 0, done.stdout + done.stderr
    (line,) = faults(author.module("repro", "archive", "--with-data", output, IMAGE_DIR=away))
    assert line.endswith(f"put them back, or into {PLACE}/, or leave the option out")


def test_a_path_of_a_command_that_is_not_here_is_said_to_be_replaced(
    author: Project, tmp_path: Path
) -> None:
    clone = author.copy(tmp_path / "clone")
    shutil.copytree(author.path.parent / "away", clone.path / PLACE)
    settings = ("dataset=image_folder", "dataset.size=8", "training.max_steps=1")
    done = clone.train(*settings, "image_dir=no where")
    said = f"image_dir=no where is not here: {PLACE} is taken, as an archive has it"
    assert said in done.stdout.splitlines(), done.stderr
    done = clone.train(*settings, f"image_dir={author.path.parent / 'away'}")
    assert done.returncode == 0, done.stderr
    assert "is not here" not in done.stdout
    recorded = json.loads((clone.path / "results" / "expected_metrics.json").read_text())
    assert recorded["claims"]["short"]["dataset"]["own_files"] == "image_dir"
