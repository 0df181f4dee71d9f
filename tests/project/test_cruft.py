"""`cruft update` brings a newer kit into a project and leaves the author's changes."""

import re
import shutil
import subprocess
from pathlib import Path

from conftest import (
    BEFORE_THE_PACKAGES,
    CHECKS,
    ROOT,
    Project,
    clean_environ,
)
from options import commit_all

# An author's loss in a file of its own; it imports the kit in each of the usual ways.
LOSS = '''
"""My loss."""

import repro.hashing
from repro import determinism, lines
from repro.command import UserError
from repro.lines import METRICS, read_object

assert lines.METRICS == METRICS
assert read_object and repro.hashing.derive_seed


def smoothed(logits, labels):
    if not len(labels):
        raise UserError("no labels: expected a batch")
    ones = labels.new_ones(len(labels), dtype=logits.dtype)
    counts = determinism.deterministic_bincount(labels, ones)
    assert counts.sum() == len(labels)
    rows = logits.log_softmax(1)
    return -0.9 * rows.gather(1, labels[:, None]).sum() - 0.1 * rows.mean(1).sum()
'''
# The last commit whose trainer does all by itself: an author's edits of that one cannot be merged
# into one that trains in a session.
BEFORE_THE_SESSION = "bd4c3a7e865f1f23be6bd40630c20d6aebabcb6b"
PLAIN = 'return functional.cross_entropy(logits.float(), labels, reduction="sum")'
OWN = """from experiment.loss import smoothed

            return smoothed(logits.float(), labels)"""


def cruft(home: Path, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environ = clean_environ(HOME=str(home), GIT_AUTHOR_NAME="A", GIT_COMMITTER_NAME="A")
    command = [str(CHECKS / "cruft"), *arguments]
    return subprocess.run(command, cwd=cwd, env=environ, capture_output=True, text=True)


def bits_of(project: Project) -> str:
    done = project.run("python", "-m", "experiment.train", "training.max_steps=3")
    assert done.returncode == 0, done.stdout + done.stderr
    return re.findall("bits ([0-9a-f]{64})", done.stdout)[-1]


def check_out(template: Path, commit: str) -> None:
    """Let the template's branch be at one of its older commits."""
    command = ["git", "-C", str(template), "checkout", "--quiet", "-B", "main", commit]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, f"{done.stderr}: git fetch --unshallow brings the history"


def older_template(folder: Path) -> Path:
    """This template's repository as it was before the packages."""
    subprocess.run(["git", "clone", "--quiet", "--no-hardlinks", ROOT, folder], check=True)
    check_out(folder, BEFORE_THE_PACKAGES)
    return folder


def test_a_project_with_an_edited_trainer_moves_to_the_packages_and_keeps_its_bits(
    tmp_path: Path,
) -> None:
    template = older_template(tmp_path / "template")
    arguments = ("create", str(template), "--no-input", "--output-dir", str(tmp_path))
    done = cruft(tmp_path, *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    project = Project(tmp_path / "reproducible-experiment")
    commit_all(project.path, "generated")
    (project.path / "experiment" / "loss.py").write_text(LOSS)
    project.edit("experiment/trainer.py", PLAIN, OWN)
    (project.path / "tests" / "test_mine.py").write_text("from repro.command import UserError\n")
    commit_all(project.path, "the author's loss")
    before = bits_of(project)
    check_out(template, BEFORE_THE_SESSION)
    done = cruft(tmp_path, "update", "--skip-apply-ask", cwd=project.path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert not list(project.path.rglob("*.rej"))
    assert (
        "smoothed(logits.float(), labels)" in (project.path / "experiment/trainer.py").read_text()
    )
    assert not (project.path / "repro" / "hashing.py").exists()
    done = project.run("python", "-m", "repro", "migrate")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "experiment/loss.py" in done.stdout
    assert "tests/test_mine.py" in done.stdout
    assert bits_of(project) == before


def test_cruft_renews_the_kit_and_keeps_what_the_author_changed(
    committed: Path, tmp_path: Path
) -> None:
    template = tmp_path / "template"
    shutil.copytree(committed, template)

    done = cruft(
        tmp_path, "create", str(template), "--no-input", "--output-dir", str(tmp_path), cwd=tmp_path
    )
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
    assert cruft(tmp_path, "check", cwd=project.path).returncode == 0
    kit = template / "{{cookiecutter.project_slug}}" / "repro" / "core" / "hashing.py"
    kit.write_text(kit.read_text() + "\n# renewed\n")
    task = template / "templates" / "tasks" / "images"
    code = task / "experiment" / "model.py"
    code.write_text(code.read_text() + "\n# also renewed\n")
    for path in (task / "results" / "expected_metrics.json", *(task / "results").rglob("*.md")):
        path.write_text(path.read_text().replace("05e0c6aeca67", "ba9876543210"))
    commit_all(template, "a change of the template")
    assert cruft(tmp_path, "check", cwd=project.path).returncode == 1
    done = cruft(tmp_path, "update", "--skip-apply-ask", cwd=project.path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (project.path / "repro" / "core" / "hashing.py").read_text() == kit.read_text()
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
    assert cruft(tmp_path, "check", cwd=project.path).returncode == 0
