"""Turn a lost connection, which means that another process of a training ended, into one line.

Promises that a process can tell its own error from that of another one.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist

from repro.core.errors import UserError, reason_of

# In each error of its connections: their file in its source.
_GLOO = "gloo/transport"
# What fails on a GPU of this process's own, while it exchanges something or before that.
_OWN = (torch.OutOfMemoryError, torch.AcceleratorError)


class OthersEnded(UserError):
    """Another process has ended, which this one has noticed; why it did is not known here."""


@contextmanager
def others_alive() -> Iterator[None]:
    """Turn a lost connection, which means that another process ended, into one line of each."""
    try:
        yield
    except _OWN:
        raise
    except RuntimeError as error:
        raise _lost(error) from error


@contextmanager
def naming_lost_processes() -> Iterator[None]:
    """Do the same for what libraries exchange by themselves, among an author's own computations."""
    try:
        yield
    except RuntimeError as error:
        if is_of_another_process(error):
            raise _lost(error) from error
        raise


def is_of_another_process(error: BaseException | None) -> bool:
    """Tell whether an error says that another process has ended: ours, or that of a library."""
    of_a_library = isinstance(error, dist.DistError) or (
        isinstance(error, RuntimeError) and _GLOO in str(error)
    )
    return of_a_library or isinstance(error, OthersEnded)


def _lost(error: RuntimeError) -> OthersEnded:
    reason = reason_of(error, 160)
    return OthersEnded(
        f"another process of this training ended ({reason}); start all again with resume=auto"
    )
