"""The locks of the template."""

import itertools
import re

import pytest
from conftest import (
    ROOT,
)
from options import CHOICES, pins

LOCKS = ROOT / "templates" / "locks"


@pytest.mark.parametrize("name", [*CHOICES["tracker"], "dev"])
def test_the_locks_have_hashes_and_no_settings_of_a_machine(name: str) -> None:
    lock = (LOCKS / f"{name}.lock").read_text()
    assert "make lock" in lock
    for line in lock.splitlines():
        assert not line.startswith("-"), line
        assert "://" not in line, line
        assert " /" not in line, line
    for requirement in re.split(r"\n(?=\S)", re.sub(r"(?m)^\s*#.*\n?", "", lock)):
        if requirement.strip():
            assert re.search(r"--hash=sha256:[0-9a-f]{64}", requirement), requirement


def test_a_package_has_the_same_version_in_every_lock() -> None:
    """So a tracker is no reason for other bits, and one environment can hold them all."""
    locks = [pins(path.read_text()) for path in LOCKS.glob("*.lock")]
    assert len(locks) == len(CHOICES["tracker"]) + 1
    for one, other in itertools.combinations(locks, 2):
        both = one.keys() & other.keys()
        assert {name: one[name] for name in both} == {name: other[name] for name in both}
    default = pins((LOCKS / "none.lock").read_text())
    for tracker in CHOICES["tracker"]:
        assert default.items() <= pins((LOCKS / f"{tracker}.lock").read_text()).items()
