"""`python -m repro report --verdicts`: what others found stays with the results, as reported."""

import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

from conftest import Project, commit, faults, git

PAGE = "results/report.html"
NOT_CHECKED = "Reported, not checked:"


def verdict_of_another(project: Project, folder: Path, *part: str) -> Path:
    """The file that a reviewer sends who has verified a clone."""
    top = project.path.parent.parent
    clone = Project(folder / "reviewer" / project.path.relative_to(top))
    git(project, "clone", "--quiet", str(top), str(folder / "reviewer"))
    for name in ("runs", "data"):
        shutil.copytree(project.path / name, clone.path / name, symlinks=True)
    done = clone.module("repro", "verify", *part)
    assert done.returncode == 0, done.stdout + done.stderr
    (found,) = clone.path.glob("runs/verify/*/verdict.json")
    return found


def state(project: Project) -> dict[str, bytes]:
    """What `report` must not change when it refuses."""
    return {
        str(path): path.read_bytes()
        for path in project.path.rglob("*")
        if path.is_file() and "runs" not in path.parts and "data" not in path.parts
    }


def test_a_reviewers_verdict_stays_with_the_results(own: Project, tmp_path: Path) -> None:
    """Through `report`, `verify`, `record` and `archive`; it is no condition and no code."""
    sent = verdict_of_another(own, tmp_path)
    told: dict[str, Any] = json.loads(sent.read_text())
    assert told["seconds"] > 0
    done = own.module("repro", "report", "--verdicts", str(sent))
    assert done.returncode == 0, done.stderr
    (kept,) = (own.path / "results/verdicts").iterdir()
    content = kept.read_bytes()
    assert f"kept: results/verdicts/{kept.name}\n" in done.stdout
    for secret in (str(tmp_path), told["commit"], told["why"]):
        assert secret.encode() not in content
    page = (own.path / PAGE).read_text()
    assert NOT_CHECKED in page
    assert "<td>recorded; reported, not checked</td>" in page  # the bits
    assert "Verified here:" not in page
    again = own.module("repro", "report", "--verdicts", str(sent), str(sent))
    assert f"known already: results/verdicts/{kept.name}\n" in again.stdout
    assert (own.path / PAGE).read_text() == page

    for words in (("verify", "--prefix", "2"), ("record",), ("report",)):
        done = own.module("repro", *words)
        assert done.returncode == 0, done.stdout + done.stderr
        assert NOT_CHECKED in (own.path / PAGE).read_text()
        assert kept.read_bytes() == content
    assert "conditions code, config, data" in own.module("repro", "verify", "--prefix", "2").stdout
    assert "Verified here:" in (own.path / PAGE).read_text()
    assert json.loads((own.path / "results/expected_metrics.json").read_text())["dirty"] is False
    assert "not committed: " in faults(own.module("repro", "archive"))[0]
    (own.path / PAGE).unlink()
    commit(own)
    done = own.module("repro", "archive", "--output", str(tmp_path / "a.zip"))
    assert done.returncode == 0, done.stderr
    with zipfile.ZipFile(tmp_path / "a.zip") as packed:
        (name,) = (name for name in packed.namelist() if "/results/verdicts/" in name)
        assert packed.read(name) == content


def test_after_another_recording_it_is_of_other_code(own: Project, tmp_path: Path) -> None:
    sent = verdict_of_another(own, tmp_path, "--prefix", "2")
    assert own.module("repro", "report", "--verdicts", str(sent)).returncode == 0
    path = own.path / "experiment" / "model.py"
    path.write_text(path.read_text() + "\n# Of another version.\n")
    done = own.module("repro", "record", "--allow-dirty")
    assert done.returncode == 0, done.stdout + done.stderr
    page = (own.path / PAGE).read_text()
    assert NOT_CHECKED not in page
    assert "its conditions are not the recorded ones" in page.partition("of other code")[2]


def test_a_file_that_is_no_verdict_changes_nothing(own: Project, tmp_path: Path) -> None:
    good = verdict_of_another(own, tmp_path, "--prefix", "2")
    bad = [tmp_path / name for name in ("words.json", "folder.json", "endless.json")]
    bad[0].write_text('{"verdict": "IDENTICAL", "claim": "<script>"}')
    bad[1].mkdir()
    bad[2].symlink_to("/dev/zero")
    before = state(own)
    lines = faults(own.module("repro", "report", "--verdicts", str(good), *map(str, bad)))
    assert len(lines) == len(bad)
    for path, line in zip(bad, lines, strict=True):
        assert line.startswith(f"error: {path}")
    assert state(own) == before
    done = own.module("repro", "report", "--verdicts")
    assert "expected at least one argument" in faults(done)[0]
