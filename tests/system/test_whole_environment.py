"""The doctor on the whole environment: some 50,000 files."""

import pytest
from conftest import Project
from doctors import doctor


def test_nothing_is_wrong_in_the_whole_environment(project: Project) -> None:
    assert doctor(project, "--quick") == []


@pytest.mark.long
def test_reading_the_whole_environment_finds_nothing_wrong(project: Project) -> None:
    assert doctor(project) == []
