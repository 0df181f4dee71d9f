"""Progress of long work: a bar with the time left on a terminal, a line now and then elsewhere."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich import progress as bars

SECONDS = 10  # between two lines


@contextmanager
def progress(words: str, total: int) -> Iterator[Callable[[int], None]]:
    """Yields a function to call with the units done since the last call; `total` may be 0."""
    started = said = time.monotonic()
    done = 0
    columns = ("{task.description}", bars.BarColumn(), "{task.percentage:3.0f}%")
    with bars.Progress(
        *columns, bars.TimeRemainingColumn(), disable=not sys.stdout.isatty()
    ) as bar:
        task = bar.add_task(words, total=total or None)

        def advance(units: int) -> None:
            nonlocal done, said
            done += units
            bar.advance(task, units)
            now = time.monotonic()
            if bar.disable and now - said > SECONDS and total:
                left = (now - started) * (total - done) / max(1, done)
                print(f"{words}: {100 * done // total} %, {left:.0f} s left", flush=True)
                said = now

        yield advance
