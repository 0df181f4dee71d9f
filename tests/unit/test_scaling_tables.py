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
BLOCKS = {"ResNet-18": 8, "1 billion": 32, "7 billion": 32}  # that FSDP2 gathers one by one


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


def ring(n: float, processes: int, passes: int, messages: int) -> float:
    """Seconds in which each process passes all it has `passes` times around a ring."""
    traffic = passes * n * (processes - 1) / processes
    outside = traffic / (NODE * NETWORK) if processes > NODE else 0
    return max(traffic / NVLINK, outside) + passes * (processes - 1) * LATENCY * messages


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


def rows_of_engines() -> list[str]:
    """DDP, with small buckets and with large ones, and FSDP2."""
    lines = []
    for name, values in MODELS.items():
        n, blocks = 4 * values, BLOCKS[name]
        for w in (8, 64, 512):
            reduced = [ring(n, w, 2, math.ceil(n / (mib << 20))) for mib in (25, 400)]
            gathered = ring(n, w, 3, blocks + 1)
            ddp = [*(1e3 * seconds for seconds in reduced), 5 * n / 1e9]
            fsdp = [3 * n * (w - 1) / w / 1e9, 1e3 * gathered, (4 * n / w + 3 * n / blocks) / 1e9]
            lines.append(f"| {' | '.join([name, str(w), *map(short, [*ddp, *fsdp])])} |")
    return lines


def test_the_tables_follow_from_the_formulas() -> None:
    missing = [row for row in [*rows(), *rows_of_engines()] if row not in PAGE]
    assert not missing, "\n".join(missing)


def test_one_process_keeps_few_partial_sums_of_many_shards() -> None:
    sums, most = TreeSum(), 0
    for _ in range(512):
        sums.add([torch.ones(1)])
        most = max(most, sum(level is not None for level in sums._levels))
    assert most == 9  # and the one that is being computed: the page's log2 + 1
