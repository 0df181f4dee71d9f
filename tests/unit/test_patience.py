"""Process 0 works alone for as long as it takes: the others hear of it, and how it ends."""

import time
from collections.abc import Callable

import pytest
from conftest import HANGS
from part_states import Threads, in_all
from repro.core.errors import UserError
from repro.training import patience
from repro.training.lost_processes import OthersEnded


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "_SECONDS", 0.01)


def until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + HANGS / 20
    while not is_so():
        assert time.monotonic() < deadline, "it never comes"
        time.sleep(0.001)


def test_while_process_0_works_a_word_goes_around_and_the_others_go_on_after_it() -> None:
    told, order = [], []

    class Listening(Threads):
        def texts(self, own: str) -> list[str]:
            told.append(self.rank)
            return super().texts(own)

    def work(processes: Threads) -> str:
        if processes.rank == 0:
            until(lambda: told.count(0) > 3)
        order.append(processes.rank)
        return "done"

    def one(processes: Threads) -> None:
        own = Listening(processes.rank, processes.size, processes._board, processes._barrier)
        assert own.first(lambda: work(own)) == "done"
        assert own.alone(lambda: "mine") == (None if own.rank else "mine")
        assert own.texts(f"after {own.rank}") == ["after 0", "after 1", "after 2"]

    assert in_all(3, one) == []
    assert order[0] == 0
    assert sorted(order) == [0, 1, 2]


@pytest.mark.parametrize("name", ["alone", "first"])
def test_what_process_0_refuses_all_refuse(name: str) -> None:
    def refuse() -> None:
        raise UserError("no data")

    lines = in_all(3, lambda processes: getattr(processes, name)(refuse))
    assert lines == ["no data"] * 3


def test_that_another_process_has_ended_is_told_when_the_work_is_done() -> None:
    heard: list[str] = []

    def texts(own: str) -> list[str]:
        heard.append(own)
        raise OthersEnded("it is gone")

    done = []

    def work() -> None:
        until(lambda: bool(heard))
        done.append(1)

    with pytest.raises(OthersEnded):
        patience.work_for_all(work, texts)
    assert done


def test_a_bug_is_raised_and_tells_the_others_no_end() -> None:
    heard: list[str] = []

    def texts(own: str) -> list[str]:
        heard.append(own)
        return [own]

    def work() -> None:
        until(lambda: bool(heard))
        raise ValueError("a bug")

    with pytest.raises(ValueError, match="a bug"):
        patience.work_for_all(work, texts)
    words = len(heard)
    time.sleep(0.1)
    assert {*heard} == {patience._AT_WORK}
    assert len(heard) == words  # nothing speaks for it any more
