"""`cruft update` brings a newer kit into a project and leaves the author's changes."""

import shutil
import subprocess
from pathlib import Path

from conftest import (
    CHECKS,
    Project,
    clean_environ,
)
from options import commit_all


def test_cruft_renews_the_kit_and_keeps_what_the_author_changed(
    committed: Path, tmp_path: Path
) -> None:
    template = tmp_path / "template"
    shutil.copytree(committed, template)

    def cruft(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
        environ = clean_environ(HOME=str(tmp_path), GIT_AUTHOR_NAME="A", GIT_COMMITTER_NAME="A")
        command = [CHECKS / "cruft", *arguments]
        return subprocess.run(command, cwd=cwd, env=environ, capture_output=True, text=True)

    done = cruft("create", str(template), "--no-input", "--output-dir", str(tmp_path), cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    project = Project(tmp_path / "reproducible-experiment")
    commit_all(project.path, "generated")
    project.edit("experiment/model.py", '"""Models.', '"""My models.')
    (project.path / "configs" / "model" / "mine.yaml").write_text("name: small_cnn\n")
    measured = ("results/expected_metrics.json", "REPRODUCE.md")
    for name in measured:  # as `make record` does
        text = (project.path / name).read_text().replace("05e0c6aeca67", "0123456789ab")
        (project.path / name).write_text(text)
    commit_all(project.path, "the author's change")
    assert cruft("check", cwd=project.path).returncode == 0
    kit = template / "{{cookiecutter.project_slug}}" / "repro" / "hashing.py"
    kit.write_text(kit.read_text() + "\n# renewed\n")
    room = template / "{{cookiecutter.project_slug}}" / "experiment" / "model.py"
    room.write_text(room.read_text() + "\n# also renewed\n")
    for path in (template / "templates" / "results" / "none.json", kit.parents[1] / "REPRODUCE.md"):
        path.write_text(path.read_text().replace("05e0c6aeca67", "ba9876543210"))
    commit_all(template, "a change of the template")
    assert cruft("check", cwd=project.path).returncode == 1
    done = cruft("update", "--skip-apply-ask", cwd=project.path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (project.path / "repro" / "hashing.py").read_text() == kit.read_text()
    mine = (project.path / "experiment" / "model.py").read_text()
    assert mine.startswith('"""My models.')
    assert mine.endswith("# also renewed\n")
    assert (project.path / "configs" / "model" / "mine.yaml").exists()
    for name in measured:
        text = (project.path / name).read_text()
        assert "0123456789ab" in text
        assert "ba9876543210" not in text
        assert "<<<<<<<" not in text
    assert not list(project.path.rglob("*.rej"))
    assert cruft("check", cwd=project.path).returncode == 0
