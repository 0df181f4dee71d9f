"""Say whether a machine needs a package of a lock: the one place that reads a lock's markers.

One lock serves several platforms, so some of its packages carry a marker: CUDA's have
`sys_platform == "linux"`. Promises pip's answer, from Python's own library alone: packaging may be
what is missing. Only simple markers are read, comparisons joined by `and` and `or`. Any other is a
ValueError, for a guess would hide a package that is missing.
"""

import operator
import os
import re
import sys

from repro.core.machines import ThisMachine

EXPECTED = 'comparisons such as sys_platform == "linux", joined by and, or'

_COMPARISON = re.compile(r"""\s*(\w+)\s*(==|!=|<=|>=|<|>)\s*(["'])([\w.]+)\3\s*""")
_EQUALITY = {"==": operator.eq, "!=": operator.ne}
_ORDER = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}


def is_needed(marker: str, machine: ThisMachine) -> bool:
    """Tell whether a package with this marker, empty for none, belongs on a machine.

    Its Python is taken to be of the version that runs here. Raises ValueError, saying what was
    expected, for a marker of another form.
    """
    if not marker:
        return True
    # `and` binds closer than `or`. Each comparison is made: none of another form goes unseen.
    choices = [
        [_holds(comparison, machine) for comparison in re.split(r"\band\b", choice)]
        for choice in re.split(r"\bor\b", marker)
    ]
    return any(all(choice) for choice in choices)


def _holds(comparison: str, machine: ThisMachine) -> bool:
    found = _COMPARISON.fullmatch(comparison)
    if not found:
        raise ValueError(f"expected {EXPECTED}")
    name, sign, _, value = found.groups()
    if name == "python_version" and re.fullmatch(r"\d+\.\d+", value):
        version = tuple(int(number) for number in value.split("."))
        return bool({**_EQUALITY, **_ORDER}[sign](sys.version_info[:2], version))
    here = {
        "os_name": os.name,
        "platform_machine": machine.architecture,
        "platform_system": machine.kernel,
        "sys_platform": machine.system,
    }
    if name not in here or sign not in _EQUALITY:
        raise ValueError(f"expected {EXPECTED}")
    return bool(_EQUALITY[sign](here[name], value))
