"""Download files that are known by their SHA-256: whole and right, or not there at all.

A file is written under another name, hashed while it comes, and renamed when all of it is right; so
what has the final name was never half a file. A connection that breaks is tried again from the
start. Without a network the error says where to put the file by hand.
"""

import hashlib
import http.client
import time
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

from repro.core.errors import UserError
from repro.core.files import partial_files, replacing
from repro.core.hashing import sha256_file
from repro.core.progress import progress
from repro.core.stand_ins import stand_in

BROKEN = (URLError, ConnectionError, TimeoutError, http.client.HTTPException)
ATTEMPTS = 3
TIMEOUT = 30  # seconds without a byte
CHUNK = 1 << 20  # bytes


def fetch(url: str, sha256: str, path: Path) -> Path:
    """Download `url` to `path`, unless it is there, and return `path`. UserError if that fails."""
    if path.is_file():
        if (there := sha256_file(path)) != sha256:
            remedy = stand_in(path) or "move the file away"
            raise UserError(f"{path}: SHA-256 {there}, expected {sha256}: {remedy}")
        return path
    for left in partial_files(path):  # a killed download left it
        if time.time() - left.stat().st_mtime > 10 * TIMEOUT:
            left.unlink()
    by_hand = f"or put the file at {path} (SHA-256 {sha256})"
    with replacing(path) as partial:
        received = _download(url, partial, by_hand)
        if received != sha256:
            raise UserError(f"{url}: SHA-256 {received}: not the file it was; try again, {by_hand}")
    return path


def _download(url: str, target: Path, by_hand: str) -> str:
    """Download `url` to `target`, in several attempts if need be, and return its SHA-256."""
    attempt = 1
    while True:
        try:
            return _stream(url, target)
        except BROKEN as error:
            reason = str(getattr(error, "reason", error)) or type(error).__name__
            if isinstance(error, HTTPError) or attempt == ATTEMPTS:
                raise UserError(f"{url}: {reason}; try again later, {by_hand}") from error
            print(f"{url}: {reason}; trying again", flush=True)
            time.sleep(attempt)
            attempt += 1


def _stream(url: str, target: Path) -> str:
    """Write what `url` sends to `target`; its SHA-256. ConnectionError if it ends early."""
    digest = hashlib.sha256()
    size = 0
    with urlopen(url, timeout=TIMEOUT) as answer, target.open("wb") as file:
        total = int(answer.headers.get("Content-Length") or 0)
        with progress(f"downloading {url.rpartition('/')[2]}", total) as advance:
            while chunk := answer.read(CHUNK):
                file.write(chunk)
                digest.update(chunk)
                size += len(chunk)
                advance(len(chunk))
    if size < total:
        raise ConnectionError(f"the connection ended after {size} of {total} bytes")
    return digest.hexdigest()
