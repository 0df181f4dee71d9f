"""Hash files in one pass, shared by all processes of a training.

Processes that see the same files (by inode, size and times, which no two copies share) hash a share
each and tell each other the digests. Those that have copies of their own, as on another node's
disk, hash these.
"""

import json
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol, TypeVar

from repro.core.errors import UserError, refuse
from repro.core.hashing import open_to_hash, sha256_json, sha256_of
from repro.core.progress import progress
from repro.data.known_digests import FileState, Hashed, Memory

Result = TypeVar("Result")


class Together(Protocol):
    """The processes of a training (repro/training/processes.py), as far as they are needed here."""

    rank: int
    size: int

    def first(self, work: Callable[[], Result], /) -> Result:
        """Let process 0 do `work` before the others do it."""
        ...

    def texts(self, own: str, /) -> list[str]:
        """Return the texts of all processes."""
        ...


class _Alone:
    """One process."""

    rank = 0
    size = 1

    def first(self, work: Callable[[], Result], /) -> Result:
        return work()

    def texts(self, own: str, /) -> list[str]:
        return [own]


ALONE: Together = _Alone()
States = dict[str, FileState]


def states_of(root: Path, names: Iterable[str]) -> States:
    """Return the states of files by their names below `root`; OSError for one that is not there."""
    return {name: FileState.of((root / name).stat()) for name in names}


def digests_of(
    root: Path,
    names: Sequence[str],
    memory: Memory,
    together: Together = ALONE,
    known: Mapping[str, str] | None = None,
    quiet: bool = False,
) -> dict[str, str]:
    """Return the SHA-256 of each file below `root`; each is read once, by one of the processes.

    `memory`: what is known already, and will know more. `known`: digests that this process has just
    found by itself. All processes call this together; they may have other files. UserError for what
    is no file, OSError for what cannot be read; of several processes all raise UserError.
    """
    states = states_of(root, names)
    known = known if known is not None and known.keys() == states.keys() else {}
    found = {name: known.get(name) or memory.find(root / name, states[name]) for name in names}
    digests = {name: digest for name, digest in found.items() if digest}
    group = _group(states, digests, together)
    if group.is_shared:
        digests = _told_by_leader(digests, names, group, together)
    missing = [name for name in names if name not in digests]
    share = _shares(missing, states, len(group.ranks))[group.ranks.index(together.rank)]
    memory.settle(states[name] for name in missing)

    def hash_share() -> dict[str, _Entry]:
        return _hashed(root, share, states, memory, quiet or together.rank > 0)

    entries = _exchanged(hash_share, group, together) if group.is_shared else hash_share()
    digests |= {name: entry.digest for name, entry in entries.items()}
    if together.rank == group.leader:
        for name, entry in entries.items():
            if entry.is_kept:
                memory.keep(states[name], Hashed(entry.began, entry.digest))
        memory.save(states.values())
    return {name: digests[name] for name in names}


def share_of(root: Path, names: Sequence[str], together: Together = ALONE) -> list[str]:
    """Return those of the files below `root` that this process is to read, about as many bytes as
    others.

    Of processes that see the same files each reads another share. All call this together.
    """
    states = states_of(root, names)
    ranks = _group(states, {}, together).ranks
    return _shares([*names], states, len(ranks))[ranks.index(together.rank)]


class _Entry(NamedTuple):
    """What a process found of a file; `is_kept` says whether a memory may have it."""

    digest: str
    began: int
    is_kept: bool


class _Group(NamedTuple):
    """The processes that see the same files as this one, and which one says what is known."""

    ranks: list[int]
    leader: int
    is_shared: bool  # whether there is any other process, of this group or not


def _group(states: States, digests: Mapping[str, str], together: Together) -> _Group:
    """Find out which processes see the same files: their device has another number elsewhere."""
    if together.size == 1:
        return _Group([together.rank], together.rank, is_shared=False)
    seen = sha256_json([[name, *state[1:]] for name, state in states.items()])
    told = [json.loads(text) for text in together.texts(json.dumps([seen, len(digests)]))]
    ranks = [rank for rank, (theirs, _) in enumerate(told) if theirs == seen]
    leader = max(ranks, key=lambda rank: (told[rank][1], -rank))
    return _Group(ranks, leader, is_shared=True)


def _told_by_leader(
    digests: Mapping[str, str], names: Sequence[str], group: _Group, together: Together
) -> dict[str, str]:
    """Return the digests that the group's leader knows, in all processes of the group."""
    is_leader = together.rank == group.leader
    own = [digests.get(name, "") for name in names] if is_leader else []
    told = together.texts(json.dumps(own))[group.leader]
    return {name: digest for name, digest in zip(names, json.loads(told), strict=True) if digest}


def _shares(names: list[str], states: States, count: int) -> list[list[str]]:
    """Share files out so that all processes have about as many bytes, in every process alike."""
    shares: list[list[str]] = [[] for _ in range(count)]
    sizes = [0] * count
    for name in sorted(names, key=lambda name: (-states[name].size, name)):
        least = sizes.index(min(sizes))
        shares[least].append(name)
        sizes[least] += states[name].size + 4096  # to open one takes a while, too
    return shares


def _hashed(
    root: Path, names: Sequence[str], states: States, memory: Memory, quiet: bool
) -> dict[str, _Entry]:
    """Hash files, and say of each whether it was and stayed in its state meanwhile."""
    if not names:
        return {}
    entries = {}
    with progress(f"checking {len(names)} files", len(names), quiet=quiet) as advance:
        for name in names:
            with open_to_hash(root / name) as file:
                memory.opened(file)
                before = FileState.of(os.fstat(file.fileno()))
                began = time.time_ns()
                hashed = Hashed(began, sha256_of(file))
                after = FileState.of(os.fstat(file.fileno()))
            is_same = states[name] == before == after
            is_kept = is_same and memory.may_keep(root / name, before, hashed)
            entries[name] = _Entry(hashed.digest, began, is_kept)
            advance(1)
    return entries


def _exchanged(
    hash_share: Callable[[], dict[str, _Entry]], group: _Group, together: Together
) -> dict[str, _Entry]:
    """Hash a share, and return what all of the group found; UserError, in all, with every fault."""
    try:
        found = hash_share()
        faults = []
    except UserError as error:
        found, faults = {}, [*error.lines]
    except OSError as error:
        found, faults = {}, [f"{error.filename or 'a file'}: {error.strerror}"]
    told = [json.loads(text) for text in together.texts(json.dumps([faults, found]))]
    refuse(sorted({fault for faults, _ in told for fault in faults}))
    shares = [told[rank][1] for rank in group.ranks]
    return {name: _Entry(*entry) for share in shares for name, entry in share.items()}
