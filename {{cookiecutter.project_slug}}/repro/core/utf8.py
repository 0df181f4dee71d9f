"""Start a command anew where Python takes the names of files for another encoding than UTF-8.

With a locale such as de_DE.ISO-8859-1, or LC_ALL=C and PYTHONUTF8=0, the name of a file with an
umlaut would be another text than elsewhere: in the conditions of a run, too. What is printed keeps
the encoding that the user's terminal has.
"""

import os
import signal
import sys

_OPTION = ["-X", "utf8=1"]  # of several, Python takes the first


def read_names_as_utf8() -> None:
    """Start this command anew in Python's UTF-8 mode, unless names are read as UTF-8 already."""
    if sys.getfilesystemencoding() == "utf-8" or sys.orig_argv[1:3] == _OPTION:
        return
    encoding = getattr(sys.stdout, "encoding", "utf-8")
    environ = {"PYTHONIOENCODING": encoding, **os.environ}
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # as in environment/profile.py
    os.execve(sys.executable, [sys.executable, *_OPTION, *sys.orig_argv[1:]], environ)
