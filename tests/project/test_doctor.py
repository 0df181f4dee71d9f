"""repro/environment/packages.py on real environments: one fault is planted in each, and named.

Each is a copy of a small environment, which `make setup` made from a lock with a few packages.
"""

import base64
import hashlib
import marshal
import os
import py_compile
import re
import shutil
import zipfile
from collections.abc import Callable
from importlib.util import cache_from_source
from pathlib import Path

import pytest
from conftest import UV, Project
from doctors import doctor

LOCKED = ("markdown-it-py", "mdurl", "packaging", "pygments", "rich")
DEV = ("iniconfig", "pluggy")
LOCK = "requirements.lock"
ANEW = "delete the environment and run make setup"


def entries(lock: str, names: tuple[str, ...]) -> str:
    """The lock with only these packages."""
    head, *parts = re.split(r"(?m)^(?=[a-z0-9-]+==)", lock)
    return head + "".join(part for part in parts if part.partition("==")[0] in names)


@pytest.fixture(scope="module")
def small(project: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project with small locks and the environment that they give."""
    folder = tmp_path_factory.mktemp("small")
    found = Project(project.copy(folder / "project").path, folder / "venv")
    for name, names in ((LOCK, LOCKED), ("requirements-dev.lock", DEV)):
        path = found.path / name
        path.write_text(entries(path.read_text(), names))
    (found.path / "requirements.in").write_text("rich>=1  # the bar\npackaging\n")
    (found.path / "requirements-dev.in").write_text("-c requirements.lock\npluggy\niniconfig\n")
    done = found.make("setup")
    assert done.returncode == 0, done.stdout + done.stderr
    return found


@pytest.fixture
def ill(small: Project, tmp_path: Path) -> Project:
    """A copy of project and environment, to plant a fault in."""
    shutil.copytree(small.venv, tmp_path / "venv", symlinks=True)
    return Project(small.copy(tmp_path / "project").path, tmp_path / "venv")


def site(project: Project) -> Path:
    (found,) = project.venv.glob("lib/python3*/site-packages")
    return found


def line_of(project: Project, name: str, text: str) -> str:
    lines = (project.path / name).read_text().splitlines()
    (number,) = [n for n, line in enumerate(lines, 1) if text in line]
    return f"{name}:{number}: "


def replace(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert text.count(old) == 1, text.count(old)
    path.write_text(text.replace(old, new))


# Nothing is wrong --------------------------------------------------------------------------------


def test_nothing_is_wrong_after_make_setup(small: Project) -> None:
    for options in ((), ("--quick",), ("--lock",)):
        assert doctor(small, *options) == []
    done = small.make("doctor", "ARGS=--environment")
    assert done.returncode == 0, done.stdout
    assert "note: " not in done.stdout
    assert re.search(r"7 locked packages, \d+ installed ones, \d\d\d+ files", done.stdout)
    assert small.make("lock-check").returncode == 0


def test_another_environment_is_a_note_and_compiled_files_without_dates_are_right(
    ill: Project,
) -> None:
    """As in the image: compiled anew, by the source's hash, and listed in no RECORD."""
    (ill.venv / "repro-records.json").unlink()
    for record in site(ill).glob("*.dist-info/RECORD"):
        lines = record.read_text().splitlines(keepends=True)
        record.write_text("".join(line for line in lines if ".pyc," not in line))
    for path in [*site(ill).rglob("*.pyc")]:
        path.unlink()
    unchecked = ["--invalidation-mode", "unchecked-hash", str(site(ill))]
    ill.run("python", "-m", "compileall", "-fqq", *unchecked, PYTHONHASHSEED="0")
    done = ill.module("repro", "doctor", "--environment")
    assert done.returncode == 0, done.stdout
    assert "note: " in done.stdout
    assert "not set up by make setup" in done.stdout
    compiled = Path(cache_from_source(str(site(ill) / "mdurl" / "_decode.py")))
    edited_code(compiled, site(ill) / "mdurl" / "_decode.py")
    (fault,) = doctor(ill)
    assert "mdurl/__pycache__/_decode.cpython" in fault
    done = ill.run("python", "-I", "bootstrap.py", "--records", "--venv", str(ill.venv))
    assert done.returncode == 0, done.stderr
    assert "note: " not in ill.module("repro", "doctor", "--quick").stdout


PLANTED_FOR_MACOS = (
    'planted==1.0 ; sys_platform == "darwin" \\\n    --hash=sha256:' + "0" * 64 + "\n"
)
NOT_AS_LOCKED = """if 1:
    from pathlib import Path
    from repro.environment.locks import not_as_locked
    print(not_as_locked(Path("requirements.lock")))"""


def test_an_environment_that_uv_made_is_as_right_as_pips(small: Project, tmp_path: Path) -> None:
    other = Project(small.path, tmp_path / "venv")
    path = f"{UV.parent}{os.pathsep}{os.environ['PATH']}"
    done = other.make("setup", "INSTALLER=uv", PATH=path)
    assert done.returncode == 0, done.stdout + done.stderr
    for options in ((), ("--quick",), ("--lock",)):
        assert doctor(other, *options) == doctor(small, *options) == []
    found = {
        project.run("python", "-c", NOT_AS_LOCKED).stdout.strip() for project in (small, other)
    }
    assert found == {"{}"}
    edited = site(other) / "mdurl" / "_encode.py"
    edited.write_bytes(edited.read_bytes().replace(b"a", b"b", 1))
    (fault,) = (fault for fault in doctor(other) if ".pyc" not in fault)
    assert fault.endswith("mdurl/_encode.py is not the file that was installed: " + ANEW)


def test_what_the_lock_has_for_other_platforms_is_not_missed(ill: Project, tmp_path: Path) -> None:
    """And it is as good as in no lock where somebody has installed it."""
    with (ill.path / LOCK).open("a") as lock:
        lock.write(PLANTED_FOR_MACOS)
    (changed,) = doctor(ill)
    assert changed.startswith("requirements.lock is not the one that the environment was made from")
    assert ill.run("python", "-c", NOT_AS_LOCKED).stdout.strip() == "{}"
    pip(ill, "install", "--no-index", str(make_wheel(tmp_path, "py3-none-any")))
    _, fault = doctor(ill, "--lock")
    assert fault == f"planted 1.0 is installed and locked for other platforms only: {ANEW}"


def test_a_marker_that_the_packages_do_not_ask_for_is_named(ill: Project) -> None:
    """A lock of pip-compile alone lacks them, and one that somebody edited may have others."""
    place = line_of(ill, LOCK, "mdurl==")
    text = (ill.path / LOCK).read_text()
    marked = re.sub(r"(?m)^(mdurl==\S+)", r'\1 ; sys_platform == "linux"', text)
    (ill.path / LOCK).write_text(marked)
    fault, _ = doctor(ill, "--lock")
    marker = """the marker 'sys_platform == "linux"'"""
    everywhere = "Linux x86-64, Linux aarch64, macOS arm64"
    assert fault == f"{place}mdurl has {marker}, needed on {everywhere}: run make lock"
    (metadata,) = site(ill).glob("markdown_it_py-*.dist-info/METADATA")
    on_linux = "mdurl~=0.1 ; platform_system == 'Linux'"
    metadata.write_text(metadata.read_text().replace("mdurl~=0.1", on_linux))
    assert len(doctor(ill, "--lock")) == 1
    (ill.path / LOCK).write_text(text)
    (fault,) = doctor(ill, "--lock")
    linux = "Linux x86-64, Linux aarch64"
    assert fault == f"{place}mdurl has no marker, needed on {linux}: run make lock"


def test_it_runs_without_any_package(ill: Project) -> None:
    for path in site(ill).iterdir():
        if path.name.partition("-")[0] not in ("pip", "setuptools"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    faults = doctor(ill)
    for name in (*LOCKED, *DEV):
        assert any(f" {name} " in fault and "not installed" in fault for fault in faults), name


def test_pythons_own_environment_cannot_be_looked_at(small: Project) -> None:
    base = small.run("python", "-c", "import sys; print(sys._base_executable)").stdout.strip()
    done = small.run(base, "-m", "repro", "doctor", "--environment")
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(r"error: .* is in no environment: run make setup.*\n", done.stderr)


def test_without_a_lock_it_cannot_look(ill: Project) -> None:
    (ill.path / LOCK).unlink()
    done = ill.module("repro", "doctor", "--environment")
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(r"error: .*requirements.lock is missing: .*\n", done.stderr)


# Files -------------------------------------------------------------------------------------------


def test_one_edited_byte_is_named(ill: Project) -> None:
    path = site(ill) / "mdurl" / "_encode.py"
    data = bytearray(path.read_bytes())
    data[-2] ^= 1
    path.write_bytes(data)
    (fault,) = (fault for fault in doctor(ill) if "mdurl/_encode.py" in fault)
    assert fault.endswith("is not the file that was installed: " + ANEW)
    assert doctor(ill, "--quick") == []  # the size is the same
    path.write_bytes(data + b"#")
    (fault,) = doctor(ill, "--quick")
    assert f"mdurl/_encode.py has {len(data) + 1} bytes, RECORD has {len(data)}" in fault


def test_a_missing_file_is_named(ill: Project) -> None:
    (site(ill) / "mdurl" / "_encode.py").unlink()
    for options in ((), ("--quick",)):
        (fault,) = [x for x in doctor(ill, *options) if ".pyc" not in x]
        assert "mdurl/_encode.py: No such file" in fault


def test_a_script_outside_of_site_packages_is_compared(ill: Project) -> None:
    path = ill.venv / "bin" / "pygmentize"
    path.write_text(path.read_text() + "#")
    (fault,) = doctor(ill)
    assert fault.startswith("bin/pygmentize is not the file")


def edited_code(path: Path, source: Path) -> None:
    """Another constant, the header as it was."""
    code = compile(source.read_text() + "\nPLANTED = 1\n", str(source), "exec")
    path.write_bytes(path.read_bytes()[:16] + marshal.dumps(code))


def edited_header(path: Path, source: Path) -> None:
    data = bytearray(path.read_bytes())
    data[8] ^= 1
    path.write_bytes(data)


def cut_short(path: Path, source: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def unchecked(path: Path, source: Path) -> None:
    """Python takes such a file whatever its source says."""
    other = source.with_name("other.py")
    other.write_text(source.read_text() + "\nPLANTED = 1\n")
    mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
    py_compile.compile(str(other), cfile=str(path), doraise=True, invalidation_mode=mode)
    other.unlink()


@pytest.mark.parametrize("edit", [edited_code, edited_header, cut_short, unchecked])
def test_an_edited_compiled_file_is_named(ill: Project, edit: Callable[[Path, Path], None]) -> None:
    source = site(ill) / "mdurl" / "_encode.py"
    compiled = Path(cache_from_source(str(source)))
    edit(compiled, source)
    (fault,) = doctor(ill)
    assert f"mdurl/__pycache__/{compiled.name} is " in fault
    assert ("by its header" in fault) == (edit is not edited_code and edit is not cut_short)


def test_each_changed_byte_of_code_is_named_or_harmless(ill: Project) -> None:
    """No byte leads to a traceback. Not named: the source's path, how a string is kept."""
    source = site(ill) / "mdurl" / "_decode.py"
    compiled = Path(cache_from_source(str(source)))
    data = compiled.read_bytes()
    program = (
        "import sys; from pathlib import Path\n"
        "from repro.environment.installed_files import InstalledFile, file_fault\n"
        "path = Path(sys.argv[1]); data = path.read_bytes(); named = tried = 0\n"
        "for place in range(0, len(data), 11):\n"
        "    path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1:])\n"
        "    tried += 1; named += bool(file_fault(InstalledFile(str(path))))\n"
        "print(named / tried)"
    )
    done = ill.run("python", "-c", program, str(compiled))
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) > 0.9
    assert len(data) > 1000


# Strangers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("planted.pth", "is a file of no package, and Python runs it at each start"),
        ("sitecustomize.py", "is a file of no package, and Python runs it at each start"),
        ("usercustomize.py", "is a file of no package, and Python runs it at each start"),
        ("stray.py", "is a file of no package"),
        ("rich/stray.so", "is a file of no package"),
        ("rich/sourceless.pyc", "is a file of no package"),
        ("rich/__pycache__/orphan.cpython-311.pyc", "is a file of no package"),
        ("stray/__init__.py", "site-packages/stray is a folder of no package"),
    ],
)
def test_a_file_of_no_package_is_named(ill: Project, name: str, words: str) -> None:
    path = site(ill) / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("")
    for options in ((), ("--quick",)):
        (fault,) = doctor(ill, *options)
        assert words in fault
        assert name.partition("/")[0] in fault


def test_a_linked_folder_is_named(ill: Project, tmp_path: Path) -> None:
    (site(ill) / "linked").symlink_to(tmp_path)
    (fault,) = doctor(ill)
    assert "site-packages/linked is a folder of no package" in fault
    (site(ill) / "linked").unlink()
    shutil.move(site(ill) / "mdurl", tmp_path / "elsewhere")  # where nothing else is looked at
    (site(ill) / "mdurl").symlink_to(tmp_path / "elsewhere")
    (fault,) = doctor(ill)
    assert "site-packages/mdurl is a folder of no package" in fault


def test_a_package_on_pythonpath_is_named(ill: Project, tmp_path: Path) -> None:
    (tmp_path / "else" / "numpy").mkdir(parents=True)
    (fault,) = doctor(ill, PYTHONPATH=str(tmp_path / "else"))
    assert fault == (f"{tmp_path}/else is outside the environment, and has numpy: unset PYTHONPATH")
    (tmp_path / "empty").mkdir()
    assert doctor(ill, PYTHONPATH=str(tmp_path / "empty")) == []
    done = ill.make(
        "doctor", "ARGS=--environment", PYTHONPATH=str(tmp_path / "else")
    )  # make takes it away
    assert done.returncode == 0, done.stdout


def test_a_package_of_the_user_or_the_system_is_named(ill: Project, tmp_path: Path) -> None:
    replace(ill.venv / "pyvenv.cfg", "packages = false", "packages = true")
    variables = {"PYTHONUSERBASE": str(tmp_path / "base"), "PYTHONNOUSERSITE": ""}
    user = Path(ill.run("python", "-m", "site", "--user-site", **variables).stdout.strip())
    user.mkdir(parents=True)
    (user / "numpy.py").write_text("")
    theirs, systems = doctor(ill, **variables)
    assert theirs == f"{user} is the user's, and packages come from it: set PYTHONNOUSERSITE=1"
    assert "is outside the environment, and has " in systems
    assert doctor(ill, **{**variables, "PYTHONNOUSERSITE": "1"}) == [systems]


# Packages ----------------------------------------------------------------------------------------


def pip(project: Project, *arguments: str) -> None:
    done = project.run("python", "-I", "-m", "pip", "-qq", *arguments)
    assert done.returncode == 0, done.stderr


def test_a_missing_package_is_named_with_the_lines_of_the_lock(ill: Project) -> None:
    pip(ill, "uninstall", "--yes", "mdurl", "pluggy")
    for options in ((), ("--quick",), ("--lock",)):
        first, second = doctor(ill, *options)
        assert first.startswith(line_of(ill, LOCK, "mdurl==") + "mdurl ")
        assert second.startswith(line_of(ill, "requirements-dev.lock", "pluggy==") + "pluggy ")
        assert first.endswith(" is locked and not installed: " + ANEW)
    (ill.venv / "repro-setup.json").unlink()  # as in the image, which has no tools
    (fault,) = doctor(ill, "--lock")
    assert "mdurl" in fault


def rename(project: Project, name: str, old: str, new: str) -> None:
    """Another version, or name, in a distribution's METADATA."""
    (folder,) = site(project).glob(f"{name}-*.dist-info")
    path = folder / "METADATA"
    text, count = re.subn(old, new, path.read_text(), count=1, flags=re.MULTILINE)
    assert count == 1
    path.write_text(text)


def test_another_version_is_named(ill: Project) -> None:
    rename(ill, "mdurl", "^Version: .*$", "Version: 0.0.9")
    (fault,) = doctor(ill, "--lock")
    assert fault.startswith(line_of(ill, LOCK, "mdurl==") + "mdurl ")
    assert "is locked, 0.0.9 is installed" in fault
    rename(ill, "mdurl", "^Version: .*$", "")
    faults = doctor(ill, "--lock")
    assert "has no METADATA with name and version" in faults[0]


def make_wheel(folder: Path, tag: str) -> Path:
    """A package `planted` 1.0 as a wheel for the Pythons of `tag`."""
    path = folder / f"planted-1.0-{tag}.whl"
    info = "planted-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr("planted.py", "")
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: planted\nVersion: 1.0\n")
        wheel.writestr(f"{info}/WHEEL", f"Wheel-Version: 1.0\nTag: {tag}\n")
        wheel.writestr(f"{info}/RECORD", "")
    return path


def test_a_package_in_no_lock_is_named(ill: Project, tmp_path: Path) -> None:
    pip(ill, "install", "--no-index", str(make_wheel(tmp_path, "py3-none-any")))
    (fault,) = doctor(ill, "--lock")
    assert fault.startswith("planted 1.0 is installed and in no lock")
    assert any("planted-1.0.dist-info/RECORD came after make setup" in x for x in doctor(ill))


def test_an_edited_record_is_named(ill: Project) -> None:
    """A changed file whose new digest stands in its RECORD."""
    path = site(ill) / "mdurl" / "py.typed"
    (record,) = site(ill).glob("mdurl-*/RECORD")
    assert re.search(r"mdurl/py.typed,sha256=\S+,\d+", record.read_text())
    path.write_text("!")
    digest = base64.urlsafe_b64encode(hashlib.sha256(b"!").digest()).decode().rstrip("=")
    row = f"mdurl/py.typed,sha256={digest},1"
    text = re.sub(r"mdurl/py.typed,sha256=\S+,\d+", row, record.read_text())
    record.write_text(text)
    (fault,) = doctor(ill)
    assert re.search(r"mdurl-\S+/RECORD changed after make setup", fault)
    record.write_text(text.replace("mdurl/py.typed,", '"mdurl/py.typed,'))
    assert any(re.search(r"RECORD:\d+ has no path, digest and size", x) for x in doctor(ill))
    record.unlink()
    assert any("RECORD is missing" in fault for fault in doctor(ill))
    (ill.venv / "repro-records.json").write_text("[")
    assert any("repro-records.json is damaged" in fault for fault in doctor(ill))


# The project's files -----------------------------------------------------------------------------


def test_a_tampered_hash_is_named_by_its_line(ill: Project) -> None:
    lock = ill.path / LOCK
    text = lock.read_text()
    digest = re.findall(r"sha256:([0-9a-f]{64})", text)[0]
    place = line_of(ill, LOCK, digest)
    for broken in (digest[:-1], digest[:-1] + "g", digest + "0", digest.upper()):
        lock.write_text(text.replace(digest, broken))
        fault, other = doctor(ill, "--lock")
        assert fault.startswith(place)
        assert "expected --hash=sha256: and 64 digits" in fault
        assert other.startswith("requirements.lock is not the one that the environment was made")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (r"^mdurl==\S+", "mdurl", r":\d+: found 'mdurl \\\\+', expected NAME==VERSION"),
        (r"^(mdurl==\S+) \\\n( +--hash.*\n)+", r"\1\n", r":\d+: mdurl \S* ?has no --hash"),
        (r"^(mdurl==\S+)", r"--index-url https://x.org\n\1", r":\d+: found '--index-url"),
        (r"^((mdurl==\S+) \\\n( +--hash.*\n)+)", r"\1\1", r":\d+: mdurl is in \S+:\d+ already"),
    ],
)
def test_a_bad_line_of_the_lock_is_named(ill: Project, old: str, new: str, words: str) -> None:
    lock = ill.path / LOCK
    text, count = re.subn(old, new, lock.read_text(), flags=re.MULTILINE)
    assert count == 1
    lock.write_text(text)
    assert any(re.match(f"requirements.lock{words}", fault) for fault in doctor(ill, "--lock"))


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ("numpy", "numpy is not in requirements.lock: run make lock"),
        ("rich<1", "rich<1 does not allow "),
        ("rich==", "found 'rich==', expected a package such as"),
    ],
)
def test_what_is_asked_for_and_not_locked_is_named(ill: Project, asked: str, words: str) -> None:
    (ill.path / "requirements.in").write_text(f"# mine\n{asked}\npackaging\n")
    (fault,) = doctor(ill, "--lock")
    assert fault.startswith(f"requirements.in:2: {words}")
    done = ill.make("lock-check")
    assert done.returncode == 2
    assert fault in done.stdout


def test_a_package_that_nothing_asks_for_is_named(ill: Project) -> None:
    """It may be installed, with the right hash: somebody added it to the lock alone."""
    shutil.copytree(site(ill) / "mdurl", site(ill) / "planted")
    about = site(ill) / "planted-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: planted\nVersion: 1.0\n")
    with (ill.path / LOCK).open("a") as lock:
        lock.write("planted==1.0 \\\n    --hash=sha256:" + "0" * 64 + "\n    # via rich\n")
    place = line_of(ill, LOCK, "planted==1.0")
    words = "requirements.in does not ask for planted, nor does a package: run make lock"
    assert place + words in doctor(ill, "--lock")
    # What a package asks for with an extra, only who asks for the extra gets.
    (metadata,) = site(ill).glob("rich-*.dist-info/METADATA")
    replace(metadata, "\nName:", "\nRequires-Dist: planted ; extra == 'more'\nName:")
    assert place + words in doctor(ill, "--lock")
    replace(ill.path / "requirements.in", "rich>=1", "rich[more]>=1")
    assert place + words not in doctor(ill, "--lock")
    replace(ill.path / "requirements.in", "rich[more]>=1", "rich>=1\nplanted")
    assert place + words not in doctor(ill, "--lock")


@pytest.mark.parametrize(
    ("file", "old", "new", "words"),
    [
        ("Dockerfile", 'MKL_CBWR="COMPATIBLE"', 'MKL_CBWR="AVX2"', "MKL_CBWR is AVX2, "),
        (
            "Dockerfile",
            'REPRO_PROFILE="portable"',
            'REPRO_PROFILE="fast"',
            "REPRO_PROFILE is fast, ",
        ),
        ("Makefile", "export MKL_CBWR ?= COMPATIBLE\n", "", "Makefile: MKL_CBWR is missing, "),
        ("environment.yml", '  PYTHONHASHSEED: "42"\n', "", "PYTHONHASHSEED is missing, "),
        ("Makefile", "CAPABILITY ?= avx2", "CAPABILITY ?= avx", "ATEN_CPU_CAPABILITY is avx, "),
        ("environment.yml", "python=3.12", "python=3.13", "Dockerfile:"),
        ("environment.yml", "python=3.12", "python=3.9", "Dockerfile:"),
    ],
)
def test_disagreeing_files_are_named(
    ill: Project, file: str, old: str, new: str, words: str
) -> None:
    ill.edit(file, old, new)
    fault, *more = doctor(ill, "--lock")
    if "python" in old:
        assert re.match(r"Dockerfile:\d+ has Python 3.12, environment.yml:\d+ has Python 3", fault)
        assert bool(more) == ("3.9" in new)
    else:
        assert words + "repro/environment/profile.py has " in fault
        assert fault.startswith(file)
        assert not more


def test_a_wheel_for_another_python_is_refused(ill: Project, tmp_path: Path) -> None:
    """The lock has a package, but no wheel of it for this Python: its source is not built."""
    source = tmp_path / "planted-1.0"
    source.mkdir()
    (source / "setup.py").write_text("raise SystemExit('it was run')")
    (source / "PKG-INFO").write_text("Metadata-Version: 2.1\nName: planted\nVersion: 1.0\n")
    archive = shutil.make_archive(str(source), "gztar", tmp_path, "planted-1.0")
    wheel = make_wheel(tmp_path, "cp39-cp39-manylinux_2_28_x86_64")
    digests = [hashlib.sha256(Path(x).read_bytes()).hexdigest() for x in (archive, wheel)]
    lock = ill.path / LOCK
    entry = " ".join(["planted==1.0", *(f"--hash=sha256:{digest}" for digest in digests)])
    lock.write_text(entries(lock.read_text(), ()) + entry + "\n")
    (ill.path / "requirements-dev.lock").write_text("# none\n")
    only_here = {"PIP_FIND_LINKS": str(tmp_path), "PIP_NO_INDEX": "1"}
    done = ill.run("make", "setup", f"VENV={tmp_path / 'new'}", **only_here)
    assert done.returncode == 2
    assert "No matching distribution found for planted==1.0" in done.stderr
    assert "it was run" not in done.stdout + done.stderr
    assert "nothing is changed" in done.stderr
    assert not (tmp_path / "new").exists()
