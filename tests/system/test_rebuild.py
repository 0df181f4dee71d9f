"""The image is built twice from nothing, with another engine than test_image.py's: the same bytes?

buildah (Debian's), because Docker's builder of that age cannot set the times of files. It takes
minutes, and 30 GB of disk for a while.
"""

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import Project
from engine import BASE, Engine


def buildah(store: Path, *words: str) -> str:
    """What buildah prints, with images and containers in a folder of their own."""
    done = subprocess.run([*command(store), *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.strip()


def command(store: Path) -> list[str]:
    return ["buildah", "--root", f"{store}/root", "--runroot", f"{store}/run"]


def build(project: Project, store: Path, base: Path) -> tuple[str, dict[str, tuple[object, ...]]]:
    """Build as `make image` does, with nothing kept from before: the image's id and its files."""
    buildah(store, "pull", f"docker-archive:{base}")
    arguments = "--timestamp 0 --isolation chroot --network host --no-cache"
    arguments += f" --build-arg BASE_IMAGE=localhost/{BASE} --iidfile {store}/id"
    docker = f"DOCKER={' '.join(command(store))}"
    done = project.make("image", docker, f"BUILD_ARGS={arguments}")
    assert done.returncode == 0, done.stderr[-3000:]
    image = (store / "id").read_text().strip()
    container = buildah(store, "from", "--pull-never", image)
    files = contents(Path(buildah(store, "mount", container)))
    buildah(store, "umount", container)
    return image, files


def contents(root: Path) -> dict[str, tuple[object, ...]]:
    """For each path: mode, owner, time, and the content's digest or a link's target."""
    found: dict[str, tuple[object, ...]] = {}
    for folder, folders, files in os.walk(root):
        for path in (Path(folder, name) for name in (*folders, *files)):
            about = path.lstat()
            content = ""
            if path.is_symlink():
                content = os.readlink(path)
            elif path.is_file():
                with path.open("rb") as file:
                    content = hashlib.file_digest(file, "sha256").hexdigest()
            key = str(path.relative_to(root))
            found[key] = (about.st_mode, about.st_uid, about.st_gid, about.st_mtime_ns, content)
    return found


@pytest.mark.long
def test_two_builds_without_a_cache_give_the_same_image(
    own_project: Project, engine: Engine, tmp_path: Path
) -> None:
    if not shutil.which("buildah") or os.geteuid():
        pytest.skip("buildah is not installed, or this is not root")
    base = tmp_path / "base.tar"
    tag = f"localhost/{BASE}"
    for words in (("tag", BASE, tag), ("save", "--output", str(base), tag)):
        done = engine.docker(*words)
        assert done.returncode == 0, done.stderr
    images, files = [], []
    for name in ("one", "other"):
        store = tmp_path / name
        store.mkdir()
        try:
            image, found = build(own_project, store, base)
        finally:
            containers = buildah(store, "containers", "--quiet").split()
            for container in containers:
                buildah(store, "rm", container)
            buildah(store, "rmi", "--all", "--force")
            shutil.rmtree(store)
        images.append(image)
        files.append(found)
    one, other = files
    differ = sorted(p for p in one.keys() | other.keys() if one.get(p) != other.get(p))
    shown = [f"{path}: {one.get(path)} {other.get(path)}" for path in differ[:50]]
    assert images[0] == images[1], "\n".join([f"{len(differ)} files differ:", *shown])
    assert not differ
