"""Pass on what asks a command to end, while it waits for another command that it has started.

A cluster, `kill` and a container's end send SIGTERM to one process. Without this module that
process ends alone, and the training that it started goes on without anyone who waits for it. SIGHUP
to one process is taken for the same; a terminal that closes sends it to all of them, which ends the
training at once. SIGKILL cannot be passed on.
"""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from subprocess import Popen
from types import FrameType
from typing import Any

from repro.core.errors import UserError

TRY_AGAIN = 75  # os.EX_TEMPFAIL: a training that SIGTERM ended has saved its last step


class Stopped(UserError):
    """A command was asked to end, and has ended what it had started."""

    code = TRY_AGAIN


class Stopping:
    """What asked this command to end while it waited; `asked` is the signal's name, or ""."""

    def __init__(self) -> None:
        self.asked = ""
        self._started: Popen[Any] | None = None

    def pass_on_to(self, started: "Popen[Any]") -> None:
        """Let a process get SIGTERM when this one is asked to end, also if it was asked before."""
        self._started = started
        if self.asked:
            self._pass_on()

    def answer(self, number: int, frame: FrameType | None) -> None:
        """Note a signal, as a handler does, and pass it on as SIGTERM, which a training answers."""
        self.asked = signal.Signals(number).name
        self._pass_on()

    def _pass_on(self) -> None:
        # Not by Popen.send_signal, which may take the exit status that os.wait4 waits for.
        if self._started and self._started.returncode is None:
            with suppress(ProcessLookupError):
                os.kill(self._started.pid, signal.SIGTERM)


@contextmanager
def stoppable() -> Iterator[Stopping]:
    """Yield what passes SIGTERM and SIGHUP on during the block; an ignored one stays ignored."""
    stopping = Stopping()
    if threading.current_thread() is not threading.main_thread():  # others cannot set a handler
        yield stopping
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    answered = [number for number, handler in before.items() if handler is signal.SIG_DFL]
    for number in answered:
        signal.signal(number, stopping.answer)
    try:
        yield stopping
    finally:
        for number in answered:
            signal.signal(number, before[number])
