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


def digest_of(project: Project, image: str, *options: str) -> subprocess.CompletedProcess[str]:
    """As `make image-digest` does it, with a Python that has none of the project's packages."""
    return pinned(project, image).run("python3", "-m", "repro", "image-digest", *options)


def lines(done: subprocess.CompletedProcess[str], code: int) -> list[str]:
    assert done.returncode == code, done.stdout + done.stderr
    assert not done.stderr
    return done.stdout.splitlines()


def index_of(*platforms: str) -> dict[str, object]:
    """An index of images for those platforms, none of which is there."""
    kind = "application/vnd.oci.image.manifest.v1+json"
    entry: dict[str, object] = {"mediaType": kind, "size": 2, "digest": GONE}
    manifests = [entry]  # one that names no platform, as the specification allows
    for platform in platforms:
        system, _, cpu = platform.partition("/")
        manifests.append({**entry, "platform": {"os": system, "architecture": cpu}})
    return {"schemaVersion": 2, "manifests": manifests}
