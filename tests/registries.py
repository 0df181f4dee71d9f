"""A project whose base image is in a registry on this machine, and the answer to its question."""

import subprocess

from conftest import Project

GONE = "sha256:" + "0" * 64


def pinned(project: Project, image: str) -> Project:
    """The project with that base image."""
    path = project.path / "Dockerfile"
    lines = path.read_text().splitlines()
    lines = [f"ARG BASE_IMAGE={image}" if x.startswith("ARG BASE_IMAGE=") else x for x in lines]
    path.write_text("\n".join(lines) + "\n")
    return project


def digest_of(project: Project, image: str) -> subprocess.CompletedProcess[str]:
    """As `make image-digest` does it, with a Python that has none of the project's packages."""
    return pinned(project, image).run("python3", "-m", "repro", "image-digest")


def only_line(done: subprocess.CompletedProcess[str], code: int) -> str:
    assert done.returncode == code, done.stdout + done.stderr
    (line,) = done.stdout.splitlines()
    assert not done.stderr
    return line
