"""Progress of long work: a bar with the time left on a terminal, a line now and then elsewhere."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

SECONDS = 10  # between two lines


class Advance:
    """Call it with the units done since the last call."""

    def __init__(self, title: str, total: int, done: int, lines: bool) -> None:
        self.title = title
        self.total = total
        self.first = done
        self.done = done
        self.lines = lines
        self.started = time.monotonic()
        self.said = self.started
        self.draw: Callable[[int], None] | None = None

    def __call__(self, units: int) -> None:
        self.done += units
        if self.draw:
            self.draw(units)
        elif self.lines and self.total and time.monotonic() - self.said > SECONDS:
            percent = 100 * self.done // self.total
            print(f"{self.title}: {percent} %, {self.left} left", flush=True)
            self.said = time.monotonic()

    @property
    def left(self) -> timedelta:
        """The time that the rest will take if it goes on like this."""
        per_unit = (time.monotonic() - self.started) / max(1, self.done - self.first)
        return duration(per_unit * (self.total - self.done))


def duration(seconds: float) -> timedelta:
    """Round to whole seconds, which are printed as h:mm:ss."""
    return timedelta(seconds=round(seconds))


@contextmanager
def progress(
    title: str, total: int, done: int = 0, lines: bool = True, quiet: bool = False
) -> Iterator[Advance]:
    """Yield an Advance; `total` may be 0. No bar if `quiet`, no lines unless `lines`."""
    advance = Advance(title, total, done, lines and not quiet)
    if quiet or not sys.stdout.isatty():
        yield advance
        return
    try:  # only here: it takes a tenth of a second to import
        from rich import progress as bars
    except ImportError:  # the doctor runs without any package
        yield advance
        return
    counted = (bars.BarColumn(), bars.MofNCompleteColumn(), bars.TimeRemainingColumn())
    with bars.Progress("{task.description}", *counted) as bar:
        task = bar.add_task(title, total=total or None, completed=done)
        advance.draw = lambda units: bar.advance(task, units)
        yield advance
