"""`repro audit`: every operation of the catalogue is found where a model uses it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from repro.diagnosis import catalogue
from repro.diagnosis.audit import findings
from repro.diagnosis.operations import Recorder
from torch import Tensor, nn
from torch.nn import functional

AT = torch.tensor([0, 1, 1, 2])


def r(*shape: int) -> Tensor:
    return torch.rand(*shape, requires_grad=True)


def attention(q: Tensor) -> Tensor:
    return functional.scaled_dot_product_attention(q, q, q)


def grid(x: Tensor) -> Tensor:
    return functional.grid_sample(x, torch.zeros(1, 3, 3, 2), align_corners=False)


def ctc(x: Tensor) -> Tensor:
    targets, lengths = torch.tensor([[1, 2], [1, 3]]), torch.tensor([5, 5])
    return functional.ctc_loss(x.log_softmax(-1), targets, lengths, torch.tensor([2, 2]))


def resized() -> Tensor:
    quantized = torch.quantize_per_tensor(torch.arange(4.0), 0.1, 0, torch.quint8)
    return quantized.resize_(2).dequantize()


def unpooled(x: Tensor, pool: nn.Module, unpool: nn.Module) -> Tensor:
    found: Tensor = unpool(*pool(x))
    return found


USES: dict[str, Any] = {
    "torch.nn.AvgPool3d": lambda: nn.AvgPool3d(2)(r(1, 1, 4, 4, 4)),
    "torch.nn.AdaptiveAvgPool2d": lambda: nn.AdaptiveAvgPool2d(3)(r(1, 1, 8, 8)),
    "torch.nn.AdaptiveAvgPool3d": lambda: nn.AdaptiveAvgPool3d(3)(r(1, 1, 8, 8, 8)),
    "torch.nn.AdaptiveMaxPool2d": lambda: nn.AdaptiveMaxPool2d(3)(r(1, 1, 8, 8)),
    "torch.nn.FractionalMaxPool2d": lambda: nn.FractionalMaxPool2d(2, 3)(r(1, 1, 8, 8)),
    "torch.nn.FractionalMaxPool3d": lambda: nn.FractionalMaxPool3d(2, 3)(r(1, 1, 8, 8, 8)),
    "torch.nn.MaxUnpool1d": lambda: unpooled(
        r(1, 1, 8), nn.MaxPool1d(2, return_indices=True), nn.MaxUnpool1d(2)
    ),
    "torch.nn.MaxUnpool2d": lambda: unpooled(
        r(1, 1, 4, 4), nn.MaxPool2d(2, return_indices=True), nn.MaxUnpool2d(2)
    ),
    "torch.nn.MaxUnpool3d": lambda: unpooled(
        r(1, 1, 4, 4, 4), nn.MaxPool3d(2, return_indices=True), nn.MaxUnpool3d(2)
    ),
    "torch.nn.functional.interpolate": lambda: functional.interpolate(
        r(1, 1, 4, 4), scale_factor=2, mode="bilinear"
    ),
    "torch.nn.ReflectionPad1d": lambda: nn.ReflectionPad1d(1)(r(1, 1, 4)),
    "torch.nn.ReflectionPad2d": lambda: nn.ReflectionPad2d(1)(r(1, 1, 4, 4)),
    "torch.nn.ReflectionPad3d": lambda: nn.ReflectionPad3d(1)(r(1, 1, 4, 4, 4)),
    "torch.nn.NLLLoss": lambda: functional.nll_loss(r(1, 3, 4, 4), torch.zeros(1, 4, 4).long()),
    "torch.nn.CTCLoss": lambda: ctc(r(5, 2, 4)),
    "torch.nn.EmbeddingBag": lambda: functional.embedding_bag(AT[None], r(3, 4), mode="max"),
    "torch.Tensor.put_": lambda: torch.zeros(4).put_(AT, r(4)),
    "torch.histc": lambda: torch.histc(torch.rand(9), 4),
    "torch.bincount": lambda: torch.bincount(AT, torch.rand(4)),
    "torch.median": lambda: r(3, 4).median(1)[0],
    "torch.nn.functional.grid_sample": lambda: grid(r(1, 1, 4, 4)),
    "torch.Tensor.scatter_reduce": lambda: torch.zeros(4).scatter_reduce(0, AT, r(4), "prod"),
    "torch.Tensor.resize_": resized,
    "torch.nn.functional.scaled_dot_product_attention": lambda: attention(r(1, 2, 8, 8)),
    "torch.nn.Conv, torch.nn.ConvTranspose": lambda: nn.ConvTranspose2d(1, 1, 3)(r(1, 1, 5, 5)),
    "torch.nn.ReplicationPad": lambda: nn.ReplicationPad2d(1)(r(1, 1, 4, 4)),
    "torch.bmm of a sparse tensor": lambda: torch.bmm(torch.eye(3)[None].to_sparse(), r(1, 3, 3)),
    "torch.cumsum": lambda: r(4).cumsum(0),
    "torch.Tensor.index_put, x[i] with a tensor i": lambda: r(4)[AT],
    "torch.Tensor.scatter_add, torch.gather": lambda: r(4).gather(0, AT),
    "torch.index_add, torch.index_select": lambda: r(4).index_select(0, AT),
    "torch.Tensor.index_copy": lambda: torch.zeros(4).index_copy(0, torch.arange(4), r(4)),
    "torch.Tensor.scatter": lambda: torch.zeros(4).scatter(0, AT, r(4)),
    "torch.Tensor.scatter_reduce of a sum or mean": lambda: torch.zeros(4).scatter_reduce(
        0, AT, r(4), "mean"
    ),
    "torch.nn.MaxPool3d": lambda: nn.MaxPool3d(2)(r(1, 1, 4, 4, 4)),
    "torch.nn.Embedding": lambda: nn.Embedding(4, 3)(AT),
    "torch.repeat_interleave": lambda: r(4).repeat_interleave(AT),
    "torch.sqrt, x ** 0.5": lambda: r(4) ** 0.5,
}


HARMLESS = {
    "one value of each channel": lambda: nn.AdaptiveAvgPool2d(1)(r(1, 1, 8, 8)),
    "another mode": lambda: functional.interpolate(r(1, 1, 4, 4), scale_factor=2, mode="nearest"),
    "no weights": lambda: torch.bincount(AT),
    "a loss of rows": lambda: functional.cross_entropy(r(4, 3), AT),
    "a sum of embeddings": lambda: functional.embedding_bag(AT[None], r(3, 4), mode="sum"),
    "integers": lambda: AT.cumsum(0),
    "a median alone": lambda: r(5).median(),
    "a square": lambda: r(4) ** 2 + r(4).rsqrt() + r(4).norm(),
    "the largest": lambda: torch.zeros(4).scatter_reduce(0, AT, torch.rand(4), "amax"),
}


def found(call: Any) -> set[str]:
    recorder = Recorder(Path("/nowhere"), ())
    with recorder.recording():
        result = call()
        if result.requires_grad:
            result.sum().backward()
    return {risky.operation for risky in findings(recorder.operations)}


def test_each_operation_of_the_catalogue_is_known() -> None:
    tables = (
        catalogue.NO_DETERMINISTIC_VERSION_ON_CUDA,
        catalogue.NOT_REFUSED_ON_CUDA,
        catalogue.NOT_PORTABLE_ON_CPU,
        catalogue.SLOWER_ON_CUDA,
    )
    assert set(USES) == {name for table in tables for name in table}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", USES)
def test_an_operation_is_found(name: str) -> None:
    assert name in found(USES[name])


@pytest.mark.parametrize("name", HARMLESS)
def test_what_does_no_harm_is_not_reported(name: str) -> None:
    assert not found(HARMLESS[name])


def test_a_large_tensor_changed_in_place_is_read_again() -> None:
    recorder = Recorder(Path("/nowhere"), ())
    large = torch.zeros(300_000)
    with recorder.recording():
        large.add_(1)
        large.mul_(2)
    add, multiply = recorder.operations
    assert add.inputs[0].fingerprint != add.outputs[0].fingerprint
    assert multiply.inputs[0].fingerprint == add.outputs[0].fingerprint
    assert multiply.outputs[0].fingerprint != add.outputs[0].fingerprint
