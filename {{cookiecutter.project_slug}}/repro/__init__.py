"""The kit: what makes a training reproducible, and proves it.

It knows no model and no data set, and imports nothing of `experiment/`. Its packages import one
way; read them in this order: core, environment, data, training, runs, tracking, diagnosis, results,
tasks.
"""

import signal
import sys

# Ctrl-C is blocked in a process that was started anew (repro/environment/profile.py): the mask of
# signals outlives that start. It is let through once its answer is known.
_INTERRUPTS = {signal.SIGINT}

# sys.argv[0] is "-m" while `python -m` looks for a module: a command starts. What goes wrong before
# `run_command` can say it in a line must not show a traceback either.
if sys.argv[:1] == ["-m"]:
    if sys.version_info < (3, 9):  # noqa: UP036  # `make image-digest` may find any Python
        old = f"error: {sys.executable} is older than Python 3.9: run make setup first"
        print(old, file=sys.stderr)
        sys.exit(2)  # 1 would be a verdict
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _INTERRUPTS)
    from importlib.util import find_spec  # after that: it takes a while

    from repro.core.streams import open_closed_streams, say

    open_closed_streams()

    # These need no package: the doctor names what is missing, the others do without.
    bare = sys.argv[1:2] in (["doctor"], ["image-digest"], ["mark-lock"], ["migrate"])
    if not bare and not (find_spec("hydra") and find_spec("torch")):
        reason = "lacks the project's packages: run make setup, then use .venv/bin/python"
        if sys.flags.no_site:
            reason = "was started with -S, which leaves its packages out: leave out -S"
        say(f"error: {sys.executable} {reason}")
        sys.exit(2)  # 1 would be a verdict
elif "--multiprocessing-fork" not in getattr(sys, "orig_argv", ()):
    # A data worker that was started anew (training/workers.py) keeps it blocked: who started it
    # ends it.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _INTERRUPTS)

if sys.version_info >= (3, 11):  # noqa: UP036  # `make image-digest` may find an older one
    from pathlib import Path

    from repro.core.checked_code import check_by_hash
    from repro.core.utf8 import read_names_as_utf8

    if sys.argv[:1] == ["-m"]:
        read_names_as_utf8()
    check_by_hash(Path(__file__).parent.parent)
