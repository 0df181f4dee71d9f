"""A command that has said itself why it failed: who started it adds no second line."""

import sys
from pathlib import Path

import pytest
from repro.core import project
from repro.core.command import run_command
from repro.core.errors import SaidByCommand, UserError

REFUSING = """
import sys
from repro.core.command import run_command
from repro.core.errors import UserError

def refuse():
    raise UserError("what was found: what to do")

sys.exit(run_command(refuse))
"""


def end_of(root: Path, code: str) -> UserError:
    (root / "pyproject.toml").write_text('[tool.repro]\ntrain = "mine:train"\n')
    (root / "mine.py").write_text(code)
    with pytest.raises(UserError) as ended:
        project.run_author_command(root, "train", ["seed=1"], capture=True)
    return ended.value


def test_a_line_of_a_command_is_not_followed_by_another(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", ":".join(sys.path))
    ended = end_of(tmp_path, REFUSING)
    assert isinstance(ended, SaidByCommand)
    assert ended.lines == ["python -m mine seed=1 ended with 2"]  # for a list of faults

    def fail() -> int:
        raise ended

    assert run_command(fail) == 2
    assert capfd.readouterr().err == "error: what was found: what to do\n"


def test_a_command_that_ends_without_a_word_is_named(tmp_path: Path) -> None:
    ended = end_of(tmp_path, "import sys\nsys.exit(2)\n")
    assert not isinstance(ended, SaidByCommand)
    assert ended.lines == ["python -m mine seed=1 ended with 2"]
