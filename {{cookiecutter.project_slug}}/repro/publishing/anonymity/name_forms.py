"""Write a person's name in the ways in which others do.

With the family name first, with initials, without accents (Müller as Muller and as Mueller), and as
people are called by their accounts (jdorrit, dorritj, janedorrit). Promises no form that is a
single word of less than five characters: such words are of everybody.
"""

import re
import unicodedata
from collections.abc import Iterator

from repro.core.text import plain_letters

_SHORT = 4  # characters of a family name that is not looked for alone
_SHORTEST_LOGIN = 5
# As Germans and Scandinavians write them where there is no such letter.
_IN_TWO = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "å": "aa", "ø": "oe"})


def without_accents(name: str) -> list[str]:
    """Return the ways to write a name in plain letters; none if it is in plain letters."""
    composed = unicodedata.normalize("NFC", name).lower()
    ways = dict.fromkeys(plain_letters(way) for way in (composed, composed.translate(_IN_TWO)))
    return [way for way in ways if way != composed]


def phrases(name: str) -> Iterator[str]:
    """Yield a name in other orders, and with initials where the family name alone is too short."""
    given, family = _given_and_family(name)
    if not given:
        return
    yield f"{family} {' '.join(given)}"
    if "," not in name:  # without what stands between them
        yield f"{given[0]} {family}"
        yield f"{family} {given[0]}"
    particles = [*_particles(given), family]
    if len(particles) > 1:
        yield " ".join(particles)
    if len(family) < _SHORT:
        initials = [word[0] for word in re.split(r"[\s-]+", " ".join(given)) if word]
        for some in dict.fromkeys((initials[0], "".join(initials))):
            yield f"{some} {family}"
            yield f"{family} {some}"


def logins(name: str) -> Iterator[str]:
    """Yield accounts that are made of a name."""
    given, family = _given_and_family(name)
    if not given:
        return
    first, last = ("".join(re.findall(r"\w", word)) for word in (given[0], family))
    joined = (first + last, last + first, first[:1] + last, last + first[:1])
    for login in (*joined, *([last] if last != family else [])):  # O'Malley
        if len(login) >= _SHORTEST_LOGIN:
            yield login


def _given_and_family(name: str) -> tuple[list[str], str]:
    """Return the words of the given names, and the last word; "Family, Given" is turned round."""
    family, comma, given = name.partition(",")
    words = f"{given} {family}".split() if comma else name.split()
    return (words[:-1], words[-1]) if words else ([], "")


def _particles(given: list[str]) -> list[str]:
    """Return the words before the family name that begin with a small letter: van der."""
    found: list[str] = []
    for word in reversed(given):
        if not word[0].islower():
            return found[::-1]
        found.append(word)
    return []
