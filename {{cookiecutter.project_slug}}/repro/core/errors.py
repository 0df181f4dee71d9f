"""Faults that the user can mend, one line each: what was found, what was expected, what to do.

Whoever finds a fault raises `UserError`; `command.run_command` prints its lines and returns exit
code 2. Any other exception is a bug and keeps its traceback.
"""

from __future__ import annotations  # `make image-digest` runs with older Pythons, too

from collections.abc import Iterable

SHOWN = 20  # faults of files, one line each; more are counted


def refuse(faults: list[str], unlisted: int = 0) -> None:
    """Raise UserError if there are faults: the first SHOWN of them, and how many more there are.

    `unlisted`: how many there are that `faults` does not hold.
    """
    if faults:
        rest = len(faults[SHOWN:]) + unlisted
        raise UserError([*faults[:SHOWN], *([f"... and {rest} more"] if rest else [])])


def reason_of(error: BaseException, longest: int | None = None) -> str:
    """Return what an exception says, on one line of at most `longest` characters.

    The name of its type where it says nothing.
    """
    return (" ".join(str(error).split()) or type(error).__name__)[:longest]


class UserError(Exception):
    """Faults that the user can mend, one line each; `code` is the exit code."""

    code = 2  # 1 would be a verdict

    def __init__(self, lines: str | Iterable[str]) -> None:
        self.lines = [lines] if isinstance(lines, str) else list(lines)
        super().__init__("\n".join(self.lines))


class SaidByCommand(UserError):
    """A command that another one has started ended in lines of its own, which the user has read.

    Its `lines` say which command that was, for whoever lists faults. `run_command` adds nothing.
    """
