"""Batches of any kind, sums with weights, samples that come again: what would be wrong in silence.

Gradients in shards are compared with the plain formula; several processes are held by
tests/project/test_processes.py.
"""

import random
from collections import UserDict, namedtuple
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from repro.core.errors import UserError
from repro.runs.fingerprints import fingerprint
from repro.training.batches import cut, mapped, moved, size_of, tensors_of
from repro.training.halves import checking_sums
from repro.training.loading import batches_in_order, batches_of_steps
from repro.training.parallel import Processes, backward_in_shards, shard_slices, slices_here
from repro.training.sampling import SampleKey, Schedule, naming_samples, sample_seed
from repro.training.weighted import BadLoss, Weighted
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_sequence, pad_sequence
from torch.utils.data import Dataset, IterableDataset, TensorDataset

Pair = namedtuple("Pair", "first second")
CPU = torch.device("cpu")

# Batches ---------------------------------------------------------------------------------------


def nested() -> dict[str, Any]:
    return {
        "ids": torch.arange(12).reshape(4, 3),
        "nested": (torch.rand(4), [torch.ones(4, 2), Pair(torch.zeros(4), torch.rand(4))]),
        "names": ["a", "b", "c", "d"],
        "rate": 0.5,
        "none": None,
    }


def test_every_tensor_of_a_nested_batch_is_changed_and_its_kinds_stay() -> None:
    batch = nested()
    doubled = mapped(batch, lambda tensor: tensor * 2)
    assert torch.equal(doubled["ids"], batch["ids"] * 2)
    assert isinstance(doubled["nested"], tuple)
    pair = doubled["nested"][1][1]
    assert isinstance(pair, Pair)
    assert torch.equal(pair.second, batch["nested"][1][1].second * 2)
    assert doubled["names"] == ["a", "b", "c", "d"]
    packed = moved(pack_sequence([torch.ones(3), torch.ones(2)]), CPU)
    assert isinstance(packed, PackedSequence)


@pytest.mark.parametrize(
    "change",
    [
        lambda batch: batch["nested"][1][1].second.add_(1),
        lambda batch: batch["names"].__setitem__(1, "x"),
        lambda batch: batch.update(rate=0.25),
        lambda batch: batch.update(other=batch.pop("none")),
        lambda batch: batch.update(none=0),
    ],
)
def test_a_fingerprint_tells_each_part_of_a_batch(change: Callable[[Any], object]) -> None:
    torch.manual_seed(0)
    one = nested()
    torch.manual_seed(0)
    two = nested()
    assert fingerprint([*tensors_of(one)]) == fingerprint([*tensors_of(two)])
    change(two)
    assert fingerprint([*tensors_of(one)]) != fingerprint([*tensors_of(two)])


def test_a_batch_is_cut_along_the_first_dimension_of_all_of_it() -> None:
    """A dict was cut by the characters of its keys, a nested tuple by columns."""
    batch = nested()
    parts = cut(batch, shard_slices(4, 2))
    assert torch.equal(torch.cat([part["ids"] for part in parts]), batch["ids"])
    assert [part["names"] for part in parts] == [["a", "b"], ["c", "d"]]
    assert torch.equal(parts[1]["nested"][1][1].second, batch["nested"][1][1].second[2:])
    assert [part["rate"] for part in parts] == [0.5, 0.5]
    assert cut(batch, shard_slices(4, 8))[0] is None
    assert size_of(batch) == 4


@pytest.mark.parametrize(
    "batch",
    [
        {"ids": torch.ones(4, 3), "lengths": torch.ones(3)},
        [torch.ones(4), torch.tensor(1.0)],
        pack_sequence([torch.ones(3), torch.ones(2)]),
        {"rate": 0.5},
    ],
)
def test_first_dimensions_that_are_not_equal_are_refused(batch: Any) -> None:
    with pytest.raises(UserError, match="first dimensions of a batch"):
        cut(batch, shard_slices(4, 2))


@pytest.mark.parametrize("act", [lambda b: moved(b, CPU), lambda b: [*tensors_of(b)], size_of])
def test_what_is_no_batch_is_refused_by_its_type(act: Callable[[Any], object]) -> None:
    with pytest.raises(UserError, match=r"a batch holds a builtins\.set"):
        act([torch.ones(2), {1, 2}])


def test_a_packed_batch_moves_but_for_its_sizes() -> None:
    packed = pack_sequence([torch.ones(2), torch.ones(3)], enforce_sorted=False)
    there = moved(packed, torch.device("meta"))
    assert there.data.is_meta
    assert there.sorted_indices.is_meta
    assert not there.batch_sizes.is_meta


def test_a_dict_of_another_kind_keeps_it() -> None:
    class Encoding(UserDict[str, Any]):
        def __init__(self, data: dict[str, Any], needed: int) -> None:
            super().__init__(data)
            self.needed = needed

    batch = Encoding({"ids": torch.ones(4)}, needed=3)
    for made in (moved(batch, CPU), *cut(batch, [slice(2), slice(2, 4)])):
        assert isinstance(made, Encoding)
        assert made.needed == 3
    assert len(batch["ids"]) == 4


def test_slices_beyond_a_batch_are_refused() -> None:
    with pytest.raises(UserError, match="a batch of 4 samples"):
        cut(torch.ones(4), shard_slices(8, 2))


# Loading ---------------------------------------------------------------------------------------


class Sentences(Dataset[Tensor]):
    """Sequences of other lengths, each made with random numbers."""

    def __len__(self) -> int:
        return 13

    def __getitem__(self, index: int) -> Tensor:
        return torch.cat([torch.full((index % 5 + 1,), float(index)), torch.rand(1)])


@pytest.mark.parametrize("workers", [0, 2])
def test_each_shard_is_collated_alone(workers: int) -> None:
    """A batch that is padded as a whole and then cut has other bits with two processes."""
    schedule = Schedule(13, 8, 42)
    shards = Processes(4, CPU)
    made = batches_of_steps(
        Sentences(),
        schedule,
        range(3),
        num_workers=workers,
        slices=lambda size: slices_here(size, shards),
        collate=lambda samples: pad_sequence(samples, batch_first=True),
    )
    for step, (indices, batches) in enumerate(made):
        assert indices.tolist() == [key.sample for key in schedule.keys(step)]
        places = shard_slices(schedule.length(step), 4)
        assert [0 if b is None else len(b) for b in batches] == [p.stop - p.start for p in places]
        longest = [max(i % 5 + 2 for i in indices[p].tolist()) for p in places if p.start < p.stop]
        assert [batch.shape[1] for batch in batches if batch is not None] == longest


def test_an_index_that_comes_again_in_an_epoch_gets_other_random_numbers() -> None:
    class Noise(Dataset[Tensor]):
        def __getitem__(self, index: int) -> Tensor:
            return torch.rand(())

    schedule = Schedule(6, 3, 42, order=lambda seed, epoch: [3, 1, 3, 3, 2, 1])
    assert schedule.keys(1) == [SampleKey(0, 3, 2), SampleKey(0, 2, 0), SampleKey(0, 1, 1)]
    values = [
        value for _, [batch] in batches_of_steps(Noise(), schedule, range(4)) for value in batch
    ]
    assert len({*map(float, values)}) == 12
    # Resumed after step 1, and as it was before occurrences counted where an index comes once.
    (again,) = batches_of_steps(Noise(), schedule, range(1, 2))
    assert torch.equal(again.shards[0], torch.stack(values[3:6]))
    assert sample_seed(42, 0, 3) == sample_seed(42, 0, 3, 0) != sample_seed(42, 0, 3, 1)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_collate_may_draw_random_numbers(workers: int) -> None:
    def collate(samples: list[Tensor]) -> list[float]:
        return [torch.rand(1).item(), random.random(), np.random.rand()]

    def drawn(processes: Processes, here: range) -> list[list[float]]:
        made = batches_of_steps(
            TensorDataset(torch.ones(16)),
            Schedule(16, 8, 42),
            range(4),
            num_workers=workers,
            slices=lambda size: slices_here(size, processes)[here.start : here.stop],
            collate=collate,
        )
        return [batch for _, batches in made for batch in batches]

    four = Processes(4, CPU)
    whole = drawn(four, range(4))
    assert all(len({*column}) == 16 for column in zip(*whole, strict=True))
    assert drawn(four, range(2, 4)) == [batch for k, batch in enumerate(whole) if k % 4 > 1]


def test_a_collate_that_returns_nothing_is_refused() -> None:
    batches = batches_of_steps(
        TensorDataset(torch.ones(8)), Schedule(8, 4, 1), range(1), collate=lambda samples: None
    )
    with pytest.raises(UserError, match="collate returned None"):
        next(batches)


ORDERS = {
    "'float' object cannot be interpreted": [0, 1.9, 2, 3],
    "has -1: indices are from 0": [0, -1, 2, 3],
    "has the sample 4: indices end before 4": [0, 1, 2, 4],
}


@pytest.mark.parametrize("told", ORDERS)
def test_an_order_with_what_is_no_index_is_refused(told: str) -> None:
    schedule = Schedule(4, 4, 1, order=lambda seed, epoch: ORDERS[told])  # type: ignore[arg-type]
    with pytest.raises(UserError, match=told):
        next(batches_of_steps(TensorDataset(torch.ones(4)), schedule, range(1)))


def test_an_order_may_be_any_callable_with_any_integers() -> None:
    @dataclass
    class Order:
        size: int

        def __call__(self, seed: int, epoch: int) -> Any:
            return torch.arange(self.size) if epoch else np.arange(self.size)

    schedule = Schedule(4, 4, 1, order=Order(4))
    assert schedule.keys(1) == [SampleKey(1, index) for index in range(4)]


def test_an_order_of_another_length_is_refused() -> None:
    schedule = Schedule(6, 3, 42, order=lambda seed, epoch: [0] * (6 + epoch))
    schedule.keys(0)
    with pytest.raises(UserError, match="epoch 2 has 7 indices: expected 6"):
        schedule.keys(2)


def test_a_data_set_that_only_streams_is_refused() -> None:
    class Stream(IterableDataset[int]):
        def __iter__(self) -> Iterator[int]:
            yield 0

    for make in (
        lambda: batches_of_steps(Stream(), Schedule(6, 3, 42), range(1)),
        lambda: batches_in_order(Stream(), range(6), 3, 42),
    ):
        with pytest.raises(UserError, match="Stream is an IterableDataset"):
            make()


# Sums with weights -----------------------------------------------------------------------------


def masked_loss(model: nn.Module) -> Callable[[int, Any], Weighted]:
    """Of targets that count, which are few in some samples: their number is no sample's."""

    def loss(shard: int, batch: Any) -> Weighted:
        losses = (model(batch["x"]) - batch["y"]).square().sum(-1)
        return Weighted((losses * batch["mask"]).sum(), batch["mask"].sum())

    return loss


@pytest.mark.parametrize("shards", [1, 2, 8])
def test_masked_targets_have_the_gradient_of_the_plain_formula(shards: int) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3))
    mask = (torch.rand(32) > 0.7).float()
    mask[:4] = 0  # a shard without a target that counts
    batch = {"x": torch.rand(32, 5), "y": torch.rand(32, 3), "mask": mask}
    whole = masked_loss(model)(0, batch)
    mean = whole.sum / whole.weight
    expected = torch.autograd.grad(mean, [*model.parameters()])
    processes = Processes(shards, CPU)
    batches = cut(batch, slices_here(32, processes))
    loss = backward_in_shards(model, batches, 32, processes, masked_loss(model))
    assert loss.item() == pytest.approx(mean.item(), rel=1e-6)
    gradients = [parameter.grad for parameter in model.parameters()]
    apart = torch.cat([(a - b).flatten() for a, b in zip(gradients, expected, strict=True)])
    norm = torch.cat([b.flatten() for b in expected]).norm()
    assert apart.norm() / norm < 1e-6
    if shards == 1:
        assert all(torch.equal(a, b) for a, b in zip(gradients, expected, strict=True))


REFUSED = {
    "has no gradient": lambda losses: Weighted(losses.detach().sum(), 8),
    "lone tensor": lambda losses: losses.mean(),
    "is a float": lambda losses: 1.0,
    "not one value": lambda losses: Weighted(losses, 8),
    "without a gradient": lambda losses: Weighted(losses.sum(), losses.sum()),
    "weight of the whole batch is 0": lambda losses: Weighted(losses.sum(), 0),
    "negative or not finite": lambda losses: Weighted(losses.sum(), -1.0),
    "not finite": lambda losses: Weighted(losses.sum(), torch.tensor(float("nan"))),
}


@pytest.mark.parametrize("shards", [1, 4])
@pytest.mark.parametrize("told", REFUSED)
def test_a_loss_that_no_mean_can_be_made_of_is_refused_with_its_samples(
    told: str, shards: int
) -> None:
    model = nn.Linear(2, 1)
    processes = Processes(shards, CPU)
    batches = cut(torch.rand(8, 2), slices_here(8, processes))
    schedule = Schedule(16, 8, 42)

    def loss(shard: int, batch: Tensor) -> Any:
        return REFUSED[told](model(batch).squeeze(1))

    with pytest.raises(UserError, match=told) as refused, naming_samples(schedule, 1):
        backward_in_shards(model, batches, 8, processes, loss)
    samples = " ".join(str(key.sample) for key in schedule.keys(1))
    assert refused.value.lines[0].startswith("step 2: ")
    assert f"epoch 1: {samples}" in refused.value.lines[1]


def test_one_negative_weight_among_others_is_refused() -> None:
    model = nn.Linear(2, 1)
    processes = Processes(2, CPU)
    batches = cut(torch.rand(8, 2), slices_here(8, processes))
    with pytest.raises(BadLoss, match="negative"):
        backward_in_shards(
            model, batches, 8, processes, lambda k, b: Weighted(model(b).sum(), 8 - 10 * k)
        )


def test_one_batch_is_expected_for_each_shard() -> None:
    model = nn.Linear(2, 1)
    with pytest.raises(UserError, match="got 2 batches, and this process computes 1 shards"):
        backward_in_shards(
            model,
            [torch.rand(8, 2), torch.rand(8)],
            8,
            Processes(1, CPU),
            lambda shard, batch: Weighted(model(batch).sum(), 8),
        )


def test_a_weight_may_be_larger_than_the_sums_type_holds() -> None:
    total = torch.tensor(30000.0, dtype=torch.float16)
    assert float(Weighted(total, torch.tensor(70000)).mean()) == pytest.approx(3 / 7)
    assert float(Weighted(total, torch.tensor([70000])).mean()) == pytest.approx(3 / 7)


def test_the_mean_of_nothing_counts_as_a_sum_of_0() -> None:
    weight = torch.ones(2, requires_grad=True)
    loss = Weighted.of_mean((weight * torch.tensor([])[:0].sum()).sum() / 0.0, 0)
    assert loss.sum.item() == 0


def test_a_mean_with_its_weight_is_the_sum() -> None:
    values = torch.rand(7)
    loss = Weighted.of_mean(values.mean(), 7)
    assert float(loss.sum) == pytest.approx(float(values.sum()))
    assert float(loss.mean()) == pytest.approx(float(values.mean()))


# Halves ----------------------------------------------------------------------------------------

LOSSES: dict[str, tuple[Callable[[Tensor], Weighted], list[str]]] = {
    "a sum": (lambda losses: Weighted(losses.sum(), len(losses)), []),
    "a mean with its weight": (lambda losses: Weighted.of_mean(losses.mean(), len(losses)), []),
    "a mean as a sum": (lambda losses: Weighted(losses.mean(), len(losses)), ["sum"]),
    "a mean and a weight of 1": (lambda losses: Weighted(losses.mean(), 1), ["sum", "weight"]),
    "coupled": (lambda losses: Weighted(losses.softmax(0).square().sum(), len(losses)), ["sum"]),
    "coupled, and said so": (
        lambda losses: Weighted(losses.softmax(0).square().sum(), len(losses), coupled=True),
        [],
    ),
}


def pairs(losses: Tensor) -> Weighted:
    """Of a contrastive loss that needs as many samples as were asked for."""
    return Weighted(losses.reshape(-1, 4).sum(), len(losses), coupled=True)


def with_noise(losses: Tensor) -> Weighted:
    return Weighted((losses * (1 + 0.1 * torch.rand_like(losses))).sum(), len(losses))


def mean_with_noise(losses: Tensor) -> Weighted:
    return Weighted((losses * (1 + 0.1 * torch.rand_like(losses))).mean(), len(losses))


LOSSES |= {
    "pairs": (pairs, []),
    "pairs that do not say so": (lambda losses: Weighted(pairs(losses).sum, len(losses)), []),
    "noise": (with_noise, []),
    "a mean with noise": (mean_with_noise, ["sum"]),
}


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("shards", [1, 2])
def test_a_mean_passed_as_a_sum_is_found(name: str, shards: int) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 1))
    processes = Processes(shards, CPU)
    batches = cut(torch.rand(8, 2), slices_here(8, processes))
    make, expected = LOSSES[name]
    model[2].eval()  # frozen by its author: it has to stay so

    def loss(shard: int, batch: Tensor) -> Weighted:
        torch.manual_seed(shard)
        return make(model(batch).squeeze(1).square())

    with checking_sums() as differences:
        backward_in_shards(model, batches, 8, processes, loss)
    assert [difference.of for difference in differences] == expected
    assert [module.training for module in model] == [True, True, False, True]


def test_what_cannot_be_cut_is_not_checked_and_nothing_is_checked_unasked() -> None:
    model = nn.Linear(1, 1)
    processes = Processes(1, CPU)
    asked = []

    def loss(shard: int, batch: Any) -> Weighted:
        asked.append(batch)
        data = batch.data if isinstance(batch, PackedSequence) else batch
        return Weighted(model(data.reshape(-1, 1)).mean(), 1)

    packed = pack_sequence([torch.ones(3), torch.ones(2)])
    with checking_sums() as differences:
        backward_in_shards(model, [packed], 2, processes, loss)
    backward_in_shards(model, [torch.ones(4)], 4, processes, loss)
    assert len(asked) == 2
    assert differences == []
