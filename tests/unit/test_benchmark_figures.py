"""How the benchmarks judge what they measured, and what they print; nothing is timed here."""

import sys
from pathlib import Path

import pytest
from conftest import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))
import peers
from spread import missed, ratios, read_bounds, spread_of


@pytest.mark.parametrize(
    ("values", "misses"),
    [
        ([0.97, 0.98, 0.99], False),  # the median is at the bound
        ([0.90, 0.97, 0.99], False),  # below it, within the spread
        ([0.95, 0.96, 0.965, 0.97, 0.99], True),  # one lucky stretch
        ([0.97], True),
        ([0.98], False),
        ([1.02, 1.03, 1.04], False),
    ],
)
def test_a_bound_is_missed_only_beyond_the_spread(values: list[float], misses: bool) -> None:
    lines = missed({"traced": spread_of(values)}, {"traced": 0.98, "not measured": 1.0})
    assert bool(lines) == misses
    if lines:
        assert "traced has " in lines[0]
        assert "expected at least 0.98" in lines[0]


def test_ratios_are_those_of_the_same_rounds() -> None:
    """A machine that is ten times as slow in one round slows both."""
    assert ratios([1.0, 10.0, 1.0], [2.0, 20.0, 2.0]) == spread_of([0.5])
    with pytest.raises(ValueError, match="zip"):
        ratios([1.0, 2.0], [1.0])


def test_the_bounds_stand_in_one_file() -> None:
    bounds = read_bounds()
    assert bounds.keys() == {path.name for path in (ROOT / "templates" / "tasks").iterdir()}
    for name, task in peers.TASKS.items():
        loops = {"ours", "traced", "ours, equal duties"}
        assert bounds[name].keys() <= loops
        assert {"plain", "ours", "traced", "duties", peers.FRAMEWORK[name]} <= set(task.loops)


def taken(seconds: float, stretches: int = 3) -> peers.Taken:
    return peers.Taken([seconds] * stretches, [seconds / 2] * stretches, [700.0, 710.4])


def test_the_table_is_markdown_with_a_row_for_each_loop() -> None:
    found = {"plain": taken(1.0), "traced": taken(1.25), "duties": taken(2.0)}
    lines = list(peers.table("images", found, steps=100))
    assert len({line.count("|") for line in lines}) == 1
    assert lines[3] == (
        "| ours, traced | 12.50 (12.50 to 12.50) | 0.800 (0.800 to 0.800) "
        "| 1.250 (1.250 to 1.250) | 710 |"
    )
    found["lightning"] = taken(3.0)
    assert list(peers.table("images", found, 100))[-1].startswith(
        "Ours with equal duties has 1.500 (1.500 to 1.500) times the throughput of Lightning"
    )
    assert peers.found_ratios("images", found)["traced"].middle == 0.8


def test_every_loop_is_the_first_in_turn() -> None:
    names = ["a", "b", "c"]
    assert [peers.turns(names, number)[0] for number in range(4)] == ["a", "b", "c", "a"]
    assert all(sorted(peers.turns(names, number)) == names for number in range(4))


def test_the_figures_take_the_place_of_the_old_ones(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{peers.MARKS[0]}\nold\n{peers.MARKS[1]}\nafter\n")
    peers.write_page(page, "new")
    peers.write_page(page, "newer")
    assert page.read_text() == f"before\n{peers.MARKS[0]}\n\nnewer\n\n{peers.MARKS[1]}\nafter\n"
    page.write_text("no marks")
    with pytest.raises(SystemExit, match="lacks its marks"):
        peers.write_page(page, "new")
    assert (ROOT / "docs" / "benchmarks.md").read_text().count(peers.MARKS[0]) == 1


def test_a_peer_that_fails_ends_all_with_its_words(capsys: pytest.CaptureFixture[str]) -> None:
    alive = (
        'import sys\nfor line in sys.stdin: print(\'{"seconds": 1, "processor": 1}\', flush=True)'
    )
    commands = {
        "alive": [sys.executable, "-c", alive],
        "dead": [sys.executable, "-c", "raise SystemExit('no such package')"],
    }
    found = {name: peers.Taken() for name in commands}
    with pytest.raises(SystemExit, match=r"(?s)no such package.*has failed"):
        peers.measure(commands, 1, found)


@pytest.mark.parametrize(
    "words", [["image=x"], ["images=x", "--rounds", "0"], ["images=x", "--only", "plan"]]
)
def test_a_misspelt_word_is_refused(words: list[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        peers.main(words)
    assert refused.value.code == 2
