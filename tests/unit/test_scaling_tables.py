"""docs/scaling.md: its tables beside its formulas; partial sums."""

import math

import torch
from conftest import ROOT
from repro.training.buckets import Buckets
from repro.training.parallel import TreeSum

PAGE = (ROOT / "docs" / "scaling.md").read_text()

# The assumptions and formulas of the page's tables, in bytes and seconds.
NVLINK, NETWORK, LATENCY, NODE = 450e9, 50e9, 5e-6, 8
MODELS = {"ResNet-18": 11.18e6, "1 billion": 1e9, "7 billion": 7e9}


def bucket(processes: int) -> int:
    """Bytes of a bucket on GPUs."""
    return Buckets(processes, torch.device("cuda")).largest


def memory(n: float, processes: int) -> float:
    """What a process brings, the totals, and the buffer of two buckets."""
    return 2 * n + 2 * min(n, bucket(processes))


def seconds(n: float, processes: int) -> float:
    """Both exchanges and the additions, which wait for each other."""
    buckets = math.ceil(n / bucket(processes))
    w, outside = processes, processes - NODE
    scatter = max(n * (NODE - 1) / w / NVLINK, n * outside / w / NETWORK)
    gather = max(n * (w - 1) / w / NVLINK, n * outside / (w * NODE) / NETWORK)
    return scatter + gather + 3 * (w - 1) * LATENCY * buckets


def short(number: float) -> str:
    return f"{number:.0f}" if number >= 10 else f"{number:.2g}"


def rows() -> list[str]:
    lines = []
    for name, values in MODELS.items():
        n = 4 * values
        for w in (8, 64, 512):
            traffic, card = 2 * n * (w - 1) / w, n * (w - NODE) / w * (1 + 1 / NODE)
            numbers = [traffic / 1e9, card / 1e9, seconds(n, w) * 1e3, memory(n, w) / 1e9]
            lines.append(f"| {' | '.join([name, str(w), *map(short, numbers)])} |")
    return lines


def test_the_tables_follow_from_the_formulas() -> None:
    missing = [row for row in rows() if row not in PAGE]
    assert not missing, "\n".join(missing)


def test_one_process_keeps_few_partial_sums_of_many_shards() -> None:
    sums, most = TreeSum(), 0
    for _ in range(512):
        sums.add([torch.ones(1)])
        most = max(most, sum(level is not None for level in sums._levels))
    assert most == 9  # and the one that is being computed: the page's log2 + 1
