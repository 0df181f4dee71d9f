"""Read files by position, in processes that may be forked, spawned or pickled at any time."""

import os
from pathlib import Path

from repro.core.errors import UserError
from repro.core.special_files import fault_of_kind

_KEPT = 32  # files of a process that stay open


class _Descriptor:
    """An open file, closed when nobody holds it any more."""

    def __init__(self, path: Path) -> None:
        if fault := fault_of_kind(path):
            raise UserError(fault)
        self.number = os.open(path, os.O_RDONLY)

    def __del__(self) -> None:
        if hasattr(self, "number"):
            os.close(self.number)


class OpenFiles:
    """The files that a process reads by position; the last few stay open.

    Each read has its own position, so a descriptor that a fork has copied does no harm, and a
    thread holds the one that it reads from. A copy by pickle opens its own.
    """

    def __init__(self) -> None:
        self._open: dict[Path, _Descriptor] = {}

    def __reduce__(self) -> tuple[type["OpenFiles"], tuple[()]]:
        return OpenFiles, ()

    def read(self, path: Path, offset: int, length: int) -> bytes:
        """Return bytes of a file, fewer where it ends; OSError if it cannot be opened."""
        file = self._open.pop(path, None) or _Descriptor(path)
        self._open[path] = file  # the last one: the first is the one that was used longest ago
        for unused in [*self._open][:-_KEPT]:
            self._open.pop(unused, None)
        data = os.pread(file.number, length, offset)
        while 0 < len(data) < length and (
            more := os.pread(file.number, length - len(data), offset + len(data))
        ):
            data += more
        return data
