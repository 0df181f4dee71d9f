"""The sum over processes goes bucket by bucket: less memory, the same bits."""

import json

import pytest
from conftest import Project

# What W processes bring is added by TreeSum in one process, and by Processes in buckets.
SUMS = """
import json, os, sys
from pathlib import Path
import torch
from repro.training.processes import Processes
from repro.training.tree_sum import TreeSum

torch.set_num_threads(1)
W = int(os.environ["WORLD_SIZE"])
processes = Processes(W, torch.device("cpu"))
LIKE = [
    torch.empty(1000),
    torch.empty(7, 3, 5, 2).contiguous(memory_format=torch.channels_last),
    torch.empty(0),
    torch.empty((), dtype=torch.float64),
    torch.empty(33, 9).t(),
    torch.empty(50, dtype=torch.bfloat16),
    torch.empty(3),
    torch.empty(4, 1, 1, 1, dtype=torch.float64).contiguous(memory_format=torch.channels_last),
]


def brought(rank):
    torch.manual_seed(rank)
    values = [torch.empty_like(like).copy_(torch.randn(like.shape) * 1e3) for like in LIKE]
    values[6] = None if rank else values[6]  # one process alone has it
    values[0] = None if rank == W - 1 else values[0]
    return values


def bits(tensors):
    plain = [tensor.contiguous().view(-1).view(torch.uint8).tolist() for tensor in tensors]
    return [(tensor.stride(), tensor.dtype) for tensor in tensors], plain


sums = TreeSum()
for rank in range(W):
    sums.add([torch.full_like(like, -0.0) if value is None else value
              for value, like in zip(brought(rank), LIKE)])
expected = bits(sums.total())
for largest in (8 * W, 24 * W, 1000, 4096, 1 << 20):
    processes._buckets.largest = largest
    own = brought(processes.rank)
    before = [value if value is None else value.clone() for value in own]
    assert bits(processes.sum(own, LIKE)) == expected, largest
    assert all(a is b is None or torch.equal(a, b) for a, b in zip(own, before)), "it was changed"


def peak(work):
    Path("/proc/self/clear_refs").write_text("5")
    start = memory()
    held = work()
    return memory() - start


def memory():
    (line,) = [x for x in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in x]
    return int(line.split()[1]) * 1024


processes = Processes(W, torch.device("cpu"))
own = [torch.ones(1_000_000) for _ in range(30)]  # 120 MB in all
processes.sum([torch.ones(1)], [torch.ones(1)])
told = {"peak": peak(lambda: processes.sum(own, own)), "n": sum(each.nbytes for each in own)}
told["bucket"] = processes._buckets.largest
Path(f"told-{processes.rank}.json").write_text(json.dumps(told))
processes.close()
"""


@pytest.mark.parametrize("count", [2, 4])
def test_a_sum_in_buckets_has_its_bits_and_little_memory(own_project: Project, count: int) -> None:
    """Beside what a process brings: the totals, the buffer, and what gloo keeps."""
    (own_project.path / "experiment" / "sums.py").write_text(SUMS)
    done = own_project.processes(count, "experiment.sums")
    assert done.returncode == 0, done.stderr
    found = [json.loads(path.read_text()) for path in own_project.path.glob("told-*.json")]
    assert len(found) == count
    for told in found:
        assert told["bucket"] == 8 << 20
        assert told["peak"] <= told["n"] + (96 << 20)  # without buckets it was 3 n
