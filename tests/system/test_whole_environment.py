"""The doctor on the whole environment: some 50,000 files."""

import time

import pytest
from conftest import Project
from doctors import doctor


@pytest.mark.alone
def test_nothing_is_wrong_in_the_whole_environment_and_quick_takes_3_s(project: Project) -> None:
    started = time.monotonic()
    assert doctor(project, "--quick") == []
    assert time.monotonic() - started < 3


@pytest.mark.alone
@pytest.mark.long
def test_reading_the_whole_environment_takes_under_40_s(project: Project) -> None:
    started = time.monotonic()
    assert doctor(project) == []
    assert time.monotonic() - started < 40
