"""What a recorder notes of an exchange: what goes out, and never what may not have arrived yet."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.distributed._functional_collectives as collectives
from repro.diagnosis.operations import Recorder
from repro.diagnosis.step_file import REPLACED
from repro.diagnosis.written import received_by


@pytest.fixture
def group(tmp_path: Path) -> Iterator[None]:
    """A group of this process alone."""
    store = dist.FileStore(str(tmp_path / "store"), 1)
    dist.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("group")
def test_of_what_arrives_no_numbers_are_noted(tmp_path: Path) -> None:
    """It may arrive while a fingerprint is made: two recordings of a step would differ."""
    mine, all_, own = torch.ones(4), torch.full((4,), 2.0), torch.full((4,), 3.0)
    listed = [torch.full((4,), 4.0)]
    recorder = Recorder(tmp_path, ())
    with recorder.recording():
        dist.all_gather_single(all_, mine)
        dist.all_gather(listed, mine)
        dist.reduce_scatter_single(own, all_)
        dist.all_reduce(mine)
        summed = collectives.all_reduce(mine, "sum", dist.group.WORLD)
        summed = collectives.wait_tensor(summed)
        copied = mine + 1
    noted = {
        operation.name: [tensor.fingerprint for tensor in operation.inputs]
        for operation in recorder.operations
    }
    sent = noted["aten.add.Tensor"][0]
    assert noted["c10d._allgather_base_"] == [REPLACED, sent]
    assert noted["c10d.allgather_"] == [REPLACED, sent]
    assert noted["c10d._reduce_scatter_base_"] == [REPLACED, sent]  # all_ holds the same by now
    assert noted["c10d.allreduce_"] == [sent]
    assert noted["_c10d_functional.all_reduce"] == [sent]
    under_way = {"_c10d_functional.wait_tensor", "_c10d_functional._wrap_tensor_autograd"}
    for name in under_way & set(noted):
        assert noted[name] == [REPLACED]
    assert under_way & set(noted)
    assert summed.tolist() == [1.0] * 4
    assert copied.tolist() == [2.0] * 4


def test_every_way_to_receive_is_known() -> None:
    """Of all operations of exchanges that this torch has; more than one tensor tells which."""
    received = set()
    for name in torch._C._dispatch_get_all_op_names():
        namespace, _, word = name.partition("::")
        if "c10d" not in namespace:
            continue
        function = getattr(getattr(getattr(torch.ops, namespace), word), "default")  # noqa: B009
        arguments = function._schema.arguments
        given = [torch.ones(1) if "Tensor" in str(each.type) else None for each in arguments]
        names = [each.name for each in arguments]
        for tensor in received_by(function, given, {}):
            (place,) = [number for number, each in enumerate(given) if each is tensor]
            received.add(f"{word} {names[place]}")
    receiving = {name.partition(" ")[0] for name in received}
    assert receiving >= {"irecv", "recv_", "recv_any_source_", "batch_p2p_ops", "wait_tensor"}
    assert receiving >= {"_allgather_base_", "_reduce_scatter_base_", "alltoall_", "scatter_"}
    assert not [name for name in received if "input" in name and "wrap" not in name]


def test_memory_that_was_given_up_says_nothing_of_what_comes_to_its_place(tmp_path: Path) -> None:
    """As FSDP2 gives up whole weights: nobody wrote there, and then somebody else has it."""
    recorder = Recorder(tmp_path, ())
    given_up, written = torch.empty(4), torch.ones(4)
    given_up.untyped_storage().resize_(0)
    recorder._unwritten[written.data_ptr()] = given_up
    with recorder.recording():
        doubled = written + written
    assert doubled.tolist() == [2.0] * 4
    assert [(each.unwritten, each.inputs[0][0] == "unwritten") for each in recorder.operations] == [
        (False, False)
    ]
