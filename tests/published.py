"""REPRODUCE.md taken at its word: its commands, in a repository as it is published.

What the default project carries takes minutes to train again, which test_make_demo does; this one
has recorded a short training.
"""

import re
import subprocess
from pathlib import Path

from conftest import Project, clean_environ, commit, generate, record_claims

CLAIMS = """
- name: short
  text: A short training
  arguments: [training.max_steps=30]
  metric: accuracy
  seeds: [42, 43]
"""
URL = "https://example.org/me/clean-room.git"


def publish(folder: Path) -> tuple[Project, dict[str, str]]:
    """A project in a repository, and the variables with which git finds it under its URL."""
    project = generate(folder, "project_slug=clean-room", f"repository_url={URL}")
    record_claims(project, CLAIMS)
    commit(project)
    bare = folder / "bare.git"
    subprocess.run(["git", "clone", "-q", "--bare", project.path, bare], check=True)
    found = {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": f"url.{bare}.insteadOf"}
    return project, {**found, "GIT_CONFIG_VALUE_0": URL}


def commands(project: Project) -> list[list[str]]:
    """The blocks of commands of its REPRODUCE.md."""
    text = (project.path / "REPRODUCE.md").read_text()
    blocks = re.findall(r"^```bash\n(.*?)^```$", text, re.M | re.S)
    return [block.splitlines() for block in blocks]


def run(folder: Path, lines: list[str], **variables: str) -> str:
    """What a shell prints that runs these lines and stops at the first that fails."""
    script = "\n".join(["set -euo pipefail", *lines])
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=folder,
        env=clean_environ(**variables),
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout
