"""What a container of the image says of runs that go with it, by what the kernel says of mounts."""

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import TEMPLATE
from repro.core import container
from repro.core.command import run_command
from repro.core.errors import UserError
from repro.tasks import commands

HEX = "0123456789abcdef" * 4
ROOT_LINE = "700 600 0:50 / / rw,relatime master:1 - overlay overlay rw,lowerdir=/var/lib"
AT = "800 700 254:1 {root} {at} {options} master:1 - {kind} /dev/vda1 rw"
LOST = {
    "nothing": "",
    "anonymous": f"/var/lib/docker/volumes/{HEX}/_data",
    "anonymous, a disk of docker's own": f"/volumes/{HEX}/_data",
    "podman": f"/home/me/.local/share/containers/storage/volumes/{HEX}/_data",
    "pod": "/var/lib/kubelet/pods/1-2/volumes/kubernetes.io~empty-dir/runs",
}
KEPT = {
    "folder": "/home/me/project/runs",
    "named": "/var/lib/docker/volumes/runs/_data",
    "named like a digest": f"/home/{HEX}",
    "whole disk": "/",
}


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of runs in a container of the image, on a path with a space."""
    monkeypatch.setenv(container.MARK, "1")
    folder = tmp_path.resolve() / "my work" / "runs"
    folder.mkdir(parents=True)
    mounted(monkeypatch, tmp_path, folder, "")
    return folder


def mounted(
    monkeypatch: pytest.MonkeyPatch,
    place: Path,
    folder: Path,
    root: str,
    options: str = "rw",
    kind: str = "ext4",
) -> None:
    """Let the kernel say that `root` of a disk is mounted at the folder."""
    at = str(folder).replace(" ", r"\040")
    line = AT.format(root=root, at=at, options=options, kind=kind) if root else ""
    table = place / "mountinfo"
    table.write_text(f"{ROOT_LINE}\n{line}\n801 700 0:9 / /proc rw - proc proc rw\n")
    monkeypatch.setattr(container, "_MOUNTS", table)


@pytest.mark.parametrize("kind", LOST)
def test_runs_that_go_with_the_container_are_told(
    runs: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: str
) -> None:
    mounted(monkeypatch, tmp_path, runs, LOST[kind])
    for folder in (runs, runs / "a" / "not there yet"):
        told = container.fault_of_keeping(folder) or ""
        assert "kept only with a mount or a named volume" in told
        assert '--volume "$PWD/runs:/work/runs"' in told
    monkeypatch.delenv(container.MARK)
    assert container.fault_of_keeping(runs) is None  # it is no container of the image


def test_runs_in_memory_are_told(
    runs: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    mounted(monkeypatch, tmp_path, runs, "/", kind="tmpfs")
    assert "in memory" in (container.fault_of_keeping(runs) or "")


@pytest.mark.parametrize("kind", KEPT)
def test_runs_in_a_mount_or_a_named_volume_are_not_told(
    runs: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: str
) -> None:
    for place in (runs, runs.parent):
        mounted(monkeypatch, tmp_path, place, KEPT[kind])
        assert container.fault_of_keeping(runs / "a") is None


def test_a_mount_over_a_mount_counts(
    runs: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    mounted(monkeypatch, tmp_path, runs, LOST["anonymous"])
    table = tmp_path / "mountinfo"
    over = AT.format(root="/mine", at=str(runs).replace(" ", r"\040"), options="rw", kind="ext4")
    table.write_text(table.read_text() + over + "\n")
    assert container.fault_of_keeping(runs) is None


def test_a_kernel_that_tells_nothing_is_believed(
    runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(container, "_MOUNTS", runs / "nowhere")
    assert container.fault_of_keeping(runs) is None


class Denied:
    """os.access and os.stat of a folder that another user has."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path, owner: int) -> None:
        monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != folder)
        stat = Path.stat
        other = SimpleNamespace(st_uid=owner, st_gid=owner, st_mode=0o40755)
        monkeypatch.setattr(
            Path, "stat", lambda self, **more: other if self == folder else stat(self, **more)
        )


@pytest.mark.parametrize(
    ("owner", "remedy"), [(1000, "start it with --user 1000:1000"), (0, 'sudo chown "$(id -u)')]
)
def test_a_folder_of_another_owner_is_told_with_the_remedy(
    runs: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any, owner: int, remedy: str
) -> None:
    Denied(monkeypatch, runs, owner)
    told = container.fault_of_writing(runs / "a" / "b") or ""
    assert f"it is of user {owner}:{owner}, and this container is {os.geteuid()}" in told
    assert remedy in told

    def denied() -> int:  # as where the data are written
        raise PermissionError(13, "Permission denied", str(runs / "digits"))

    assert run_command(denied) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {runs}/digits: Permission denied: it is of user")
    assert remedy in line
    monkeypatch.delenv(container.MARK)
    run_command(denied)
    assert "--user" not in capsys.readouterr().err
    assert container.fault_of_writing(runs) is None


def test_a_folder_that_is_mounted_read_only_is_told(
    runs: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    mounted(monkeypatch, tmp_path, runs, "/mine", options="ro,relatime")
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert "mounted read-only: leave out its :ro" in (container.fault_of_writing(runs) or "")
    (tmp_path / "mountinfo").write_text(ROOT_LINE.replace("rw,", "ro,", 1))
    assert "read-only in this container: mount" in (container.fault_of_writing(runs) or "")


def test_a_training_says_before_and_after_what_is_lost(
    runs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("REPRO_GIT_COMMIT", "")
    root = runs.parent
    config = SimpleNamespace(run_dir=None)
    commands._say_what_a_container_keeps(root, config)
    lost, commit = capsys.readouterr().out.splitlines()
    assert lost.startswith(f"warning: {runs} is of this container alone")
    assert commit.startswith("warning: this image was built without its commit")
    run = SimpleNamespace(folder=runs / "digits" / "1")
    session: Any = SimpleNamespace(
        run=run, start=None, finished="steps", was_asked=False, bits="0", step=1, root=root
    )
    commands._say_what_came(session, "0")
    assert capsys.readouterr().out.splitlines()[-1].startswith(f"warning: {run.folder} is of this")
    monkeypatch.setenv("REPRO_GIT_COMMIT", "a" * 40)
    config.run_dir = "runs/verify/1"  # its verdict is printed
    commands._say_what_a_container_keeps(root, config)
    assert not capsys.readouterr().out
    Denied(monkeypatch, runs, 1000)
    with pytest.raises(UserError, match="--user 1000:1000"):
        commands._say_what_a_container_keeps(root, config)


def test_the_image_marks_its_containers() -> None:
    assert f'ENV {container.MARK}="1"' in (TEMPLATE / "Dockerfile").read_text()
