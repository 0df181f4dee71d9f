"""Digests and derived seeds: pure functions of bytes, with the standard library alone.

Promises that equal input gives equal output on every machine and in every year: BLAKE2b and
SHA-256 are standards, and nothing here depends on `hash()`, which changes from process to process.
"""

import hashlib
import json
from pathlib import Path
from typing import BinaryIO

from repro.core.errors import UserError
from repro.core.special_files import fault_of_kind


def derive_seed(*parts: int | str) -> int:
    """Derive a seed of 63 bits from its parts, e.g. (42, "order", epoch).

    Parts are told apart: (1, 23) and (12, 3) differ, so do 1 and "1". 63 bits, because
    `torch.Generator.manual_seed` takes a signed 64-bit number.
    """
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def sha256_bytes(data: bytes) -> str:
    """Return the SHA-256 of bytes in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes in hexadecimal; UserError for a pipe or a device."""
    with open_to_hash(path) as file:
        return sha256_of(file)


def open_to_hash(path: Path) -> BinaryIO:
    """Open a file to read its bytes; UserError for a pipe or a device, which may never end."""
    if fault := fault_of_kind(path):
        raise UserError(fault)
    return path.open("rb")


def sha256_of(file: BinaryIO) -> str:
    """Return the SHA-256 of the bytes of an open file in hexadecimal."""
    return hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]


def sha256_json(value: object) -> str:
    """Return the SHA-256 of a JSON value: the order of keys does not matter."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return sha256_bytes(text.encode(errors="surrogateescape"))  # names of files may be any bytes
