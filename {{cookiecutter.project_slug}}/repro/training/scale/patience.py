"""Let process 0 work for as long as it takes, while the other processes wait for it.

What processes exchange has a limit of 30 minutes, and none may wait for ever for one that has died.
So while process 0 works, all exchange a word every few seconds. Promises that work which takes
longer than the limit ends nothing, and that the end of process 0 ends the others.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from repro.training.lost_processes import OthersEnded
from repro.training.processes import Processes

_SECONDS = 5.0  # between two words
_AT_WORK = "at work"
_DONE = "done"


def at_length(processes: Processes, work: Callable[[], object]) -> None:
    """Let process 0 do `work`; a UserError of it is raised in all, which all call this."""

    def watched() -> None:
        with _telling(processes):
            work()

    def wait() -> None:
        while processes.texts(_AT_WORK)[0] == _AT_WORK:
            pass

    processes.together(wait if processes.rank else watched)


@contextmanager
def _telling(processes: Processes) -> Iterator[None]:
    """Tell the others that process 0 is at work, beside the block, and at its end that it is done.

    That another process has ended is raised when the work is done: it may be of use to the next.
    """
    done = threading.Event()
    ended: list[OthersEnded] = []

    def tell() -> None:
        try:
            while not done.wait(_SECONDS):
                processes.texts(_AT_WORK)
        except OthersEnded as error:
            ended.append(error)

    teller = threading.Thread(target=tell, daemon=True)
    teller.start()
    try:
        yield
    finally:
        done.set()
        teller.join()
        if not ended:
            processes.texts(_DONE)
    if ended:
        raise ended[0]
