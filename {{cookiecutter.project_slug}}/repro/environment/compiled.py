"""Compare compiled files with their sources: Python itself looks at the source's date only.

The RECORDs of packages have no digests of compiled files: one that was edited would run unnoticed.
Promises to tell of a `.pyc` of this Python whether it holds what its source compiles to. It is
never run for that. Whether the source is the one that was installed is asked elsewhere
(installed_files.py).
"""

import marshal
import os
from importlib.util import MAGIC_NUMBER, source_from_cache, source_hash
from pathlib import Path
from types import CodeType

_HEADER = 16  # bytes: magic number, flags, and the source's date and size or its hash


def source_of(path: str) -> str:
    """Return the source of a compiled file; nothing for other files."""
    try:
        return source_from_cache(path) if path.endswith(".pyc") else ""
    except ValueError:  # beside its source, not in __pycache__: Python would import it
        return ""


def compiled_fault(path: str) -> str:
    """Say how a compiled file is not what its source compiles to; nothing if it is.

    A missing one is no fault: Python does without. A missing source has a line of its own.
    """
    source = source_of(path)
    if not os.path.isfile(path) or not os.path.isfile(source):
        return ""
    data = Path(path).read_bytes()
    text = Path(source).read_bytes()
    if not _has_header_of(data, text, int(os.stat(source).st_mtime)):
        return "is of another source or Python, by its header"
    return "" if _has_code_of(data, text) else "is not what its source compiles to"


def _has_header_of(data: bytes, text: bytes, seconds: int) -> bool:
    """Whether the header names this Python and this source, by its date or by its hash."""
    flags = int.from_bytes(data[4:8], "little")
    by_hash = flags & 1
    date_and_size = seconds & 0xFFFFFFFF | (len(text) & 0xFFFFFFFF) << 32
    key = source_hash(text) if by_hash else date_and_size.to_bytes(8, "little")
    return data[:4] == MAGIC_NUMBER and flags <= 3 and data[8:_HEADER] == key


def _has_code_of(data: bytes, text: bytes) -> bool:
    """Whether a compiled file holds the code that its source compiles to.

    Compared in marshal's version 2, where equal code is equal bytes (in later versions the bytes
    depend on what else the compiling process held). It leaves out what an instruction keeps from
    being run, so these bytes are looked for as they stand.
    """
    try:
        code = marshal.loads(data[_HEADER:])
        again = compile(text, code.co_filename, "exec", dont_inherit=True, optimize=0)
        same = marshal.dumps(code, 2) == marshal.dumps(again, 2)
        return same and _has_instructions(data, again)
    except Exception:  # it is damaged; or its source is, which has a line of its own
        return False


def _has_instructions(data: bytes, code: CodeType) -> bool:
    """Whether a compiled file has the instructions of `code` and all within, in their order."""
    place = _HEADER
    waiting = [code]
    while waiting:
        code = waiting.pop(0)
        waiting[:0] = [constant for constant in code.co_consts if isinstance(constant, CodeType)]
        start = data.find(code.co_code, place)
        if start < 0:
            return False
        place = start + len(code.co_code)
    return True
