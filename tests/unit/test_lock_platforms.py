"""One lock for all platforms: which packages a machine needs, and who writes that into the lock."""

import re
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from packaging.markers import Marker
from packaging.requirements import Requirement
from repro.core import machines
from repro.core.errors import UserError
from repro.environment import mark_lock
from repro.environment.cuda import _other_versions
from repro.environment.lock_platforms import PLATFORMS, Machine, find_needs
from repro.environment.locks import not_as_locked, read_lock
from repro.environment.mark_lock import with_markers
from repro.environment.markers import is_needed
from repro.environment.requirements import read_requirements

HASH = f" \\\n    --hash=sha256:{'0' * 64}\n"
ON_LINUX = 'sys_platform == "linux"'
MACHINES = [Machine(platform, minor) for platform in PLATFORMS for minor in (11, 12, 13)]
ON_MACOS = 'sys_platform == "darwin"'


def machine_of(name: str) -> machines.ThisMachine:
    system, _, processor = PLATFORMS[name]
    return machines.ThisMachine(system, processor, "")


def pretend(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Let this process say that it is on that platform."""
    monkeypatch.setattr(machines, "this_machine", lambda: machine_of(name))


@pytest.mark.parametrize("name", PLATFORMS)
@pytest.mark.parametrize(
    "marker",
    [
        ON_LINUX,
        "sys_platform!='linux'",
        'platform_system == "Darwin" and platform_machine == "arm64"',
        'sys_platform == "darwin" or sys_platform == "linux" and platform_machine == "aarch64"',
        'python_version >= "3.9" and os_name == "posix"',
        'python_version < "3.11" or python_version > "3.10"',
        'python_version == "3.8"',
    ],
)
def test_a_marker_means_what_pip_takes_it_for(name: str, marker: str) -> None:
    environment = Machine(name, sys.version_info.minor).environment()
    assert is_needed(marker, machine_of(name)) is Marker(marker).evaluate(environment)


@pytest.mark.parametrize(
    "marker",
    [
        '(sys_platform == "linux")',
        'platform_release >= "6"',
        'sys_platform in "linux darwin"',
        'sys_platform >= "linux"',
        f"{ON_LINUX} or linux",
        f"{ON_LINUX} and ",
        "linux",
    ],
)
def test_a_marker_of_another_form_is_a_fault_of_the_lock(tmp_path: Path, marker: str) -> None:
    """A guess would hide that a package is missing."""
    with pytest.raises(ValueError, match="expected comparisons"):
        is_needed(marker, machines.this_machine())
    path = tmp_path / "requirements.lock"
    path.write_text(f"one==1.0 ; {marker.strip()}{HASH}")
    (fault,) = read_lock(path).faults
    assert fault.startswith(f"requirements.lock:1: found the marker {marker.strip()!r}, expected ")
    assert read_lock(path).needed


def test_what_a_lock_has_for_other_platforms_is_no_difference(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "requirements.lock"
    path.write_text(f"absent==1.0 ; {ON_MACOS}{HASH}missing==1.0 ; {ON_LINUX}{HASH}")
    assert not read_lock(path).faults
    assert not_as_locked(path) == {"missing": "not installed (lock: 1.0)"}
    pretend(monkeypatch, "macOS arm64")
    assert not_as_locked(path) == {"absent": "not installed (lock: 1.0)"}


# Who needs a package ------------------------------------------------------------------------------

# As torch asks: for most of CUDA through an extra, and on Linux alone.
ASKED = {
    "torch": [
        'toolkit[blas]==13.0; platform_system == "Linux"',
        'triton; platform_system == "Linux" and python_version < "3.15"',
        "numpy",
        'windows-only; sys_platform == "win32"',
    ],
    "toolkit": ['blas>=13; extra == "blas"', 'fft; extra == "fft"'],
    "blas": ["link"],
    "link": [],
    "fft": [],
    "triton": ["setuptools"],
    "setuptools": [],
    "numpy": [],
    "alchemy": ['greenlet; platform_machine == "x86_64" or platform_machine == "aarch64"'],
    "greenlet": [],
    "fast": ['mkl; platform_machine == "x86_64"', 'acl; platform_machine == "aarch64"'],
    "mkl": [],
    "acl": [],
    "notebook": ['appnope; sys_platform == "darwin"'],
    "old": ['backport; python_version < "3.12"'],
    "backport": [],
}


def asked(texts: list[str]) -> list[Requirement]:
    return [Requirement(text) for text in texts]


def requires(name: str) -> list[Requirement] | None:
    return asked(ASKED[name]) if name in ASKED else None


def markers(*wanted: str) -> dict[str, str | None]:
    needs = find_needs(asked([*wanted]), requires, MACHINES)
    return {name: needs.marker(name, "") for name in needs.machines}


def test_what_only_marked_requirements_bring_gets_their_marker() -> None:
    cuda = dict.fromkeys(("toolkit", "blas", "link", "triton", "setuptools"), ON_LINUX)
    assert markers("torch") == {"torch": "", "numpy": "", **cuda}
    assert markers("torch", "setuptools") == {**markers("torch"), "setuptools": ""}
    assert markers("alchemy") == {"alchemy": "", "greenlet": ON_LINUX}
    # A lock serves all Pythons: one too many does no harm.
    assert markers("old") == {"old": "", "backport": ""}


def test_one_processor_alone_has_its_marker_and_macos_alone_has_none() -> None:
    processor = ON_LINUX + ' and platform_machine == "{}"'
    only = {"mkl": processor.format("x86_64"), "acl": processor.format("aarch64")}
    assert markers("fast") == {"fast": "", **only}
    assert markers("notebook") == {"notebook": "", "appnope": None}
    needs = find_needs(asked(["notebook"]), requires, MACHINES)
    assert (needs.unknown, needs.asked_by["appnope"]) == ({"macOS arm64"}, "notebook")


def test_the_authors_own_marker_stays_where_it_says_enough() -> None:
    own = 'python_version < "3.13"'
    needs = find_needs(asked([f"numpy; {own}"]), requires, MACHINES)
    assert needs.marker("numpy", own) == own
    assert needs.marker("numpy", 'python_version < "3.12"') == ""
    own = f'{ON_LINUX} and python_version < "3.13"'
    needs = find_needs(asked([f"triton; {own}", "torch"]), requires, MACHINES)
    assert needs.marker("triton", own) == ON_LINUX


# The lock that is written -------------------------------------------------------------------------


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a lock, and what pip-compile made anew for it; pip says what ASKED says."""
    (tmp_path / "pyproject.toml").write_text('requires-python = ">=3.11,<3.14"\n')
    (tmp_path / "requirements.lock").write_text("old\n")
    monkeypatch.setattr(
        mark_lock,
        "_read_metadata",
        lambda packages, options: {
            name.partition("==")[0]: ASKED[name.partition("==")[0]] for name in packages
        },
    )
    return tmp_path


def compiled(root: Path, wanted: str, *names: str) -> str:
    """Write the .in file, and what pip-compile makes of it; run the command; return its lock."""
    (root / "requirements.in").write_text(wanted)
    pins = [re.sub(r"^([a-z-]+)", r"\1==1.0", name) for name in names]
    text = "".join(f"{pin}{HASH}    # via torch\n" for pin in pins)
    (root / "requirements.unmarked").write_text(text)
    mark_lock.mark_lock(root, "requirements", [])
    return (root / "requirements.lock").read_text()


def test_a_lock_has_markers_before_its_hashes_and_is_else_as_pip_compile_made_it(
    root: Path,
) -> None:
    lock = compiled(
        root, "torch\n", *("blas", "link", "numpy", "setuptools", "toolkit", "torch", "triton")
    )
    assert f"\nlink==1.0 ; {ON_LINUX}{HASH}    # via torch\n" in lock
    assert f"\nnumpy==1.0{HASH}    # via torch\n" in lock
    assert lock.count(" ; ") == 5
    assert not (root / "requirements.unmarked").exists()
    pins, faults = read_lock(root / "requirements.lock")
    assert not faults
    needs = find_needs(asked(["torch"]), requires, MACHINES)
    assert with_markers(lock, pins, needs) == lock  # once more changes nothing


@pytest.mark.parametrize(
    ("wanted", "names", "words"),
    [
        ("notebook", ["notebook"], r"notebook needs appnope on macOS arm64, .* to requirements.in"),
        ("numpy", ["numpy", "link"], r":4: link is needed on none of Linux x86-64, "),
        ("numpy\n-r more.in", ["numpy"], "requirements.in:2: found no file more.in"),
        ("numpy\n-e .", ["numpy"], "requirements.in:2: found '-e .', expected a package"),
        ("numpy; (os_name != 'nt')", ["numpy ; (os_name != 'nt')"], "found the marker"),
        ("numpy=1", ["numpy"], "found 'numpy=1', expected"),
    ],
)
def test_what_cannot_be_placed_is_refused_and_the_lock_stays(
    root: Path, wanted: str, names: list[str], words: str
) -> None:
    with pytest.raises(UserError, match=words):
        compiled(root, wanted, *names)
    assert (root / "requirements.lock").read_text() == "old\n"


def test_the_index_of_pip_compile_is_pips_too() -> None:
    options = ["--upgrade", "-i", "https://one", "--find-links=here", "-P", "torch", "--no-header"]
    assert mark_lock._sources(options) == ["--index-url=https://one", "--find-links=here"]


def test_a_file_that_is_named_with_r_asks_too(tmp_path: Path) -> None:
    (tmp_path / "requirements.in").write_text("-c other.lock\nnumpy\n-r base/more.in # these too\n")
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "more.in").write_text("torch\n--requirement=../requirements.in\n")
    wanted = read_requirements(tmp_path / "requirements.in")
    assert [(asked.place, asked.text) for asked in wanted.asked] == [
        ("requirements.in:2", "numpy"),
        ("more.in:1", "torch"),
    ]
    assert not wanted.faults


def test_a_project_may_be_for_some_platforms_only(root: Path) -> None:
    """What only others need is then not asked for, and what all of these need has no marker."""
    with (root / "pyproject.toml").open("a") as file:
        file.write('[tool.repro]\nplatforms = "Linux x86-64, Linux aarch64"\n')
    assert ";" not in compiled(root, "triton\nnotebook\n", "notebook", "setuptools", "triton")
    (root / "pyproject.toml").write_text('platforms = "Linux x86-64, Windows"\n')
    with pytest.raises(
        UserError, match=r"found the platforms Linux x86-64, Windows, expected some"
    ):
        compiled(root, "numpy", "numpy")


def test_a_library_that_the_lock_has_for_other_platforms_is_not_compared(tmp_path: Path) -> None:
    path = tmp_path / "requirements.lock"
    cuda = "nvidia-cuda-runtime==12.8.90 ; {}" + HASH
    version = SimpleNamespace(cuda="13.0")
    backends = SimpleNamespace(cudnn=SimpleNamespace(version=lambda: None))
    torch = SimpleNamespace(
        __file__="/nowhere/torch/__init__.py", version=version, backends=backends
    )
    path.write_text(cuda.format(ON_MACOS))
    assert _other_versions(path, torch) == []
    path.write_text(cuda.format(ON_LINUX))
    assert len(_other_versions(path, torch)) == 1
