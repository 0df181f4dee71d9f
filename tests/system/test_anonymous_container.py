"""An anonymous archive, unpacked where there is no author: no home, no git, no network."""

import sys
from pathlib import Path

from anonymity import clone, machine, plant, traces_of, unpack_anonymous
from conftest import VENV, Project, last_line
from engine import BASE, Engine


def test_an_anonymous_archive_gives_identical_in_a_container(
    recorded: Project, engine: Engine, tmp_path: Path
) -> None:
    """The packages are those of the tests' environment, mounted where they lie here."""
    author = clone(recorded, tmp_path / "clone")
    identities = plant(author)
    output = tmp_path / "review.zip"
    command = ("repro", "archive", "--anonymous", f"--output={output}")
    done = author.module(*command, **machine(tmp_path / "author"))
    assert done.returncode == 0, done.stderr
    assert traces_of(identities, output) == []
    unpacked = unpack_anonymous(output, tmp_path / "unpacked").path
    python = (VENV / "bin" / "python").resolve().parents[1]
    mounts = {str(VENV.resolve()): "ro", str(VENV): "ro", str(python): "ro"}
    mounts |= {sys.base_prefix: "ro"}
    volumes = [f"--volume={place}:{place}:{mode}" for place, mode in mounts.items()]
    found = engine.docker(
        *("run", "--rm", "--init", "--network=none", "--tmpfs=/tmp", "--env=HOME=/nowhere"),
        *(*volumes, f"--volume={unpacked}:/review", "--workdir=/review", BASE),
        *("sh", "-c", f"! command -v git && {VENV}/bin/python -m repro verify"),
    )
    assert found.returncode == 0, found.stdout[-2000:] + found.stderr[-2000:]
    assert last_line(found.stdout) == "IDENTICAL"
