"""Bring files and folders to the disk, so that a crash at any moment leaves something whole.

A folder takes its place only when all of it is on the disk. What a file system cannot do (fsync,
links, on some shared disks) is left out, and said once.
"""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# What file systems answer that cannot do a thing: CIFS, exFAT, FAT, some of FUSE and of clusters.
_CANNOT = {
    *(errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP),
    *(errno.EPERM, errno.EACCES, errno.EBADF, errno.EISDIR),
}
_said: set[str] = set()  # in this process, so that a training does not say it at each checkpoint


@contextmanager
def replacing_folder(folder: Path) -> Iterator[Path]:
    """Yield an empty folder beside `folder`, which takes its place once all of it is on disk."""
    temporary = begin_folder(folder)
    try:
        yield temporary
        flush_folder(temporary)
    except OSError:  # a full disk: leave room for what comes next
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    put_in_place(temporary, folder)


def partial_folder(folder: Path) -> Path:
    """Return where a folder is written before it takes its place."""
    return folder.with_name(f".{folder.name}.partial")


def begin_folder(folder: Path) -> Path:
    """Make the empty folder that is to take the place of `folder`."""
    temporary = partial_folder(folder)
    shutil.rmtree(temporary, ignore_errors=True)  # left behind by a crash
    temporary.mkdir(parents=True)
    return temporary


def flush_folder(folder: Path) -> None:
    """Bring the files of a folder, and their names, to the disk."""
    for path in (*folder.iterdir(), folder):
        flush_to_disk(path)


def put_in_place(temporary: Path, folder: Path) -> None:
    """Let a folder that is on the disk take the place of another one.

    What `folder` held is removed last, so one whole folder is there at every moment but one, when
    it is there under the name `.NAME.replaced`.
    """
    replaced = folder.with_name(f".{folder.name}.replaced")
    shutil.rmtree(replaced, ignore_errors=True)
    if folder.exists():
        folder.rename(replaced)
    temporary.rename(folder)
    shutil.rmtree(replaced, ignore_errors=True)
    flush_to_disk(folder.parent)


def flush_to_disk(path: Path) -> None:
    """fsync a file or a folder: a rename must not reach the disk before the bytes do.

    Where the file system has no such thing, it goes on without, and says so once.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        words = "a power cut may take the newest checkpoint; resume=auto then takes an older one"
        go_on_without("fsync of files and folders", path.parent, error, words)


def go_on_without(what: str, folder: Path, error: OSError, words: str) -> None:
    """Say once that a file system cannot do a thing; raise any other error again."""
    if error.errno not in _CANNOT:
        raise error
    if what not in _said:
        _said.add(what)
        print(f"warning: {folder}: this file system has no {what} ({error.strerror}): {words}")
