"""Named pipes, sockets and devices among data, code and settings: named, not read."""

import os
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import HANGS, open_to_all
from hydra.core.override_parser.overrides_parser import OverridesParser
from repro.core.errors import UserError
from repro.core.files import read_object
from repro.core.hashing import sha256_file
from repro.data.manifest import files_below, tree_digests
from repro.environment.profile import guess_profile
from repro.results.claims import read_claims
from repro.runs.code_files import code_files
from repro.runs.conditions import conditions_on_disk
from repro.runs.configuration import Loader


def a_socket(path: Path) -> None:
    folder = os.open(path.parent, os.O_RDONLY)  # for a name of more than 107 bytes
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(f"/proc/self/fd/{folder}/{path.name}")
    os.close(folder)


def a_device(path: Path) -> None:
    try:
        os.mknod(path, 0o20644, os.makedev(1, 5))  # as /dev/zero, which never ends
    except PermissionError:
        path.symlink_to("/dev/zero")


def a_link(path: Path) -> None:
    pipe = path.with_name(f".{path.name}.hidden")
    os.mkfifo(pipe)
    path.symlink_to(pipe)


KINDS: dict[str, tuple[Callable[[Path], object], str]] = {
    "pipe": (os.mkfifo, "is a named pipe"),
    "socket": (a_socket, "is a socket"),
    "device": (a_device, "is a device"),
    "link": (a_link, "is a named pipe"),
    "link to a device": (lambda path: path.symlink_to("/dev/zero"), "is a device"),
}


@pytest.fixture(autouse=True)
def _no_waiting_for_ever() -> Iterator[None]:
    """A test that waits for a pipe fails, and does not hang."""

    def give_up(*_: object) -> None:
        raise TimeoutError("it waits")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(HANGS)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_file_among_data_is_named(tmp_path: Path, kind: str) -> None:
    make, told = KINDS[kind]
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "1.png").write_bytes(b"1")
    make(tmp_path / "cat" / "2.png")
    for read in (files_below, tree_digests):
        with pytest.raises(UserError, match=f"2.png {told}: expected a file; move it away"):
            read(tmp_path)
    with pytest.raises(UserError, match=told):
        sha256_file(tmp_path / "cat" / "2.png")
    assert read_object(tmp_path / "cat" / "2.png") == {}


def test_all_that_is_no_file_is_named_at_once(tmp_path: Path) -> None:
    for name in "ab":
        os.mkfifo(tmp_path / name)
    (tmp_path / "c").symlink_to("nowhere")
    (tmp_path / "d").symlink_to("d")
    os.mkfifo(tmp_path / ".hidden")
    with pytest.raises(UserError) as caught:
        files_below(tmp_path)
    assert [Path(line.split(" is ")[0]).name for line in caught.value.lines] == [*"abcd"]
    assert "c is a link that leads nowhere" in caught.value.lines[2]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "name", ["experiment/x.py", "experiment/notes", "repro/x.sock", "configs/x/y.yaml", "tool.py"]
)
def test_what_is_no_file_among_code_is_named(tmp_path: Path, kind: str, name: str) -> None:
    make, told = KINDS[kind]
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    make(tmp_path / name)
    for read in (code_files, conditions_on_disk):
        with pytest.raises(UserError, match=f"{name} {told}"):
            read(tmp_path)


def test_what_is_no_file_beside_the_code_disturbs_nothing(tmp_path: Path) -> None:
    for name in ("experiment/.socket", "runs/x.py", "data/x.py", "x.sock"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        os.mkfifo(tmp_path / name)
    (tmp_path / "experiment" / "gone.py").symlink_to("nowhere")  # an editor's lock, and no code
    assert code_files(tmp_path) == []


@pytest.mark.parametrize("name", ["config.yaml", "model/x.yaml", "claims.yaml"])
def test_a_pipe_among_the_settings_is_named_before_they_are_read(tmp_path: Path, name: str) -> None:
    configs = tmp_path / "configs"
    (configs / name).parent.mkdir(parents=True)
    os.mkfifo(configs / name)
    with pytest.raises(UserError, match=f"{name} is a named pipe"):
        Loader(dict, configs).load([])  # type: ignore[type-var]
    if name == "config.yaml":
        with pytest.raises(UserError, match="is a named pipe"):
            guess_profile(tmp_path, [])
    if name == "claims.yaml":
        (tmp_path / "pyproject.toml").write_text('[tool.repro]\nclaims = "configs/claims.yaml"\n')
        with pytest.raises(UserError, match="is a named pipe"):
            read_claims(tmp_path)


def test_a_folder_of_code_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    for name in ("experiment/closed", "lost+found"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name).chmod(0)
    open_to_all(tmp_path)
    user = os.geteuid()
    if user == 0:  # root may read everything
        os.seteuid(65534)
    try:
        with pytest.raises(PermissionError, match="closed"):
            code_files(tmp_path)
    finally:
        os.seteuid(user)
    (tmp_path / "experiment" / "closed").rmdir()
    if user == 0:
        os.seteuid(65534)
    try:
        assert code_files(tmp_path) == []  # what else is closed is no code
    finally:
        os.seteuid(user)
        (tmp_path / "lost+found").chmod(0o755)


@pytest.mark.parametrize(
    "path", ["/a/b\\c/d", '/a/"x" y/d', '/a\\"b', "/a/b\\", "/a/b\\\\", "/ü x/'q'"]
)
def test_a_path_of_any_signs_reaches_a_setting_as_it_is(path: str) -> None:
    """Hydra's grammar takes backslashes as they are, but for those before a quotation mark."""
    quoted = Loader(dict, Path("configs"), ("run_dir",))._quoted(f"run_dir={path}")  # type: ignore[type-var]
    assert OverridesParser.create().parse_override(quoted).value() == path
