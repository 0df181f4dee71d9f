"""Names of files that every system can have: what of them Windows, macOS or a zip cannot keep.

Linux allows any bytes but "/" in a name, and so does git. Windows keeps names and characters for
itself, and like macOS it takes names for one that differ in case only. An archive with such a name
unpacks there with files missing, and mostly without a word. Promises to name each with its reason.

Sources: "Naming Files, Paths, and Namespaces" of Microsoft's documentation; CLOCK$, COM0 and LPT0
are devices of older versions.
"""

import re
import unicodedata
from collections.abc import Collection, Iterable
from pathlib import PurePosixPath

LONGEST_NAME = 255  # bytes, on Linux; Windows and macOS count in units that are never more
# Windows takes 259 units of UTF-16, the folder included that an archive is unpacked in.
LONGEST_PATH = 240

_DEVICE = re.compile(r"(?i)(con|prn|aux|nul|conin\$|conout\$|clock\$|(?:com|lpt)[0-9¹²³]) *(\..*)?")
_NOT_ON_WINDOWS = set('<>:"|?*\\/')


def faults_of_names(names: Collection[str], top: str = ".") -> list[str]:
    """Return a line for each path that not every system can have below the folder `top`."""
    lines = []
    for name in sorted(names):
        if fault := fault_of_path(name, room=LONGEST_PATH - len(f"{top}/")):
            lines.append(f"{shown(name)} is no name for every system ({fault}): rename it")
    for first, second in taken_for_one(names):
        lines.append(
            f"{shown(first)} and {shown(second)} are one name on Windows or macOS: rename one"
        )
    return lines


def fault_of_path(path: str, room: int = LONGEST_PATH) -> str | None:
    """Say why some system cannot have a file of this path; None if every one can.

    `room` is how many characters it may have, those of the folder around it not counted.
    """
    for name in path.split("/"):
        if fault := fault_of_name(name):
            return fault
    if (length := len(path.encode("utf-16-le")) // 2) > room:
        return f"its path has {length} characters, and Windows has room for {room}"
    return None


def fault_of_name(name: str) -> str | None:
    """Say why some system cannot have a file or folder of this name; None if every one can."""
    if name in ("", ".", ".."):
        return f"{name!a} leads to another folder"
    try:
        length = len(name.encode())
    except UnicodeEncodeError:
        return "it is not UTF-8"
    if not name.isprintable():
        return "it has characters that cannot be seen"
    if taken := sorted(_NOT_ON_WINDOWS & {*name}):
        return f"no name on Windows has {' '.join(taken)}"
    if name[-1] in ". ":
        return "Windows drops a dot or a space at the end"
    if device := _DEVICE.fullmatch(name):
        return f"{device[1]} is a device of Windows"
    if length > LONGEST_NAME:
        return f"a name in it has {length} bytes, and {LONGEST_NAME} fit"
    return None


def taken_for_one(paths: Iterable[str]) -> list[tuple[str, str]]:
    """Return pairs of files or folders that are one where case or Unicode's forms do not count.

    A file that is at the same time a folder of others is a pair, too.
    """
    seen: dict[str, str] = {}
    folders: set[str] = set()
    pairs: dict[tuple[str, str], None] = {}
    files = [PurePosixPath(path) for path in sorted(paths)]
    for file in files:
        for place in (*reversed(file.parents), file):
            first = seen.setdefault(_folded(str(place)), str(place))
            if first != str(place):
                pairs[first, str(place)] = None
                break
        folders.update(map(str, file.parents))
    both = [(str(file), f"{file}/") for file in files if str(file) in folders]
    return [*pairs, *both]


def shown(path: str) -> str:
    r"""Return a path in quotes, as ASCII, with bytes that are no text as \xff."""
    text = path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return ascii(text).replace("\\\\x", "\\x")


def _folded(path: str) -> str:
    """Return a path as systems compare it that ignore case: Unicode's canonical caseless match."""
    normal = unicodedata.normalize("NFD", path)
    return unicodedata.normalize("NFD", normal.casefold())
