"""Bring the digests that files of an archive state of each other up to date.

Some files were changed after others had stated their digests: a checkpoint's SHA256SUMS, what a
tracker was sent, a list of the author's own. Promises that no file states the digest, in
hexadecimal, that a changed file had before; a condition that does cannot be changed, and is named.
"""

import hashlib
import re
from collections.abc import Collection, Mapping
from pathlib import Path

from repro.core import layout
from repro.publishing.anonymity.rebuilt import read_to_change
from repro.publishing.contents import Files, content_bytes, content_size

_KINDS = ("md5", "sha1", "sha256", "sha512")
_DIGEST = re.compile(rb"(?<![0-9a-zA-Z])(?:[0-9a-f]{32,128}|[0-9A-F]{32,128})(?![0-9a-zA-Z])")
_LARGEST = 1 << 26  # bytes of a file that digests are looked for in; tensors state none


def with_new_digests(
    before: Mapping[str, bytes], files: Files, conditions: Collection[str]
) -> tuple[dict[str, bytes | Path], list[str]]:
    """Return the files with today's digests, and a line for each condition with an old one.

    `before`: the changed files as they were, by their names of today. A file whose digests were
    changed has another digest itself, so it goes on until nothing changes.
    """
    new = {**files}
    if not before:
        return new, []
    faults: dict[str, None] = {}
    originals = {**before}
    for _ in range(len(files) + 1):  # each round ends a step of who states whom
        renewed = _renewals(originals, new)
        changed = {}
        for name, content in new.items():
            if content_size(content) > _LARGEST or name.endswith(".safetensors"):
                continue
            data = content_bytes(content)
            if not any(match[0].lower() in renewed for match in _DIGEST.finditer(data)):
                continue
            if name in conditions:
                line = _line_of_digest(data, renewed)
                faults[
                    f"{name}: line {line} states the digest of a file that names had to be taken "
                    "out of: take them out in the repository, then make record"
                ] = None
            else:
                changed[name] = _rewritten(data, renewed)
                originals.setdefault(name, data)
        if not changed:
            break
        new |= changed
    return new, [*faults]


def verdict_name(name: str, before: bytes, now: bytes) -> str:
    """Return what a changed file is called: a verdict that is kept is called by its digest."""
    folder = f"{layout.RESULTS}/{layout.VERDICTS}"
    if name != f"{folder}/{_digest('sha256', before).decode()}.json":
        return name
    return f"{folder}/{_digest('sha256', now).decode()}.json"


def _renewals(before: Mapping[str, bytes], files: Files) -> dict[bytes, bytes]:
    """Return today's digest of each file by the one that it had, of each kind."""
    pairs = {}
    for name, old in before.items():
        now = read_to_change(files[name])
        for kind in _KINDS:
            pairs[_digest(kind, old)] = _digest(kind, now)
    return {old: new for old, new in pairs.items() if old != new}


def _digest(kind: str, data: bytes) -> bytes:
    return hashlib.new(kind, data, usedforsecurity=False).hexdigest().encode()


def _rewritten(data: bytes, renewed: Mapping[bytes, bytes]) -> bytes:
    def today(match: re.Match[bytes]) -> bytes:
        text = match[0]
        new = renewed.get(text.lower(), text)
        return new if text == text.lower() else new.upper()

    return _DIGEST.sub(today, data)


def _line_of_digest(data: bytes, renewed: Mapping[bytes, bytes]) -> int:
    places = (match.start() for match in _DIGEST.finditer(data) if match[0].lower() in renewed)
    return data.count(b"\n", 0, next(places)) + 1
