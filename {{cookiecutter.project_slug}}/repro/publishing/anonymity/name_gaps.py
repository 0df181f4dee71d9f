"""What may stand between the words of a name: blanks of any kind, a line's end, initials."""

import re
from collections.abc import Callable

LONGEST_GAP = 1 << 9  # bytes, with escapes
# Blanks that are not ASCII: those that break no line, and thin ones.
_BLANKS = "\u00a0\u2002\u2003\u2009\u200a\u202f"
_ESCAPED_BLANK = (
    rb"%(?:20|2[bcde]|5f|c2%a0)|\\+u(?:00(?:20|2[bcde]|5f|a0)|2009|202f)|\\+[nrt]"
    rb"|\\+x(?:20|c2\\+xa0)|&(?:nbsp|thinsp|#0*(?:32|160)|#x0*(?:20|a0));"
)


def _gap(unit: Callable[[bytes], bytes], others: bytes) -> bytes:
    """Return the pattern of what may stand between the words of a name.

    `unit`: makes a pattern of an ASCII character in an encoding; `others`: of further blanks.
    """
    blank = unit(rb"[ \t]")
    apart = b"(?:%s|%s){1,3}" % (unit(rb"[\s_.,+\-~]"), others)
    line_end = b"(?:%s)?(?:%s|%s)" % (unit(rb"\r"), unit(rb"\n"), others)
    mark = unit(rb"[#/%*;>|\-]")
    broken = b"%s{0,3}%s%s{0,8}%s{0,3}%s{0,8}" % (blank, line_end, blank, mark, blank)
    gap = b"(?:%s|%s)" % (apart, broken)
    return b"%s(?:%s(?:%s)?%s){0,2}" % (gap, unit(b"[a-z]"), unit(rb"\."), gap)


def _blanks(encoding: str) -> bytes:
    return b"|".join(re.escape(blank.encode(encoding)) for blank in _BLANKS)


def _narrow_unit(pattern: bytes) -> bytes:
    return pattern


_WIDE_UNITS: dict[str, Callable[[bytes], bytes]] = {
    "le": lambda pattern: b"(?:%s\\x00)" % pattern,
    "be": lambda pattern: b"(?:\\x00%s)" % pattern,
}

# In UTF-8; in UTF-8 with escapes; and in UTF-16 of both orders.
GAP = _gap(_narrow_unit, _blanks("utf-8"))
GAP_ESCAPED = _gap(_narrow_unit, _blanks("utf-8") + b"|" + _ESCAPED_BLANK)
WIDE_GAPS = {order: _gap(unit, _blanks(f"utf-16-{order}")) for order, unit in _WIDE_UNITS.items()}
