"""The streams of a command: open, and able to print any text.

A shell may close them (`>&-`), and a locale may know ASCII alone. Promises that descriptors 0 to 2
are open, so that no file of a run gets one of their numbers; and that a character which the stream
lacks is printed as an escape. Whether a line could be printed never decides a verdict: see
command.py.
"""

from __future__ import annotations  # `make image-digest` runs with older Pythons, too

import codecs
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TextIO

_HANDLER = "repro.plain"
_PLAIN = {"±": "+-", "…": "..."}  # the kit's own; for others Python's escapes do


def open_closed_streams() -> None:
    """Open /dev/null in the place of each of the three streams that is closed."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free, which is this
            os.set_inheritable(number, True)
    sys.stdin = sys.stdin or os.fdopen(0, "r", encoding="utf-8", closefd=False)
    sys.stdout = sys.stdout or os.fdopen(1, "w", encoding="utf-8", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", encoding="utf-8", closefd=False)


def print_any_text() -> None:
    """Let both outputs print what their encoding lacks, such as a file's name that is no UTF-8."""
    codecs.register_error(_HANDLER, _in_plain_characters)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_HANDLER)


def _in_plain_characters(error: UnicodeError) -> tuple[str, int]:
    """Replace what cannot be encoded, as `codecs.register_error` asks for."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    plain = [_PLAIN.get(c) or c.encode("ascii", "backslashreplace").decode() for c in text]
    return "".join(plain), error.end


def say(line: str) -> None:
    """Print a line on standard error, if it can be printed: an exit code follows in any case."""
    try:
        print(line, file=sys.stderr, flush=True)
    except (OSError, ValueError):
        discard(sys.stderr)


def flush() -> None:
    """Write what was printed, while a failure can be told: at Python's end it would be code 120."""
    sys.stdout.flush()


@contextmanager
def printing_aside() -> Iterator[None]:
    """Let what is printed meanwhile, also by programs that are started, go to standard error."""
    flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        try:
            flush()
        finally:
            os.dup2(kept, 1)
            os.close(kept)


def discard(stream: TextIO) -> None:
    """Let a stream that takes nothing any more write to /dev/null, its waiting text included."""
    with suppress(OSError, ValueError):  # ValueError: it is none of the system's, as in a notebook
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, stream.fileno())
        os.close(nothing)
