"""Every file that a command reads, damaged by hypothesis: right, or one line and code 2."""

from collections.abc import Iterator

import pytest
from conftest import ROOT, Project
from fuzzing import TARGETS, Commands, change, faults_of, played
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

EXAMPLES = 250  # of `make test`, over all files
MANY = 3000  # of `make test-long`
# Of each example its files and the answer are told, so nothing is to be shrunk: that takes minutes.
STILL = settings(
    derandomize=True,
    database=None,
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=[*HealthCheck],
)


@pytest.fixture(scope="module")
def commands(recorded: Project, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Commands]:
    folder = tmp_path_factory.mktemp("fuzzing")
    found = Commands(played(recorded, folder), folder / "pristine")
    yield found
    found.stop()


def try_one(commands: Commands, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(TARGETS)))
    words = data.draw(st.sampled_from(TARGETS[name]))
    commands.restore()
    change(data, commands.project.path, name)
    answer = commands.run(words)
    fault = faults_of(answer, name)
    assert not fault, f"{fault}\n{name}\n{' '.join(words)}\n{answer.output[-3000:]}"


def try_examples(commands: Commands, count: int) -> None:
    @settings(STILL, max_examples=count)
    @given(st.data())
    def fuzz(data: st.DataObject) -> None:
        try_one(commands, data)

    fuzz()


def test_every_file_that_a_command_reads_may_be_damaged(commands: Commands) -> None:
    try_examples(commands, EXAMPLES)


@pytest.mark.parametrize(
    "words", sorted({w for all in TARGETS.values() for w in all}), ids=" ".join
)
def test_the_files_as_they_are_are_read(commands: Commands, words: tuple[str, ...]) -> None:
    """What fuzzing changes is read by its commands, which end well without a change."""
    commands.restore()
    answer = commands.run(words)
    assert answer.code in (0, 1), answer.output
    assert "error: " not in answer.output


def test_the_page_says_how_much_is_tried() -> None:
    page = (ROOT / "docs/guarantees.md").read_text()
    told = (
        f"{len(TARGETS)} files of a recorded project, some with sums that fit: {EXAMPLES} examples"
    )
    assert told in page
    assert f"{MANY} in `make test-long`" in page


@pytest.mark.long
def test_every_file_may_be_damaged_in_thousands_of_ways(commands: Commands) -> None:
    try_examples(commands, MANY)
