"""Words that the kit's own files hold: a file that each project has tells nobody's name by a word.

So an author may be called as a colour or a distribution is. A single word or a host counts; two
words, an address, a path or an id in such a file were written by somebody.
"""

import re
from collections.abc import Collection

from repro.publishing.anonymity.spellings import Spellings
from repro.publishing.contents import Files

KIT = "repro/"
_WORD_OR_HOST = re.compile(r"[^\W\d]+(?:[.-][^\W\d]+)*")  # with a digit it may be an id


def words_in_kit(words: Collection[str], files: Files) -> dict[str, list[str]]:
    """Return those of the words that files of the kit hold, each with these files."""
    single = Spellings({word: "" for word in words if re.fullmatch(r"[\w.-]+", word)})
    found: dict[str, list[str]] = {}
    for name, content in sorted(files.items()):
        if name.startswith(KIT) and isinstance(content, bytes):
            here = {hit.word for hit in single.find(name.encode() + b"\n" + content)}
            for word in here:
                found.setdefault(word, []).append(name)
    return found


def tells_nobody_in_kit(word: str) -> bool:
    """Tell whether it is of no meaning that a file of the kit has a word."""
    return _WORD_OR_HOST.fullmatch(word) is not None
