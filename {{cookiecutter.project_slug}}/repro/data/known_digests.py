"""Remember digests of files by what the file system says of them, and say when that counts.

An entry holds a file's device, inode, size and its times of modification and of change. It counts
for a file that has all five. The time of change is set by the kernel and cannot be put back, so an
edit with its old time, a copy over the file and another file in its place are all seen.

Three memories: `Memory` of this process; `CommandMemory` of the processes of one `record` or
`verify` (repro/core/read_once.py); `Cache`, a file that a later `train` reads. The first two end
with the command. What no memory sees: bytes that change below the file system, as on a failing
disk; `record` and `verify` read them.
"""

import json
import os
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, NamedTuple, TypeAlias

from repro.core.files import parse_object, write_file
from repro.core.hashing import sha256_json
from repro.core.launch import is_first
from repro.core.read_once import reads_once, shared_memory, tell, told_before
from repro.data.file_systems import boot_id, untrusted_kind

# A file may change twice within a tick of the clock that its times are taken from: two seconds at
# most (FAT). So its time of change has to be older than that when the hashing begins.
TICK = 2_000_000_000  # ns
# A page of a mapped file that is written again before it was on the disk changes no time (measured
# on ext4: the second write is not seen, after fdatasync it is). The kernel writes such a page after
# half a minute; a file that was changed in this time is written out before it is hashed.
_UNWRITTEN = 900 * 10**9  # ns
_LONGEST_FLUSH = 10.0  # seconds for all of them: what is left is not remembered
_MOST_FILES = 200_000  # of a cache: the largest ones
_LARGEST_CACHE = 256 * _MOST_FILES  # bytes; a row has less than 200
_write_out = getattr(os, "fdatasync", os.fsync)  # Python has no fdatasync under macOS


class FileState(NamedTuple):
    """What identifies the content of a file. Times are in nanoseconds."""

    device: int
    inode: int
    size: int
    modified: int
    changed: int

    @classmethod
    def of(cls, found: os.stat_result) -> "FileState":
        """Take it from what the system says of a file."""
        return cls(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


class Hashed(NamedTuple):
    """A digest, and when the reading began."""

    began: int
    digest: str


Row: TypeAlias = "list[str | int]"  # a state and its Hashed, as JSON has it


class Memory:
    """Digests that this process has found, by the states of the files."""

    def __init__(self) -> None:
        self.entries: dict[FileState, Hashed] = {}

    def find(self, path: Path, state: FileState) -> str | None:
        """Return the digest of a file in this state; None if it is not known."""
        entry = self.entries.get(state)
        return entry.digest if entry else None

    def settle(self, states: Iterable[FileState]) -> None:
        """Come before files of these states are hashed."""

    def opened(self, file: BinaryIO) -> None:
        """Come before the bytes of an open file are read."""

    def may_keep(self, path: Path, state: FileState, hashed: Hashed) -> bool:
        """Tell whether the digest of a file, whose state stayed the same, may be known."""
        return True

    def keep(self, state: FileState, hashed: Hashed) -> None:
        """Know a digest from now on."""
        self.entries[state] = hashed

    def save(self, states: Iterable[FileState]) -> None:
        """Come after a pass over the files of these states."""


class CommandMemory(Memory):
    """Digests that the processes of one command have found, in the memory that they share."""

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self._descriptor = descriptor
        self.entries = dict(map(_from_row, map(json.loads, told_before(descriptor).splitlines())))
        self._told = {*self.entries}
        self._settled: set[FileState] = set()

    def settle(self, states: Iterable[FileState]) -> None:
        """Wait until a change after this moment has another time than those that were seen."""
        states = {*states}
        youngest = max((state.changed for state in states), default=0)
        wait = youngest + TICK - time.time_ns()
        if wait > 0:  # a server's clock may be ahead of this one's: what counts is the time between
            time.sleep(min(wait, TICK) / 1e9)
        self._settled |= states

    def may_keep(self, path: Path, state: FileState, hashed: Hashed) -> bool:
        return state in self._settled

    def save(self, states: Iterable[FileState]) -> None:
        rows = [_row(*each) for each in self.entries.items() if each[0] not in self._told]
        tell(self._descriptor, "".join(f"{json.dumps(row)}\n" for row in rows))
        self._told = {*self.entries}


class Cache(Memory):
    """Digests for later trainings, in a file. A damaged one, or one of another start, is empty."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path
        self._boot = boot_id()
        self._flushed = 0.0
        self._unflushed: set[FileState] = set()
        self._kinds: dict[int, str] = {}  # of file systems that are not trusted, by device
        self._was = _read(path, self._boot)
        self.entries = dict(self._was)

    def find(self, path: Path, state: FileState) -> str | None:
        digest = super().find(path, state)
        return None if self._kind(path, state) else digest

    def opened(self, file: BinaryIO) -> None:
        """Write a young file out: from then on each write to a mapped page changes its time."""
        state = FileState.of(os.fstat(file.fileno()))
        if state.changed + _UNWRITTEN < time.time_ns():
            return
        started = time.monotonic()
        try:
            if self._flushed > _LONGEST_FLUSH:
                raise TimeoutError
            _write_out(file.fileno())
        except OSError:
            self._unflushed.add(state)
        self._flushed += time.monotonic() - started

    def may_keep(self, path: Path, state: FileState, hashed: Hashed) -> bool:
        is_settled = _is_settled(state, hashed)
        return is_settled and state not in self._unflushed and not self._kind(path, state)

    def _kind(self, path: Path, state: FileState) -> str:
        """Return the kind of the file system of a file, if its times cannot be relied on."""
        if state.device not in self._kinds:
            kind = untrusted_kind(path)
            self._kinds[state.device] = kind
            if kind and is_first():
                print(
                    f"note: {path.parent} is on {kind}, where a change need not show in a file's "
                    "times: its files are hashed at each start",
                    flush=True,
                )
        return self._kinds[state.device]

    def save(self, states: Iterable[FileState]) -> None:
        """Write the entries of these files; where the folder cannot be written, do without."""
        kept = sorted({state for state in states if state in self.entries}, key=lambda s: s.size)
        self.entries = {state: self.entries[state] for state in sorted(kept[-_MOST_FILES:])}
        if self.entries == self._was or not self._boot:
            return
        content = {"boot": self._boot, "files": [_row(*each) for each in self.entries.items()]}
        with suppress(OSError):
            write_file(self._path, json.dumps({**content, "sha256": sha256_json(content)}).encode())
            self._was = dict(self.entries)


def memory_of_command(cache: Path | None = None) -> Memory:
    """Return what knows digests: in a `record` or `verify` what that command has read itself.

    Else the cache of that path; without one, nothing that was known before.
    """
    descriptor = shared_memory()
    if descriptor is not None:
        return CommandMemory(descriptor)
    return Memory() if cache is None or reads_once() else Cache(cache)


def _is_settled(state: FileState, hashed: Hashed) -> bool:
    return state.changed + TICK <= hashed.began


def _row(state: FileState, hashed: Hashed) -> Row:
    return [*state, *hashed]


def _from_row(row: object) -> tuple[FileState, Hashed]:
    """Read what `_row` made; ValueError for anything else."""
    match row:
        case [int(one), int(two), int(three), int(four), int(five), int(began), str(digest)]:
            return FileState(one, two, three, four, five), Hashed(began, digest)
    raise ValueError


def _read(path: Path, boot: str) -> dict[FileState, Hashed]:
    """Read a cache of this start of the machine: device numbers hold no longer than that.

    A power cut may also leave new bytes with an old time.
    """
    try:
        if not boot or path.stat().st_size > _LARGEST_CACHE:
            return {}
        content: Mapping[str, object] = parse_object(path) or {}
        part = {name: content[name] for name in ("boot", "files")}
        rows = part["files"]
        if part["boot"] != boot or sha256_json(part) != content.get("sha256"):
            return {}
        entries = dict(map(_from_row, rows)) if isinstance(rows, list) else {}
    except (KeyError, OSError, ValueError, RecursionError):
        return {}
    return {state: hashed for state, hashed in entries.items() if _is_settled(state, hashed)}
