"""The precision of a training: its flags, and where it is refused."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from repro.core.errors import UserError
from repro.training.attention import fused_attention_here
from repro.training.determinism import flags, refuse_changed_flags, set_determinism
from repro.training.precision import fault_of_precision, precision_of, refuse_precision
from torch import nn

ON_GPU = ("matmul.fp32_precision", "cudnn.conv.fp32_precision", "cudnn.rnn.fp32_precision")
ON_CPU = tuple(f"mkldnn.{name}.fp32_precision" for name in ("matmul", "conv", "rnn"))


@pytest.fixture(autouse=True)
def _leave_torch_as_it_was() -> Iterator[None]:
    yield
    set_determinism("off")


def backends() -> Any:
    return torch.backends


# What an author or a library may do to the flags, by either of torch's APIs.
CHANGES: dict[str, tuple[Callable[[], object], str]] = {
    "cudnn.allow_tf32": (
        lambda: setattr(backends().cudnn, "allow_tf32", True),
        "cudnn.conv.fp32_precision",
    ),
    "matmul.allow_tf32": (
        lambda: setattr(backends().cuda.matmul, "allow_tf32", True),
        "matmul.fp32_precision",
    ),
    "set_float32_matmul_precision": (
        lambda: torch.set_float32_matmul_precision("medium"),
        "mkldnn.matmul.fp32_precision",
    ),
    "conv.fp32_precision": (
        lambda: setattr(backends().cudnn.conv, "fp32_precision", "tf32"),
        "cudnn.conv.fp32_precision",
    ),
    "rnn.fp32_precision": (
        lambda: setattr(backends().cudnn.rnn, "fp32_precision", "tf32"),
        "cudnn.rnn.fp32_precision",
    ),
    "matmul.fp32_precision": (
        lambda: setattr(backends().cuda.matmul, "fp32_precision", "tf32"),
        "matmul.fp32_precision",
    ),
    "oneDNN's": (
        lambda: setattr(backends().mkldnn.conv, "fp32_precision", "bf16"),
        "mkldnn.conv.fp32_precision",
    ),
}


@pytest.mark.parametrize("mode", ["strict", "warn", "off"])
@pytest.mark.parametrize(
    ("precision", "rounds"), [("fp32", "ieee"), ("tf32", "tf32"), ("bf16", "ieee")]
)
def test_rounding_follows_from_the_precision_alone(mode: str, precision: str, rounds: str) -> None:
    set_determinism(mode, precision)
    in_force = flags()
    assert {in_force[name] for name in ON_GPU} == {rounds}
    assert {in_force[name] for name in ON_CPU} == {"ieee"}


@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16"])
def test_both_of_torchs_ways_to_read_agree(precision: str) -> None:
    set_determinism("strict", precision)
    on = precision == "tf32"
    assert backends().cudnn.allow_tf32 is on
    assert backends().cuda.matmul.allow_tf32 is on
    assert torch.get_float32_matmul_precision() == ("high" if on else "highest")  # torch.compile
    assert backends().cudnn.conv.fp32_precision == ("tf32" if on else "ieee")


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_by_either_api_is_noticed_and_undone(name: str) -> None:
    change, flag = CHANGES[name]
    set_determinism("strict")
    expected = flags()
    change()
    with pytest.raises(UserError, match=f"{flag} is (tf32|bf16), it was ieee when training began"):
        refuse_changed_flags(expected)
    set_determinism("strict")
    assert flags() == expected
    assert not backends().cudnn.allow_tf32


@pytest.mark.parametrize("before", [True, False])
def test_a_change_of_all_at_once_has_no_effect(before: bool) -> None:
    """torch.backends.fp32_precision is for operations that have no value of their own."""
    set_determinism("strict")
    expected = flags()
    backends().fp32_precision = "tf32"
    try:
        if before:
            set_determinism("strict")
        assert flags() == expected
        assert torch.get_float32_matmul_precision() == "highest"
    finally:
        backends().fp32_precision = "none"


def test_a_precision_that_is_none_is_an_error() -> None:
    with pytest.raises(ValueError, match="precision 'fp16': expected one of fp32, tf32, bf16"):
        set_determinism("strict", "fp16")


def gpu(monkeypatch: pytest.MonkeyPatch, name: str, capability: tuple[int, int]) -> torch.device:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device=None: name)
    return torch.device("cuda", 0)


@pytest.mark.parametrize(
    ("name", "capability"), [("Tesla T4", (7, 5)), ("Tesla V100", (7, 0)), ("Tesla P100", (6, 0))]
)
def test_tf32_is_refused_on_gpus_before_ampere(
    monkeypatch: pytest.MonkeyPatch, name: str, capability: tuple[int, int]
) -> None:
    device = gpu(monkeypatch, name, capability)
    has = ".".join(map(str, capability))
    with pytest.raises(UserError, match=f"tf32 needs .* 8.0.*, and {name} has {has}: take"):
        refuse_precision("tf32", device)
    assert not fault_of_precision("fp32", device)
    assert not fault_of_precision("bf16", device)


@pytest.mark.parametrize("capability", [(8, 0), (8, 6), (8, 9), (9, 0), (10, 0), (12, 0)])
def test_tf32_is_for_gpus_from_ampere_on(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int]
) -> None:
    assert not fault_of_precision("tf32", gpu(monkeypatch, "NVIDIA", capability))


def test_tf32_is_refused_on_cpus_and_on_gpus_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "on the CPU: take training.precision=fp32 or bf16" in fault_of_precision(
        "tf32", torch.device("cpu")
    )
    device = gpu(monkeypatch, "AMD Instinct MI300X", (9, 4))
    monkeypatch.setattr(torch.version, "hip", "7.0")
    assert "AMD Instinct MI300X is none of NVIDIA's" in fault_of_precision("tf32", device)


def test_the_precision_of_a_config_of_ones_own() -> None:
    def config(**training: object) -> object:
        return SimpleNamespace(training=SimpleNamespace(**training))

    assert precision_of(config(precision="tf32")) == "tf32"
    for own in (config(), config(precision="16-mixed"), config(precision=16), object()):
        assert precision_of(own) == "fp32"


class _Model(nn.Module):
    def __init__(self, dropout: float | None) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 2) if dropout is None else nn.MultiheadAttention(4, 2, dropout)


@pytest.mark.parametrize(
    ("attention", "dropout", "device", "told"),
    [
        ("fused", 0.1, "cpu", "trains by the mathematical attention on the CPU"),
        ("fused", 0.0, "cpu", "is torch's flash kernel for the CPU here"),
        ("fused", None, "cpu", "is torch's flash kernel for the CPU here"),
        ("fused", 0.1, "cuda", ""),
        ("math", 0.1, "cpu", ""),
    ],
)
def test_fused_attention_is_told_what_it_is_on_the_cpu(
    attention: str, dropout: float | None, device: str, told: str
) -> None:
    config = SimpleNamespace(model=SimpleNamespace(attention=attention))
    line = fused_attention_here(config, _Model(dropout), torch.device(device))
    assert told in line if told else line == ""


def test_the_cpus_fused_kernel_knows_no_dropout() -> None:
    """What `fused_attention_here` says, asked of torch."""
    from repro.diagnosis.operations import Recorder
    from torch.nn.attention import SDPBackend, sdpa_kernel

    kernels = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
    for dropout in (0.0, 0.1):
        recorder = Recorder(Path("/nowhere"), ())
        layer = nn.TransformerEncoderLayer(8, 2, 16, dropout, batch_first=True)
        with sdpa_kernel(kernels), recorder.recording():
            layer(torch.rand(2, 3, 8)).sum().backward()
        names = {operation.name for operation in recorder.operations}
        assert ("aten._scaled_dot_product_flash_attention_for_cpu" in names) == (not dropout)
