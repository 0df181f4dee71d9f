"""Let process 0 work alone for as long as it takes, while the other processes wait for it.

What processes exchange has a limit of 30 minutes, and none may wait for ever for one that has died.
So while process 0 prepares data, reads a checkpoint or puts one together, all exchange a word every
few seconds. Promises that work which takes longer than the limit ends nothing, and that the end of
process 0 ends the others.
"""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TypeVar

from repro.core.errors import UserError, refuse
from repro.training.lost_processes import OthersEnded

Result = TypeVar("Result")
Texts = Callable[[str], list[str]]  # tells a text to all processes, and returns the texts of all

_SECONDS = 5.0  # between two words
_AT_WORK = "at work"


def work_for_all(work: Callable[[], Result], texts: Texts) -> Result:
    """Do `work`, as process 0; a UserError of it is raised in all, which are in `wait_for_it`.

    Of another process that ended meanwhile is told when the work is done: it may be of use to the
    next start.
    """
    lines: list[str] = []
    with _telling(texts):
        try:
            result = work()
        except UserError as error:
            lines = error.lines
    texts(json.dumps(lines))
    refuse(lines)
    return result


def wait_for_it(texts: Texts) -> None:
    """Wait, as another process, until process 0 has done its work."""
    while (told := texts(_AT_WORK)[0]) == _AT_WORK:
        pass
    refuse(json.loads(told))


@contextmanager
def _telling(texts: Texts) -> Iterator[None]:
    """Tell the others every few seconds, beside the block, that process 0 is at work."""
    done = threading.Event()

    def tell() -> None:
        # Where one of them has ended, whoever tells the next text to all is told so, too.
        with suppress(OthersEnded):
            while not done.wait(_SECONDS):
                texts(_AT_WORK)

    teller = threading.Thread(target=tell, daemon=True)
    teller.start()
    try:
        yield
    finally:
        done.set()
        teller.join()
