"""`repro audit`: every operation of the catalogue is found where a model uses it."""

from __future__ import annotations

import platform
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import torch
from alerts import alerts
from repro.diagnosis import catalogue
from repro.diagnosis.audit import EVALUATION, TRAINING, VARIES, Audit, findings
from repro.diagnosis.operations import Recorder
from repro.diagnosis.step_file import Operation
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.checkpoint import checkpoint

AT = torch.tensor([0, 1, 1, 2])


def r(*shape: int) -> Tensor:
    return torch.rand(*shape, requires_grad=True)


def attention(q: Tensor, **options: Any) -> Tensor:
    return functional.scaled_dot_product_attention(q, q, q, **options)


def with_math_alone(q: Tensor) -> Tensor:
    with sdpa_kernel(SDPBackend.MATH):
        return attention(q, dropout_p=0.5)


def without_gradient(call: Any) -> Tensor:
    with torch.no_grad():
        result: Tensor = call()
    return result


def multihead(x: Tensor) -> Tensor:
    return nn.MultiheadAttention(8, 2, dropout=0.5)(x, x, x, need_weights=False)[0]


def transformer_layer(dropout: float = 0.5) -> nn.Module:
    return nn.TransformerEncoderLayer(8, 2, 16, dropout, batch_first=True)


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
        r(1, 1, 4, 4), scale_factor=2, mode="bicubic"
    ),
    "torch.nn.functional.interpolate, bilinear or trilinear": lambda: functional.interpolate(
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
    "torch.Tensor.index_reduce": lambda: torch.ones(4).index_reduce(0, AT, r(4), "amax"),
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

INTERPOLATED: dict[str, Any] = {
    "linear": lambda: functional.interpolate(r(1, 1, 4), scale_factor=2, mode="linear"),
    "bicubic": lambda: nn.Upsample(scale_factor=2, mode="bicubic")(r(1, 1, 4, 4)),
    "bilinear": lambda: nn.Upsample(scale_factor=2, mode="bilinear")(r(1, 1, 4, 4)),
    "trilinear": lambda: nn.Upsample(scale_factor=2, mode="trilinear")(r(1, 1, 4, 4, 4)),
    "bilinear with antialias": lambda: functional.interpolate(
        r(1, 1, 8, 8), scale_factor=0.5, mode="bilinear", antialias=True
    ),
    "bicubic with antialias": lambda: functional.interpolate(
        r(1, 1, 8, 8), scale_factor=0.5, mode="bicubic", antialias=True
    ),
}

# The names by which operations say that they have no deterministic version, in the libraries of
# torch 2.14, and the catalogue's entries.
_INTERPOLATE = "torch.nn.functional.interpolate"
ALERTS = {
    "_bincount_cuda": "torch.bincount",
    "_histc_cuda with floating point input": "torch.histc",
    "adaptive_avg_pool2d_backward*_cuda": "torch.nn.AdaptiveAvgPool2d",
    "adaptive_avg_pool3d_backward*_cuda": "torch.nn.AdaptiveAvgPool3d",
    "adaptive_max_pool2d_backward_cuda": "torch.nn.AdaptiveMaxPool2d",
    "avg_pool3d_backward_cuda": "torch.nn.AvgPool3d",
    "ctc_loss_backward_gpu": "torch.nn.CTCLoss",
    "cudnn_grid_sampler_backward": "torch.nn.functional.grid_sample",
    "embedding_bag_backward_cuda_max": "torch.nn.EmbeddingBag",
    "fractional_max_pool2d_backward_cuda": "torch.nn.FractionalMaxPool2d",
    "fractional_max_pool3d_backward*_cuda": "torch.nn.FractionalMaxPool3d",
    "grid_sampler_?d_backward_cuda": "torch.nn.functional.grid_sample",
    "index_reduce_cuda": "torch.Tensor.index_reduce",
    "max_unpooling2d_forward_out": "torch.nn.MaxUnpool2d",
    "max_unpooling3d_forward_out": "torch.nn.MaxUnpool3d",
    "median CUDA with indices output": "torch.median",
    "nll_loss2d_forward_out_cuda_template": "torch.nn.NLLLoss",
    "put_": "torch.Tensor.put_",
    "quantized_resize_cpu_": "torch.Tensor.resize_",
    "reflection_pad1d_backward_out_cuda": "torch.nn.ReflectionPad1d",
    "reflection_pad3d_backward_out_cuda": "torch.nn.ReflectionPad3d",
    "scatter_reduce_cuda_kernel": "torch.Tensor.scatter_reduce",
    "scatter_reduce_cuda_prod_": "torch.Tensor.scatter_reduce",
    "upsample_bicubic2d*_backward_out_cuda": _INTERPOLATE,
    "upsample_bilinear2d_aa_backward_out_cuda": _INTERPOLATE,
    "upsample_linear1d_backward_out_cuda": _INTERPOLATE,
    # In strict mode these are never reached: torch takes another way.
    "max_pool3d_with_indices_backward*_cuda": "torch.nn.MaxPool3d",
    "replication_pad?d_backward*_cuda": "torch.nn.ReplicationPad",
    "scatter_cuda_": "torch.Tensor.scatter",
    "upsample_bilinear2d_backward_out_cuda": f"{_INTERPOLATE}, bilinear or trilinear",
    "upsample_trilinear3d_backward_out_cuda": f"{_INTERPOLATE}, bilinear or trilinear",
}
# Refused in an operation of another name: MaxUnpool1d is that of an image of one line.
OF_ANOTHER_NAME = {"torch.nn.MaxUnpool1d"}

# Attention that the CPU does by plain products and sums, where CUDA has fused kernels.
FUSED_ON_CUDA: dict[str, Any] = {
    "dropout": lambda: attention(r(1, 2, 8, 8), dropout_p=0.5),
    "a mask to be learnt": lambda: attention(torch.rand(1, 2, 8, 8), attn_mask=r(8, 8)),
    "MultiheadAttention": lambda: multihead(r(1, 4, 8)),
    "TransformerEncoderLayer": lambda: transformer_layer()(r(1, 4, 8)),
    "bfloat16": lambda: attention(r(1, 2, 8, 8).bfloat16(), dropout_p=0.5),
    "a checkpoint": lambda: checkpoint(
        lambda q: attention(q, dropout_p=0.5), r(1, 2, 8, 8), use_reentrant=False
    ),
    "a checkpoint whose forward has no gradient": lambda: checkpoint(
        lambda q: attention(q, dropout_p=0.5), r(1, 2, 8, 8), use_reentrant=True
    ),
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
    "attention of inputs without gradient": lambda: attention(torch.rand(1, 2, 8, 8)),
    "attention without gradient": lambda: without_gradient(lambda: attention(r(1, 2, 8, 8))),
    "attention by products alone": lambda: with_math_alone(r(1, 2, 8, 8)),
    "attention in evaluation": lambda: without_gradient(
        lambda: transformer_layer().eval()(torch.rand(1, 4, 8))
    ),
}

# All operators that CUDA has kernels for and the CPU has not, and why the recording of a step on
# the CPU misses none whose gradient varies.
ONLY_ON_CUDA = {
    "*attention*": "their gradients vary: the calls are noted (catalogue.NOTED_CALLS)",
    "_fill_mem_eff_dropout_mask_": "of such an attention, for tests",
    "*ctc_loss*": "the CPU's _ctc_loss is known; of cuDNN's, torch takes the deterministic one",
    "cudnn_grid_sampler*": "the CPU's grid_sampler_2d is known",
    "*conv_*|*convolution*": "of a convolution, which is known",
    "*_rnn*|_cudnn_init_dropout_state": "one size of CUBLAS_WORKSPACE_CONFIG (the profile's) makes "
    "them deterministic: torch.nn.LSTM's documentation, cuDNN 8's release notes",
    "_thnn_fused_*|_fused_dropout|_masked_scale": "each value alone, no sums over threads",
    "*batch_norm*|_fused_rms_norm*": "not among those that torch or cuDNN documents as varying",
    "cudnn_affine_grid_generator*": "torch.nn.functional.affine_grid does not use it",
    "mm|bmm|addmm|baddbmm": "products with another type of output, of cuBLAS as all others",
    "_scaled_grouped_mm*|_mixed_dtypes_linear|_*int4pack*": "of small types: the CPU refuses them",
    "_cslt_*|_sparse_semi_structured_*|_to_sparse_semi_structured": "the CPU refuses them",
    "record_stream": "computes nothing",
}


def recorded(call: Any) -> list[Operation]:
    """What audit records of a call and of its gradient."""
    recorder = Recorder(Path("/nowhere"), ())
    with recorder.recording(), recorder.noting(catalogue.NOTED_CALLS):
        result = call()
        if result.requires_grad:
            result.sum().backward()
    return recorder.operations


def found(call: Any) -> set[str]:
    return {risky.operation for risky in findings(recorded(call))}


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


@pytest.mark.parametrize("name", FUSED_ON_CUDA)
def test_attention_that_cuda_fuses_is_found_once(name: str) -> None:
    entry = "torch.nn.functional.scaled_dot_product_attention"
    (risky,) = [each for each in findings(recorded(FUSED_ON_CUDA[name])) if each.operation == entry]
    assert risky.calls == 1


@pytest.mark.parametrize("name", HARMLESS)
def test_what_does_no_harm_is_not_reported(name: str) -> None:
    assert not found(HARMLESS[name])


@pytest.mark.parametrize("name", INTERPOLATED)
def test_what_is_interpolated_by_a_decomposition_is_slower_and_all_else_refused(name: str) -> None:
    entry = _INTERPOLATE
    if name in ("bilinear", "trilinear"):
        entry = f"{_INTERPOLATE}, bilinear or trilinear"
    assert found(INTERPOLATED[name]) == {entry}


@pytest.mark.parametrize(("how", "expected"), [("multiply", "_reduce"), ("add", "")])
def test_a_scatter_that_multiplies_is_refused(how: str, expected: str) -> None:
    told = found(lambda: torch.zeros(4).scatter(0, AT, torch.rand(4), reduce=how))
    assert told == {f"torch.Tensor.scatter{expected}"}


def test_attention_may_change_bits_unless_determinism_is_strict() -> None:
    operations = findings(recorded(lambda: attention(r(1, 2, 8, 8), dropout_p=0.5)))
    assert [operation.kind for operation in operations] == [VARIES]
    assert Audit(operations, [], True, strict=False).may_change_bits() == operations
    assert not Audit(operations, [], True, strict=True).may_change_bits()


@pytest.mark.skipif(not torch.version.cuda, reason="needs torch's wheel with CUDA")
@pytest.mark.skipif(platform.machine() != "x86_64", reason="reads the machine code of x86-64")
def test_the_catalogue_has_each_name_that_the_libraries_alert_with() -> None:
    libraries = Path(torch.__file__).parent / "lib"
    calls = [alerts(libraries / f"libtorch_{name}.so") for name in ("cuda", "cpu")]
    assert all(calls)
    unread = [hex(address) for each in calls for address, name in each.items() if not name]
    assert not unread, "calls whose names tests/alerts.py does not find"
    names = {name for each in calls for name in each.values()}
    unknown = {name for name in names if not any(fnmatch(name, known) for known in ALERTS)}
    assert not unknown, "torch refuses what the catalogue does not know"
    assert not [known for known in ALERTS if not any(fnmatch(name, known) for name in names)]
    refused = set(catalogue.NO_DETERMINISTIC_VERSION_ON_CUDA)
    assert refused | set(catalogue.SLOWER_ON_CUDA) >= set(ALERTS.values())
    assert refused - set(ALERTS.values()) == OF_ANOTHER_NAME


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


@pytest.mark.skipif(not torch.version.cuda, reason="needs torch's wheel with CUDA")
def test_every_operator_that_only_cuda_has_is_accounted_for() -> None:
    has = torch._C._dispatch_has_kernel_for_dispatch_key
    names = [name for name in torch._C._dispatch_get_all_op_names() if name.startswith("aten::")]
    not_on_cuda = ("CPU", "CompositeExplicitAutograd")
    only = {
        name.removeprefix("aten::").partition(".")[0]
        for name in names
        if has(name, "CUDA") and not any(has(name, key) for key in not_on_cuda)
    }
    of_nvidia = {name for name in only if "miopen" not in name}
    patterns = [pattern for patterns in ONLY_ON_CUDA for pattern in patterns.split("|")]
    unknown = {name for name in of_nvidia if not any(fnmatch(name, each) for each in patterns)}
    assert "_scaled_dot_product_efficient_attention_backward" in of_nvidia
    assert not unknown
    assert not [each for each in patterns if not any(fnmatch(name, each) for name in of_nvidia)]


def test_noting_calls_changes_no_numbers_and_ends() -> None:
    layer = transformer_layer()
    x = torch.rand(2, 4, 8)

    def numbers() -> list[Tensor]:
        torch.manual_seed(0)
        layer.zero_grad()
        layer.train()
        layer(x).sum().backward()
        gradients = [parameter.grad for parameter in layer.parameters()]
        return [*(grad.clone() for grad in gradients if grad is not None), layer.eval()(x)]

    before = numbers()
    recorder = Recorder(Path("/nowhere"), ())
    with recorder.recording(), recorder.noting(catalogue.NOTED_CALLS):
        noted = numbers()
    known = len(recorder.operations)
    for after in (noted, numbers()):
        assert len(after) == len(before)
        assert all(torch.equal(a, b) for a, b in zip(after, before, strict=True))
    assert len(recorder.operations) == known


def test_a_recording_that_asks_for_no_calls_has_none() -> None:
    recorder = Recorder(Path("/nowhere"), ())
    with recorder.recording():
        attention(r(1, 2, 8, 8), dropout_p=0.5).sum().backward()
    assert not [o for o in recorder.operations if o.name == "aten.scaled_dot_product_attention"]


def test_noting_leaves_the_fast_path_of_evaluation() -> None:
    operations = recorded(
        lambda: without_gradient(lambda: transformer_layer().eval()(torch.rand(1, 4, 8)))
    )
    assert "aten._transformer_encoder_layer_fwd" in {operation.name for operation in operations}


def test_a_place_of_both_phases_is_told_as_trainings() -> None:
    both = recorded(lambda: torch.histc(torch.rand(9), 4))
    alone = recorded(lambda: r(3, 4).median(1)[0])
    phases = {risky.operation: risky.phase for risky in findings(both, [*both, *alone])}
    assert phases["torch.histc"] == TRAINING
    assert phases["torch.median"] == EVALUATION
