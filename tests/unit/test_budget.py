"""The time of .ci/run: what is not run on a slow machine is named, and fails nothing."""

import os
import subprocess
import sys

import budget
import pytest
from conftest import ROOT

RUN = (
    sys.executable,
    "-m",
    "pytest",
    "-o",
    "console_output_style=classic",
    "-p",
    "no:cacheprovider",
)


@pytest.mark.parametrize("workers", ["0", "1"])
def test_what_is_not_run_is_named_and_fails_nothing(workers: str) -> None:
    test = "tests/unit/test_budget.py::test_long_ones_end_before_the_short_ones"
    outside = {name: text for name, text in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(
        [*RUN, "-n", workers, test],
        cwd=ROOT,
        env={**outside, budget.ENDS: "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("NOT RUN"))
    assert line == "NOT RUN, for the time was over: 1 tests, of tests/unit/test_budget.py (1)"
    assert "1 skipped" in done.stdout


def test_long_ones_end_before_the_short_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(budget.ENDS, raising=False)
    assert not budget.is_over(1e12, is_long=True)
    monkeypatch.setenv(budget.ENDS, "10000")
    last = 10000 - budget.FOR_SHORT_ONES
    assert [budget.is_over(now, is_long=True) for now in (last - 1, last)] == [False, True]
    assert [budget.is_over(now, is_long=False) for now in (last, 9999, 10000)] == [
        False,
        False,
        True,
    ]
