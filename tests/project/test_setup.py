"""`make setup`: whatever ends it, an environment works on until the new one is whole.

bootstrap.py runs in a folder with a lock of one small package, which lies beside it as a wheel. pip
installs it, or uv where somebody asks for it.
"""

import base64
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from contextlib import suppress
from pathlib import Path

import pytest
from bootstrap_module import load_bootstrap
from conftest import TEMPLATE, UV

OTHERS = ("requirements-dev.lock", "requirements-tracker.lock")
SMALL = ("FREE_GB = 7", "FREE_GB = 0.01")


def wheels(top: Path) -> Path:
    """Where the packages lie: pip takes no space in such a name."""
    return top.parent / "wheels"


def make_wheel(folder: Path, version: str) -> None:
    """Make a wheel of a package with a program."""
    info = f"small-{version}.dist-info"
    files = {
        "small.py": f"def main():\n    print('small {version}')\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: small\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": "[console_scripts]\nsmall = small:main\n",
    }
    files[f"{info}/RECORD"] = "".join(f"{name},,\n" for name in [*files, f"{info}/RECORD"])
    path = folder / f"small-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as packed:
        for name, text in files.items():
            packed.writestr(name, text)


def lock(top: Path, version: str, digest: str | None = None) -> None:
    path = wheels(top) / f"small-{version}-py3-none-any.whl"
    digest = digest or hashlib.sha256(path.read_bytes()).hexdigest()
    text = f"small=={version} \\\n    --hash=sha256:{digest}\n"
    (top / "requirements.lock").write_text(text)


def environ(top: Path) -> dict[str, str]:
    """Without a network; uv is on PATH, and has a cache of its own."""
    quiet = {k: v for k, v in os.environ.items() if not k.startswith(("PIP_", "UV_"))}
    quiet["PATH"] = f"{UV.parent}{os.pathsep}{quiet['PATH']}"
    links = dict.fromkeys(("PIP_FIND_LINKS", "UV_FIND_LINKS"), str(wheels(top)))
    links["UV_CACHE_DIR"] = str(top.parent / "cache")
    return {**quiet, **links, "PIP_NO_INDEX": "1", "UV_NO_INDEX": "1"}


bootstrap = load_bootstrap()
COMMAND = [getattr(sys, "_base_executable", sys.executable), "-I", "bootstrap.py"]


def setup(top: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments],
        cwd=top,
        env={**environ(top), **variables},
        capture_output=True,
        text=True,
    )


def run(top: Path) -> str:
    """What the package's program says: its first line names the environment's Python."""
    return subprocess.check_output([top / ".venv" / "bin" / "small"], text=True).strip()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    top = tmp_path_factory.mktemp("setup") / "a b"  # programs then start by /bin/sh
    wheels(top).mkdir(parents=True)
    top.mkdir()
    for name in ("pyproject.toml", "repro/environment/relocated.py", "bootstrap.py"):
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(TEMPLATE / name, top / name)
    text = (top / "bootstrap.py").read_text()
    assert SMALL[0] in text
    (top / "bootstrap.py").write_text(text.replace(*SMALL))
    for name in OTHERS:
        (top / name).touch()
    for version in ("1.0", "2.0"):
        make_wheel(wheels(top), version)
    lock(top, "1.0")
    done = setup(top)
    assert done.returncode == 0, done.stderr
    shutil.copytree(top / ".venv", top / "kept", symlinks=True)
    return top


@pytest.fixture
def top(made: Path) -> Path:
    """A folder with an environment of version 1.0, and a lock of 2.0."""
    shutil.rmtree(made / ".venv", ignore_errors=True)
    shutil.copytree(made / "kept", made / ".venv", symlinks=True)
    lock(made, "2.0")
    return made


def names(top: Path) -> set[str]:
    return {path.name for path in (top / ".venv").iterdir()}


def test_an_environment_names_its_own_place_and_has_the_digests_of_its_files(top: Path) -> None:
    lock(top, "1.0")
    assert "up to date" in setup(top).stdout
    python = top / ".venv" / "bin" / "python"
    found = subprocess.check_output([python, "-c", "import sys; print(sys.prefix)"], text=True)
    assert Path(found.strip()) == top / ".venv"
    shell = 'source .venv/bin/activate; echo "$VIRTUAL_ENV"; command -v small; echo "$PS1"'
    told = subprocess.check_output(["bash", "-c", shell], cwd=top, text=True).splitlines()
    assert told[:2] == [str(top / ".venv"), str(top / ".venv" / "bin" / "small")]
    assert "(.venv)" in told[2]
    for path in (top / ".venv").rglob("*"):
        if path.is_file() and path.suffix != ".pyc":
            assert b"repro-setup.new" not in path.read_bytes(), path
    (record,) = (top / ".venv").glob("lib/python3*/site-packages/small-1.0.dist-info/RECORD")
    (entry,) = [line for line in record.read_text().splitlines() if line.startswith("../")]
    program = (top / ".venv" / "bin" / "small").read_bytes()
    digest = base64.urlsafe_b64encode(hashlib.sha256(program).digest()).rstrip(b"=").decode()
    assert entry == f"../../../bin/small,sha256={digest},{len(program)}"
    records = json.loads((top / ".venv" / "repro-records.json").read_text())
    assert records["small-1.0.dist-info"] == hashlib.sha256(record.read_bytes()).hexdigest()


def test_a_new_lock_gives_a_new_environment_and_nothing_of_the_old_stays(top: Path) -> None:
    (top / ".venv" / "share").mkdir(exist_ok=True)
    before = names(top)
    done = setup(top)
    assert done.returncode == 0, done.stderr
    assert run(top) == "small 2.0"
    assert names(top) == before - {"share"}


@pytest.mark.parametrize("cause", ["hash", "no package", "full disk"])
def test_a_setup_that_fails_leaves_the_old_environment(top: Path, cause: str) -> None:
    before = names(top)
    program = (top / "bootstrap.py").read_text()
    if cause == "hash":
        lock(top, "2.0", "0" * 64)
    elif cause == "no package":
        lock(top, "3.0", "0" * 64)
    else:
        (top / "bootstrap.py").write_text(program.replace(SMALL[1], "FREE_GB = 10**9"))
    try:
        done = setup(top)
    finally:
        (top / "bootstrap.py").write_text(program)
    assert done.returncode == (2 if cause == "full disk" else 1)
    last = done.stderr.splitlines()[-1]
    expected = "delete" if cause == "full disk" else "nothing is changed"
    assert expected in last
    assert "Traceback" not in done.stderr
    assert run(top) == "small 1.0"
    assert names(top) == before


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_setup_that_is_killed_leaves_the_old_environment(top: Path, number: int) -> None:
    before = names(top)
    process = subprocess.Popen(
        COMMAND,
        cwd=top,
        env=environ(top),
        stderr=subprocess.DEVNULL,
        # A shell that started the tests in the background has Ctrl-C ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    while not (top / ".venv" / "repro-setup.new" / "bin" / "python").exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGSTOP)  # or it might be done before the signal comes
    # Alone: a second one would delete what this one makes.
    other = setup(top)
    assert other.returncode == 2
    assert "another make setup is at work" in other.stderr
    process.send_signal(number)
    process.send_signal(signal.SIGCONT)
    process.wait()
    assert run(top) == "small 1.0"
    if number == signal.SIGKILL:  # nothing could clean up
        assert setup(top).returncode == 0
        assert run(top) == "small 2.0"
    assert names(top) == before


class _Killed(BaseException):
    pass


@pytest.mark.parametrize("moves", range(10))
def test_a_change_of_places_that_is_killed_is_brought_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moves: int
) -> None:
    new, old = tmp_path / bootstrap.NEW, {"bin", "lib", "share", "pyvenv.cfg"}
    for folder, parts in ((tmp_path, old), (new, {"bin", "lib", "include", "pyvenv.cfg"})):
        folder.mkdir(exist_ok=True)
        for name in parts:
            (folder / name).mkdir()
            (folder / name / folder.name).touch()
    parts = {path.name for path in new.iterdir()}
    (tmp_path / bootstrap.UNFINISHED).write_text("\n".join(parts))
    left = moves
    rename = Path.rename

    def rename_or_die(path: Path, target: Path) -> Path:
        nonlocal left
        left -= 1
        if left == -1:
            raise _Killed
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", rename_or_die)
    with suppress(_Killed):
        bootstrap.change_places(tmp_path)
    if bootstrap.whole_parts(tmp_path):
        bootstrap.check_folder(tmp_path)  # it is still known as ours
        bootstrap.change_places(tmp_path)
    bootstrap.clean(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == parts
    assert all((tmp_path / name / new.name).exists() for name in parts)


def test_what_an_older_bootstrap_left_unfinished_is_made_anew(top: Path) -> None:
    before = names(top)
    (top / ".venv" / "repro-setup.unfinished").touch()
    shutil.rmtree(top / ".venv" / "lib")
    lock(top, "1.0")
    done = setup(top)
    assert done.returncode == 0, done.stderr
    assert run(top) == "small 1.0"
    assert names(top) == before


def test_a_first_setup_that_fails_leaves_nothing_and_a_folder_of_others_stays(top: Path) -> None:
    lock(top, "2.0", "0" * 64)
    command = [*COMMAND, "--venv", "elsewhere"]
    done = subprocess.run(command, cwd=top, env=environ(top), capture_output=True, text=True)
    assert done.returncode == 1
    assert not (top / "elsewhere").exists()
    (top / "elsewhere").mkdir()
    (top / "elsewhere" / "thesis.tex").touch()
    done = subprocess.run(command, cwd=top, env=environ(top), capture_output=True, text=True)
    shutil.rmtree(top / "elsewhere")
    assert done.returncode == 2
    assert "was not made by make setup" in done.stderr


# uv -----------------------------------------------------------------------------------------------

WITH_UV = ("--installer", "uv")


def test_uv_makes_the_same_environment_and_pip_takes_it_as_its_own(top: Path) -> None:
    before = names(top)
    constraint = top.parent / "constraint.txt"
    constraint.write_text("small<2\n")
    done = setup(top, *WITH_UV, UV_CONSTRAINT=str(constraint))  # as of pip, it is not heeded
    assert done.returncode == 0, done.stderr
    assert run(top) == "small 2.0"
    assert names(top) == before
    stamp = (top / ".venv" / "repro-setup.json").read_text()
    (site,) = (top / ".venv").glob("lib/python3*/site-packages")
    info = site / "small-2.0.dist-info"
    assert (info / "INSTALLER").read_text().strip() == "uv"
    records = json.loads((top / ".venv" / "repro-records.json").read_text())
    assert records[info.name] == hashlib.sha256((info / "RECORD").read_bytes()).hexdigest()
    program = (top / ".venv" / "bin" / "small").read_bytes()
    assert b"repro-setup.new" not in program
    assert f",{len(program)}\n" in (info / "RECORD").read_text()
    assert (site / "__pycache__").is_dir()
    assert (site / "small.py").stat().st_nlink == 1  # no link to uv's cache
    assert "up to date" in setup(top).stdout
    shutil.rmtree(top / ".venv")
    assert setup(top).returncode == 0
    assert (top / ".venv" / "repro-setup.json").read_text() == stamp


@pytest.mark.parametrize(
    ("installer", "variables", "code", "words"),
    [
        (
            "uv",
            {"UV_NO_VERIFY_HASHES": "1"},
            1,
            "hash mismatch: small==2.0 (see above); nothing is changed",
        ),
        (
            "uv",
            {"PATH": "/nowhere"},
            2,
            "found no uv on PATH: install it, or leave out INSTALLER=uv",
        ),
        ("conda", {}, 2, "INSTALLER=conda: expected pip or uv"),
    ],
)
def test_without_the_right_files_or_without_uv_nothing_is_changed(
    top: Path, installer: str, variables: dict[str, str], code: int, words: str
) -> None:
    before = names(top)
    lock(top, "2.0", "0" * 64)
    done = setup(top, "--installer", installer, **variables)
    assert (done.returncode, done.stderr.splitlines()[-1]) == (code, f"setup: {words}")
    assert run(top) == "small 1.0"
    assert names(top) == before


@pytest.mark.parametrize("installer", ["pip", "uv"])
def test_without_a_network_a_line_says_what_is_needed(top: Path, installer: str) -> None:
    before = names(top)
    nowhere = "http://127.0.0.1:9/simple"  # nothing answers there
    variables = {"PIP_NO_INDEX": "0", "PIP_CONFIG_FILE": os.devnull, "PIP_RETRIES": "1"}
    variables |= {"UV_NO_INDEX": "0", "UV_NO_CONFIG": "1", "UV_HTTP_RETRIES": "1"}
    variables |= {"PIP_FIND_LINKS": "", "PIP_INDEX_URL": nowhere, "UV_DEFAULT_INDEX": nowhere}
    quiet = environ(top)
    del quiet["UV_FIND_LINKS"]
    done = subprocess.run(
        [*COMMAND, "--installer", installer],
        cwd=top,
        env={**quiet, **variables},
        capture_output=True,
        text=True,
    )
    (line,) = done.stderr.splitlines()
    assert done.returncode == 1
    assert line == f"setup: {bootstrap.NO_INDEX}; nothing is changed"
    assert run(top) == "small 1.0"
    assert names(top) == before


def test_what_ended_an_installation_is_told_by_its_own_words(
    capfd: pytest.CaptureFixture[str],
) -> None:
    """A connection that was tried again is no cause where the packages came in the end."""

    def refusal(*lines: str) -> str:
        with pytest.raises(bootstrap.Refused) as caught:
            bootstrap.run(["sh", "-c", 'printf "%s\\n" "$@"; exit 1', "-", *lines])
        return str(caught.value)

    again = "WARNING: Retrying (Retry(total=4)) after connection broken by 'NewConnectionError'"
    nothing = "ERROR: Could not find a version that satisfies small==2.0 (from versions: none)"
    full = "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device"
    assert refusal(again, full).startswith("the disk is full: choose another folder")
    assert refusal(again, nothing).startswith("no package index was reached")
    assert capfd.readouterr().err == ""
    wrong = ["ERROR: THESE PACKAGES DO NOT MATCH", "    small==2.0 from a", "        Expected b"]
    assert refusal(again, *wrong).startswith("hash mismatch: small==2.0 (see above)")
    assert refusal(again, "ERROR: other").startswith("the installation failed (see above)")
    assert "ERROR: other" in capfd.readouterr().err
