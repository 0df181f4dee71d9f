"""`make lock` in a project, from packages that lie beside it: what it writes, what it refuses."""

import zipfile
from pathlib import Path

import pytest
from conftest import Project

# What each package asks for. `heavy` is as torch: its CUDA is for Linux alone.
PACKAGES = {
    "heavy": ["accelerator[fast]>=1; platform_system == 'Linux'", "light"],
    "accelerator": ["engine; extra == 'fast'"],
    "engine": [],
    "light": [],
    "notebook": ["menu; sys_platform == 'darwin'"],
    "menu": [],
}


@pytest.fixture
def wheels(tmp_path: Path) -> Path:
    folder = tmp_path / "wheels"
    folder.mkdir()
    for name, needed in PACKAGES.items():
        info = f"{name}-1.0.dist-info"
        about = ["Metadata-Version: 2.1", f"Name: {name}", "Version: 1.0"]
        about += [f"Requires-Dist: {text}" for text in needed]
        about += ["Provides-Extra: fast"] * (name == "accelerator")
        with zipfile.ZipFile(folder / f"{name}-1.0-py3-none-any.whl", "w") as wheel:
            wheel.writestr(f"{name}.py", "")
            wheel.writestr(f"{info}/METADATA", "\n".join([*about, ""]))
            wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
            wheel.writestr(f"{info}/RECORD", "")
    return folder


def test_a_project_locks_for_all_platforms_or_keeps_its_lock(
    own_project: Project, wheels: Path
) -> None:
    (wheels.parent / "empty").mkdir()
    where = f"--index-url={(wheels.parent / 'empty').as_uri()} --find-links={wheels}"
    lock = own_project.path / "requirements.lock"

    def make_lock(*wanted: str) -> tuple[int, str]:
        (own_project.path / "requirements.in").write_text("\n".join([*wanted, ""]))
        done = own_project.make("lock", "LOCKS=requirements", f"ARGS={where}")
        assert not [*own_project.path.glob("*.unmarked")]
        return done.returncode, done.stderr

    code, told = make_lock("heavy")
    assert code == 0, told
    pins = [line.rstrip(" \\") for line in lock.read_text().splitlines() if "==1.0" in line]
    linux = ' ; sys_platform == "linux"'
    expected = [f"accelerator==1.0{linux}", f"engine==1.0{linux}", "heavy==1.0", "light==1.0"]
    assert pins == expected
    first = lock.read_bytes()
    assert (b"make lock" in first, b"wheels" in first) == (True, False)
    assert make_lock("heavy")[0] == 0
    assert lock.read_bytes() == first  # its own markers do not disturb the next one

    code, told = make_lock("heavy", "notebook")
    assert code == 2
    assert "error: notebook needs menu on macOS arm64, and pip-compile chose for Linux" in told
    assert "add menu to requirements.in" in told
    assert lock.read_bytes() == first
    assert make_lock("heavy", "notebook", "menu")[0] == 0
    assert "\nmenu==1.0 \\\n" in lock.read_text()

    own_project.edit(
        "pyproject.toml", "[tool.repro]\n", '[tool.repro]\nplatforms = "Linux x86-64"\n'
    )
    assert make_lock("heavy", "notebook")[0] == 0
    assert ";" not in lock.read_text()
