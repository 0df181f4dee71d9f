"""The image's stages for each platform, built by real engines from the project's own Dockerfile.

Without its RUN instructions, so that no emulator is needed: what is looked at is which profile an
image gets. The whole one for linux/arm64 was built by hand, under an emulator (docs/platforms.md).
"""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import Project
from engine import Engine
from repro.environment.profile import PROFILES

STAND_IN = "repro-empty-base"
PLATFORMS = [("linux/amd64", "portable"), ("linux/arm64", "native")]


@pytest.fixture
def bare(own_project: Project) -> Project:
    """A project whose Dockerfile runs nothing, and beside it that of a base with an environment."""
    path = own_project.path / "Dockerfile"
    text, count = re.subn(r"(?m)^RUN (?:.*\\\n)*.*\n", "", path.read_text())
    assert count > 3
    path.write_text(text)
    base = own_project.path.parent / "base"
    (base / "opt" / "venv").mkdir(parents=True)
    (base / "opt" / "venv" / "pyvenv.cfg").touch()
    (base / "Dockerfile").write_text("FROM scratch\nCOPY opt /opt\n")
    return own_project


def expected(profile: str) -> dict[str, str]:
    return {**PROFILES[profile], "REPRO_PROFILE": profile}


def of_the_profile(variables: list[str]) -> dict[str, str]:
    """What an image sets of all that any profile has."""
    known = {*PROFILES["portable"], "REPRO_PROFILE"}
    pairs = dict(variable.split("=", 1) for variable in variables)
    return {name: value for name, value in pairs.items() if name in known}


@pytest.mark.parametrize(("platform", "profile"), PLATFORMS)
def test_dockers_image_has_the_profile_of_its_platform(
    engine: Engine, bare: Project, platform: str, profile: str
) -> None:
    base = f"{STAND_IN}:{platform.partition('/')[2]}"
    name = f"{base}-image"
    try:
        words = ("build", "--platform", platform, "--tag", base, str(bare.path.parent / "base"))
        assert engine.docker(*words).returncode == 0
        words = (f"PLATFORM={platform}", f"IMAGE={name}", f"DOCKER={engine.client}")
        arguments = f"BUILD_ARGS=--build-arg BASE_IMAGE={base}"
        done = bare.make("image", *words, arguments, **engine.variables)
        assert done.returncode == 0, done.stderr[-3000:]
        (image,) = json.loads(engine.docker("image", "inspect", name).stdout)
        assert f"{image['Os']}/{image['Architecture']}" == platform
        assert of_the_profile(image["Config"]["Env"]) == expected(profile)
    finally:
        engine.docker("image", "rm", "--force", name, base)


@pytest.mark.parametrize(("platform", "profile"), PLATFORMS)
def test_buildahs_image_has_the_profile_of_its_platform(
    bare: Project, tmp_path: Path, platform: str, profile: str
) -> None:
    if not shutil.which("buildah"):
        pytest.skip("buildah is not installed")
    store = tmp_path / "store"
    command = ["buildah", "--root", f"{store}/root", "--runroot", f"{store}/run"]

    def buildah(*words: str) -> str:
        done = subprocess.run([*command, *words], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    base = f"localhost/{STAND_IN}:here"
    where = str(bare.path.parent / "base")
    buildah("build", "--platform", platform, "--isolation", "chroot", "--tag", base, where)
    arguments = f"--isolation chroot --build-arg BASE_IMAGE={base} --iidfile {store}/id"
    words = (f"PLATFORM={platform}", f"DOCKER={' '.join(command)}", f"BUILD_ARGS={arguments}")
    done = bare.make("image", *words)
    assert done.returncode == 0, done.stderr[-3000:]
    found = buildah("inspect", "--type", "image", (store / "id").read_text().strip())
    image = json.loads(found)["OCIv1"]
    assert f"{image['os']}/{image['architecture']}" == platform
    assert of_the_profile(image["config"]["Env"]) == expected(profile)
