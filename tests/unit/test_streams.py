"""What a command prints to, and how it ends where that is closed, full, broken or ASCII alone."""

import errno
import io
import os
import subprocess
import sys
from collections.abc import Callable

import bootstrap
import pytest
from conftest import TEMPLATE, clean_environ
from repro.core.command import BUG, Parser, run_command
from repro.core.errors import UserError
from repro.runs.console import Console

SEVERAL = "above 8192 characters: a stream keeps fewer back" * 300


class Failing(io.RawIOBase):
    """A file that takes nothing, as /dev/full or a pipe that nobody reads."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        raise OSError(self.number, os.strerror(self.number))


def text_stream(raw: io.RawIOBase | io.BytesIO, encoding: str = "utf-8") -> io.TextIOWrapper:
    buffered = io.BufferedWriter(raw) if isinstance(raw, io.RawIOBase) else raw
    return io.TextIOWrapper(buffered, encoding=encoding)


def says(*words: str) -> Callable[[], int]:
    """A command that prints, and ends with the code that means other bits."""

    def command() -> int:
        print(*words)
        return 1

    return command


def told_by_rich() -> int:
    Console().print("a table")
    return 1


def helped() -> int:
    Parser("repro").parse_args(["--help"])
    return 1


@pytest.mark.parametrize("command", [says("short"), says(SEVERAL), told_by_rich, helped])
@pytest.mark.parametrize(("number", "code"), [(errno.ENOSPC, 2), (errno.EPIPE, 141)])
def test_output_that_cannot_be_written_is_no_verdict(
    monkeypatch: pytest.MonkeyPatch, command: Callable[[], int], number: int, code: int
) -> None:
    """Nor at Python's own end, which would add lines and end with 120."""
    errors = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", text_stream(Failing(number)))
    monkeypatch.setattr(sys, "stderr", text_stream(errors))
    assert run_command(command) == code
    expected = b"error: writing: No space left on device\n" if code == 2 else b""
    assert errors.getvalue() == expected


def test_what_is_printed_before_a_fault_is_written(capsys: pytest.CaptureFixture[str]) -> None:
    def refused() -> int:
        print("before")
        raise UserError("a fault")

    assert run_command(refused) == 2
    assert capsys.readouterr() == ("before\n", "error: a fault\n")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EPIPE])
def test_a_fault_that_cannot_be_told_keeps_its_code(
    monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refused() -> int:
        raise UserError("a fault")

    monkeypatch.setattr(sys, "stderr", text_stream(Failing(number)))
    assert run_command(refused) == 2


def test_a_bug_keeps_its_traceback_and_is_no_verdict(capsys: pytest.CaptureFixture[str]) -> None:
    def wrong() -> int:
        return 1 // 0

    assert run_command(wrong) == BUG == 70
    assert "ZeroDivisionError" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    ("encoding", "expected"),
    [
        ("ascii", b"0.5 +- 0.1, a... n\\xe4me \\u20ac \\udcff\n"),
        ("latin-1", "0.5 ± 0.1, a... näme \\u20ac \\udcff\n".encode("latin-1")),
        ("utf-8", "0.5 ± 0.1, a… näme € \\udcff\n".encode()),
    ],
)
def test_any_text_can_be_printed_in_any_encoding(
    monkeypatch: pytest.MonkeyPatch, encoding: str, expected: bytes
) -> None:
    """Also the name of a file that is no UTF-8, which Python holds as a lone surrogate."""
    output = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", text_stream(output, encoding))
    assert run_command(says("0.5 ± 0.1, a… näme € \udcff")) == 1
    assert output.getvalue() == expected


@pytest.mark.parametrize(
    "variables",
    [{"FORCE_COLOR": "1"}, {"TTY_COMPATIBLE": "1"}, {"COLUMNS": "1"}, {"COLUMNS": "x"}, {}],
)
def test_escapes_are_for_terminals_alone(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    variables: dict[str, str],
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    Console().print("[bold]a title of several words[/]")
    assert capsys.readouterr().out == "a title of several words\n"


CLOSED = """
import os, sys
sys.path.insert(0, {path!r})
from repro.core.command import run_command
def main():
    with open(sys.argv[1], "wb") as file:
        print("printed"); os.system("echo printed by another process; echo so >&2")
        file.write(b"bytes of a run")
    return 0 if min(os.fstat(n).st_ino for n in range(3)) else 3
sys.exit(run_command(main))
"""


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_a_file_never_takes_the_place_of_a_closed_stream(
    tmp_path: os.PathLike[str], closed: str
) -> None:
    """What another process prints would get into a checkpoint."""
    file = os.path.join(tmp_path, "file")
    words = [sys.executable, "-c", CLOSED.format(path=str(TEMPLATE)), file]
    command = ["sh", "-c", f'"$@" {closed}', "sh", *words]
    done = subprocess.run(command, env=clean_environ(), capture_output=True)
    assert done.returncode == 0, done.stderr
    with open(file, "rb") as read:
        assert read.read() == b"bytes of a run"


@pytest.mark.parametrize(
    ("redirection", "code"), [(">&- 2>&-", 0), ("2>/dev/full", 0), ("| true", 0), (">/dev/full", 2)]
)
def test_setup_needs_nobody_who_reads(redirection: str, code: int) -> None:
    """Its progress may be lost; the path that --check prints is its answer."""
    words = [sys.executable, "-I", str(TEMPLATE / "bootstrap.py"), "--check"]
    done = subprocess.run(
        ["sh", "-c", f'"$@" {redirection}', "sh", *words], capture_output=True, text=True
    )
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EPIPE])
def test_setup_goes_on_when_nobody_reads(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """A failure to print would take away the environment that it is making."""
    monkeypatch.setattr(sys, "stdout", text_stream(Failing(number)))
    bootstrap.show("unpacking")
    monkeypatch.setattr(sys, "stdout", None)
    bootstrap.show("unpacking")
    output = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", text_stream(output, "ascii"))
    bootstrap.show("in a folder näme")
    assert output.getvalue() == b"setup: in a folder n\\xe4me\n"


def test_a_file_of_the_tracker_names_its_module() -> None:
    """Only projects with a tracker have it; the other commands: tests/project/test_shells.py."""
    for file in ("repro/tracking/__main__.py", "repro/tracking"):
        words = [sys.executable, str(TEMPLATE / file), "runs/latest"]
        done = subprocess.run(words, env=clean_environ(), capture_output=True, text=True)
        assert done.returncode == 2
        line = "error: started as a file: expected python -m repro.tracking\n"
        assert (done.stdout, done.stderr) == ("", line)
