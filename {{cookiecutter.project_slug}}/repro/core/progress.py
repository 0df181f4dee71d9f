"""Progress of long work: a bar with the time left on a terminal, a line now and then elsewhere."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from rich import progress as bars

SECONDS = 10  # between two lines


class Advance:
    """Call it with the units done since the last call."""

    def __init__(self, bar: bars.Progress, words: str, total: int, done: int, lines: bool) -> None:
        self.bar, self.words, self.lines = bar, words, lines
        self.total, self.first, self.done = total, done, done
        self.task = bar.add_task(words, total=total or None, completed=done)
        self.started = self.said = time.monotonic()

    def __call__(self, units: int) -> None:
        self.done += units
        self.bar.advance(self.task, units)
        now = time.monotonic()
        if self.bar.disable and self.lines and self.total and now - self.said > SECONDS:
            percent = 100 * self.done // self.total
            print(f"{self.words}: {percent} %, {self.left} left", flush=True)
            self.said = now

    @property
    def left(self) -> timedelta:
        """The time that the rest will take if it goes on like this."""
        per_unit = (time.monotonic() - self.started) / max(1, self.done - self.first)
        return duration(per_unit * (self.total - self.done))


def duration(seconds: float) -> timedelta:
    """Whole seconds, printed as h:mm:ss."""
    return timedelta(seconds=round(seconds))


@contextmanager
def progress(
    words: str, total: int, done: int = 0, lines: bool = True, quiet: bool = False
) -> Iterator[Advance]:
    """Yields an Advance; `total` may be 0. No bar if `quiet`, no lines unless `lines`."""
    columns = ("{task.description}", bars.BarColumn(), bars.MofNCompleteColumn())
    left, hidden = bars.TimeRemainingColumn(), quiet or not sys.stdout.isatty()
    with bars.Progress(*columns, left, disable=hidden) as bar:
        yield Advance(bar, words, total, done, lines and not quiet)
