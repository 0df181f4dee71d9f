"""Run a command so that a fault of the user ends in one line, never in a traceback.

A fault raises `UserError`: what was found, what was expected, what to do. `run_command` prints the
lines on standard error and returns exit code 2. Anything else is a bug and keeps its traceback; its
exit code is 70, for 1 is a verdict of `compare`, `diff` and `verify`. A line that cannot be printed
gives another exit code, too: 2, or 141 where `| head` has read enough.
"""

from __future__ import annotations  # `make image-digest` runs with older Pythons, too

import argparse
import atexit
import errno
import os
import re
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from types import FrameType
from typing import NoReturn

from repro.core.container import remedy_of_permission
from repro.core.errors import SaidByCommand, UserError, reason_of
from repro.core.launch import is_first, is_one_of_several
from repro.core.memory import line_of_short_memory
from repro.core.said import tell_that_it_was_said
from repro.core.streams import discard, flush, open_closed_streams, print_any_text, say

BUG = 70  # os.EX_SOFTWARE: an internal software error
INTERRUPTED = "interrupted (a training goes on with resume=auto)"
# What a stream, which has no file's name, says where nothing more can be written.
_OF_WRITING = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF, errno.EROFS)
# What to do about faults that torch reports, by patterns of its messages.
_REMEDIES = {
    r"^DataLoader worker \(": "was memory short? fewer num_workers; in Docker a larger --shm-size",
    "more than 1 value per channel": "one sample for BatchNorm: other batch_size, drop_last=true",
}


class Parser(argparse.ArgumentParser):
    """Read the arguments of `python -m program`; its description keeps its lines of examples."""

    def __init__(self, prog: str, description: str | None = None) -> None:
        style = argparse.RawDescriptionHelpFormatter
        command = prog if prog.startswith("python") else f"python -m {prog}"
        super().__init__(command, description=description, formatter_class=style)

    def print_help(self, file: object = None) -> None:
        print(self.format_help(), end="")  # argparse's own takes no notice of a full disk

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; {self.prog} --help shows examples")


def run_command(command: Callable[[], int]) -> int:
    """Run a command's main function and return its exit code, faults printed as lines."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:  # repro/__init__.py
        signal.signal(signal.SIGINT, _interrupt)
    open_closed_streams()
    print_any_text()
    try:
        code = _run(command)
        flush()
    except (KeyboardInterrupt, Exception) as error:
        code = _report(error)
        _write_what_waits()
    if is_one_of_several():
        _leave(code)
    return code


def _leave(code: int) -> NoReturn:
    """End as Python does, but take nothing apart that libraries have in threads of their own.

    A thread of gloo's that lets go of a tensor meanwhile ends the process by SIGABRT: 2 of 22
    trainings with four processes of ddp, on a busy machine, ended so after they had saved all.
    """
    threading._shutdown()  # type: ignore[attr-defined]  # pools of threads end by it, then all
    atexit._run_exitfuncs()
    _write_what_waits()
    os._exit(code)


def _run(command: Callable[[], int]) -> int:
    """Run a command; one that has exited by itself, as after --help, has printed as well."""
    try:
        return command()
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return end.code or 0
        say(str(end.code))
        return 1


def _write_what_waits() -> None:
    """Print what a failed command has printed before, if that can be done."""
    try:
        flush()
    except (OSError, ValueError):
        discard(sys.stdout)


def _interrupt(signum: int, frame: FrameType | None) -> None:
    """Raise KeyboardInterrupt at Ctrl-C, but end at once while a module is imported.

    NumPy and PyTorch swallow an interrupt there, and go on with half a module.
    """
    while frame:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            if sys.stdout.isatty() and os.environ.get("TERM") != "dumb":
                os.write(1, b"\x1b[?25h")  # a progress bar hides the cursor
            os.write(2, f"{INTERRUPTED}\n".encode())
            os._exit(130)
        frame = frame.f_back
    raise KeyboardInterrupt


def _report(error: BaseException) -> int:
    """Say in a line what ended a command, and return its exit code; raise a bug again."""
    if _interrupted(error):
        say(INTERRUPTED)
        return 130
    fault = _with_remedy(error)
    if isinstance(fault, SaidByCommand):
        return 2
    if isinstance(fault, UserError):
        return _refuse(fault)
    if isinstance(fault, BrokenPipeError):  # `| head` has read enough
        discard(sys.stdout)
        return 141
    if isinstance(fault, OSError):
        place = fault.filename or _doing(fault)
        reason = fault.strerror or reason_of(fault)
        more = remedy_of_permission(fault.filename) if isinstance(fault, PermissionError) else ""
        say(f"error: {place}: {reason}{more}")
        tell_that_it_was_said()
        return 2
    say("".join(traceback.format_exception(type(error), error, error.__traceback__)).rstrip())
    return BUG


def _doing(fault: OSError) -> str:
    """Say what failed, for a fault of the system that names no file."""
    try:
        os.getcwd()
    except OSError:
        return "this folder was removed while this shell was in it; cd to another one"
    return "writing" if fault.errno in _OF_WRITING else type(fault).__name__


def _with_remedy(error: BaseException) -> BaseException:
    """Return a UserError for a fault that torch reports and that the user can mend."""
    if line := line_of_short_memory(error):
        return UserError(line)
    first_line = str(error).partition("\n")[0].strip()
    for pattern, remedy in _REMEDIES.items():
        if isinstance(error, (RuntimeError, ValueError)) and re.search(pattern, first_line):
            return UserError(f"{first_line}: {remedy}")
    return error


def _refuse(fault: UserError) -> int:
    """Print the lines of a fault and return its code; of several processes the first prints."""
    if not is_first():
        time.sleep(2)  # what all processes find, the first one says, and torchrun ends the rest
    from repro.core.redaction import redact_text  # only here: most commands find no fault

    for line in fault.lines:  # the log of a cluster's job is read by others, too
        say("error: " + redact_text(" ".join(line.splitlines())))
    tell_that_it_was_said()
    if is_one_of_several():  # at once: an ordinary end would wait for the other processes
        _write_what_waits()
        os._exit(fault.code)
    return fault.code


def _interrupted(error: BaseException | None) -> bool:
    """Whether Ctrl-C is the cause: what is interrupted half-way may raise errors of its own."""
    while error and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error is not None
