"""The order of an epoch of many samples: a permutation that is computed position by position."""

import math

import numpy as np
import pytest
from repro.core.hashing import derive_seed
from repro.training import sampling
from repro.training.permutation import ROUNDS, permuted
from repro.training.sampling import LARGEST_LIST, Schedule, epoch_order

SIZES = [*range(1, 130), 1000, 4095, 4096, 4097, 65_537, 100_003]


def keys(epoch: int) -> list[int]:
    return [derive_seed(7, "order", epoch, number) for number in range(ROUNDS)]


def order(size: int, epoch: int) -> list[int]:
    return permuted(range(size), size, keys(epoch))


def test_every_size_gives_a_permutation() -> None:
    for size in SIZES:
        assert sorted(order(size, size)) == [*range(size)], size


@pytest.mark.parametrize("size", [LARGEST_LIST + 1, 10**9, 2**31 + 11, 2**40 - 1, 2**62])
def test_a_part_of_it_is_that_part_of_the_whole(size: int) -> None:
    """No two positions have one sample, wherever the cut is."""
    part = range(size // 3, size // 3 + 5000)
    found = permuted(part, size, keys(0))
    assert len({*found}) == len(part)
    assert min(found) >= 0
    assert max(found) < size
    halves = permuted(part[:1234], size, keys(0)) + permuted(part[1234:], size, keys(0))
    assert halves == found
    assert permuted(part, size, keys(1)) != found


def one_by_one(position: int, size: int, keys: list[int]) -> int:
    """The same in Python's own whole numbers, as the paper and SplitMix64 have it."""
    width = math.isqrt(size - 1) + 1
    height = -(-size // width)
    number = position
    while True:
        halves = [number % width, number // width]
        for place, key in enumerate(keys):
            word = halves[1 - place % 2] ^ key
            word = (word ^ word >> 30) * 0xBF58476D1CE4E5B9 % 2**64
            word = (word ^ word >> 27) * 0x94D049BB133111EB % 2**64
            word ^= word >> 31
            changed = place % 2
            halves[changed] = (halves[changed] + word) % (width, height)[changed]
        number = halves[1] * width + halves[0]
        if number < size:
            return number


@pytest.mark.parametrize("size", [1, 2, 7, 1000, 10**9, 2**62])
def test_the_order_is_that_of_the_definition(size: int) -> None:
    positions = range(size - min(size, 40), size)
    assert permuted(positions, size, keys(2)) == [one_by_one(p, size, keys(2)) for p in positions]


def test_the_order_is_the_same_in_every_year() -> None:
    assert permuted(range(4), 10**9, keys(0)) == [749822632, 30729333, 160413627, 564680594]


def chi_squared(counts: "np.ndarray[tuple[int, ...], np.dtype[np.int64]]") -> float:
    """How far a table's rows are from even, in standard deviations of what chance gives."""
    expected = counts.sum() / counts.size
    freedom = counts.shape[0] * (counts.shape[1] - 1)
    return float(((counts - expected) ** 2 / expected).sum() - freedom) / math.sqrt(2 * freedom)


def test_an_orders_statistics_are_those_of_chance() -> None:
    """Where a sample comes, what follows it, how many stay, how many pairs are swapped."""
    size, epochs = 20, 8000
    orders = np.array([order(size, epoch) for epoch in range(epochs)])
    places = [np.bincount(orders[:, position], minlength=size) for position in range(size)]
    steps = (orders[:, 1:] - orders[:, :-1]) % size
    following = [np.bincount(steps[:, p], minlength=size)[1:] for p in range(size - 1)]
    assert abs(chi_squared(np.array(places))) < 5
    assert abs(chi_squared(np.array(following))) < 5
    fixed = (orders == np.arange(size)).sum(1)
    assert abs(fixed.mean() - 1) < 5 / math.sqrt(epochs)
    assert abs(fixed.var() - 1) < 0.15
    swaps = np.array([_inversions(row) for row in orders[:2000].tolist()])
    assert abs(swaps.mean() - size * (size - 1) / 4) < 5 * 15.4 / math.sqrt(2000)


def _inversions(row: list[int]) -> int:
    return sum(a > b for i, a in enumerate(row) for b in row[i + 1 :])


def test_a_large_orders_neighbours_have_nothing_to_do_with_each_other() -> None:
    size = 10**9
    for start in (0, 10**9 - 20_001):
        found = np.array(permuted(range(start, start + 20_000), size, keys(3))) / size
        nearby = float(np.corrcoef(found[1:], found[:-1])[0, 1])
        assert abs(nearby) < 5 / math.sqrt(20_000)
        assert abs(found.mean() - 0.5) < 5 * math.sqrt(1 / 12 / 20_000)
        counts = np.bincount((found * 100).astype(int), minlength=100)
        assert abs(chi_squared(counts[np.newaxis])) < 5


def test_small_data_keep_the_order_that_they_had() -> None:
    for size in (8, 1000, 1797):
        schedule = Schedule(size, size, 42)
        expected = epoch_order(size, 42, 1).tolist()
        assert [key.sample for key in schedule.keys(1)] == expected


def test_above_the_condition_no_list_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "epoch_order", None)  # not called
    schedule = Schedule(LARGEST_LIST + 1, 256, 42)
    last = schedule.keys(2 * schedule.steps_per_epoch - 1)
    assert (last[0].epoch, len(last)) == (1, 1)
    first = [key.sample for key in schedule.keys(0)]
    assert first != [key.sample for key in schedule.keys(schedule.steps_per_epoch)]
    assert first != [key.sample for key in Schedule(LARGEST_LIST + 1, 256, 43).keys(0)]
    assert first[:100] == [key.sample for key in Schedule(LARGEST_LIST + 1, 100, 42).keys(0)]
