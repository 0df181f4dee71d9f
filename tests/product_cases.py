"""Compute many matrix products with torch and print what came out, as JSON, for test_products.py.

    python product_cases.py PROJECT with|without

`with`: the kernels of the portable profile are put in force first. The profile's variables have to
be set before. Each case gives the error's class and text, or its tensors and their strides.
"""

import json
import sys
from collections.abc import Callable
from typing import Any

sys.path.insert(0, sys.argv[1])

import torch
from repro.training.cpu_kernels import kernels_in_force, use_portable_kernels
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

generator = torch.Generator().manual_seed(0)
NAN = float("nan")


def normal(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)


def strided(rows: int, columns: int, step: int) -> torch.Tensor:
    """A matrix of which every `step`th column was taken."""
    return normal(rows, columns * step)[:, ::step]


def unaligned(rows: int, columns: int) -> torch.Tensor:
    """A matrix that starts four bytes after its memory."""
    memory = torch.empty(rows * columns + 1)
    memory[1:] = normal(rows * columns)
    return memory[1:].view(rows, columns)


class Named(torch.Tensor):
    """A subclass that takes part in every operation, as torch's own do."""


class Listing(TorchDispatchMode):
    """Lists the operations that it sees."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> object:
        self.seen.append(str(func))
        return func(*args, **(kwargs or {}))


def in_place(*operands: torch.Tensor, **factors: float) -> torch.Tensor:
    return operands[0].clone().addmm_(*operands[1:], **factors)


def into(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    out = torch.empty(b.shape[1], a.shape[0]).t()
    return torch.mm(a, b, out=out)


def under_autocast(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        return torch.mm(a, b)


def gradients(function: Callable[..., torch.Tensor], *operands: torch.Tensor) -> object:
    """The gradients of a sum of squares, and the gradient of their sum: twice backward."""
    leaves = [operand.clone().requires_grad_() for operand in operands]
    loss = function(*leaves).square().sum() / 1e3
    first = torch.autograd.grad(loss, leaves, create_graph=True)
    second = torch.autograd.grad(sum(one.square().sum() for one in first) / 1e3, leaves)
    return [*first, *second]


def tangents(a: torch.Tensor, b: torch.Tensor) -> object:
    return torch.func.jvp(torch.mm, (a, b), (a.cos(), b.sin()))


def in_inference(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return torch.mm(a, b)


def faked(a: torch.Tensor, b: torch.Tensor) -> object:
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        made = torch.mm(mode.from_tensor(a), mode.from_tensor(b))
    return [str(made.device), [*made.shape], [*made.stride()]]


def on_meta(a: torch.Tensor, b: torch.Tensor) -> object:
    made = torch.mm(a.to("meta"), b.to("meta"))
    return [str(made.device), [*made.shape], [*made.stride()]]


def listed(a: torch.Tensor, b: torch.Tensor) -> object:
    with Listing() as mode:
        torch.mm(a, b)
        torch.nn.functional.linear(a, b.t(), normal(b.shape[1]))
        with Listing() as inner:
            torch.mm(a, b)
    return [mode.seen, inner.seen]


def of_subclass(a: torch.Tensor, b: torch.Tensor) -> object:
    made = torch.mm(a.as_subclass(Named), b)
    return [type(made).__name__, made.as_subclass(torch.Tensor)]


def recurrent(kind: type[torch.nn.Module], **settings: Any) -> object:
    torch.manual_seed(0)
    network = kind(64, 96, **settings)
    outputs, _ = network(normal(20, 32, 64).requires_grad_())
    outputs.square().sum().backward()
    return [outputs.detach(), *(weight.grad for weight in network.parameters())]


def attention() -> object:
    torch.manual_seed(0)
    network = torch.nn.MultiheadAttention(128, 1, batch_first=True)
    texts = normal(4, 128, 128)
    return network(texts, texts, texts, attn_mask=torch.zeros(128, 128))[0].detach()


def packed() -> object:
    torch.manual_seed(0)
    texts = torch.nn.utils.rnn.pack_padded_sequence(normal(9, 3, 64), torch.tensor([9, 5, 2]))
    return torch.nn.LSTM(64, 96)(texts)[0].data.detach()


mm, addmm, bmm, baddbmm = torch.mm, torch.addmm, torch.bmm, torch.baddbmm
A, B = normal(128, 256), normal(256, 64)
LARGE, SMALL = (A, B), (normal(3, 5), normal(5, 2))
BATCH = (normal(3, 128, 128), normal(3, 128, 96))
CASES: dict[str, Callable[[], object]] = {
    "small": lambda: mm(*SMALL),
    "large": lambda: mm(*LARGE),
    "odd": lambda: mm(normal(127, 129), normal(129, 131)),
    "thin": lambda: [
        mm(normal(2, 1024), normal(1024, 512)),
        mm(normal(512, 2048), normal(2048, 1)),
    ],
    "one row": lambda: mm(normal(1, 4096), normal(4096, 256)),
    "few terms": lambda: mm(normal(1024, 2), normal(2, 1024)),
    "many terms": lambda: mm(normal(128, 2049), normal(2049, 72)),
    "many terms of few": lambda: mm(normal(8, 16384), normal(16384, 8)),
    "empty": lambda: [mm(normal(0, 256), B), mm(normal(9, 0), normal(0, 9)), mm(A, normal(256, 0))],
    "transposed": lambda: [mm(A, normal(64, 256).t()), mm(normal(256, 128).t(), B)],
    "both transposed": lambda: mm(normal(256, 128).t(), normal(64, 256).t()),
    "part of a matrix": lambda: mm(normal(128, 300)[:, 7:263], normal(300, 64)[3:259]),
    "part of a transposed matrix": lambda: mm(A, normal(64, 300)[:, 7:263].t()),
    "odd strides": lambda: [mm(strided(128, 256, 2), B), mm(A, strided(256, 64, 3))],
    "strides of zero": lambda: [
        mm(normal(1, 256).expand(128, 256), B),
        mm(A, normal(256, 1).expand(256, 64)),
    ],
    "strides that overlap": lambda: mm(normal(400).as_strided((128, 256), (1, 1)), B),
    "unaligned": lambda: [mm(unaligned(128, 256), B), mm(A, unaligned(256, 64))],
    "float64": lambda: mm(A.double(), B.double()),
    "complex": lambda: mm(A.to(torch.complex64), B.to(torch.complex64)),
    "conjugate": lambda: mm(A.to(torch.complex64).conj(), B.to(torch.complex64)),
    "negative view": lambda: mm(torch._neg_view(A), B),
    "int": lambda: mm(A.int(), B.int()),
    "bf16": lambda: mm(A.bfloat16(), B.bfloat16()),
    "infinite": lambda: mm(torch.full((128, 256), torch.inf), torch.zeros(256, 64)),
    "NaN": lambda: mm(A.masked_fill(A > 2, NAN), B),
    "wrong shapes": lambda: mm(A, normal(255, 64)),
    "wrong dimensions": lambda: mm(normal(2, 128, 256), B),
    "vector": lambda: mm(A, normal(256)),
    "number": lambda: mm(A, torch.tensor(3.0)),
    "wrong dtypes": lambda: mm(A, B.double()),
    "sparse": lambda: mm(A.relu().to_sparse(), B),
    "into a transposed matrix": lambda: into(*LARGE),
    "autocast": lambda: under_autocast(*LARGE),
    "gradients": lambda: gradients(mm, *LARGE),
    "jvp": lambda: tangents(*LARGE),
    "vmap": lambda: torch.func.vmap(mm, in_dims=(0, None))(normal(3, 128, 256), B),
    "inference": lambda: in_inference(*LARGE),
    "fake": lambda: faked(*LARGE),
    "meta": lambda: on_meta(*LARGE),
    "dispatch mode": lambda: listed(*LARGE),
    "subclass": lambda: of_subclass(*LARGE),
    "parameter": lambda: mm(torch.nn.Parameter(A), B).detach(),
    "addmm": lambda: addmm(normal(64), *LARGE),
    "addmm of a matrix": lambda: addmm(normal(128, 64), *LARGE),
    "addmm of a row": lambda: addmm(normal(1, 64), *LARGE),
    "addmm of a column": lambda: addmm(normal(128, 1), *LARGE),
    "addmm of a number": lambda: addmm(torch.tensor(2.5), *LARGE),
    "addmm of a view": lambda: addmm(normal(128)[::2], *LARGE),
    "addmm with factors": lambda: [
        addmm(normal(64), *LARGE, beta=b, alpha=a)
        for a, b in [(2, 1), (0.5, -3), (1, 0.25), (0, 1), (True, 2)]
    ],
    "addmm without summand": lambda: addmm(torch.full((128, 64), NAN), *LARGE, beta=0),
    "addmm without product": lambda: addmm(normal(64), torch.full_like(A, NAN), B, alpha=0),
    "addmm of nothing": lambda: addmm(normal(128, 64), normal(128, 0), normal(0, 64), beta=2),
    "addmm, complex factor": lambda: addmm(normal(64), *LARGE, alpha=2j),
    "addmm, wrong shape": lambda: addmm(normal(63), *LARGE),
    "addmm, too many dimensions": lambda: addmm(normal(1, 128, 64), *LARGE),
    "addmm, wrong dtype": lambda: addmm(normal(64).double(), *LARGE),
    "addmm, ints": lambda: addmm(torch.ones(64, dtype=torch.int32), A.int(), B.int(), beta=2),
    "addmm in place": lambda: in_place(normal(128, 64), *LARGE, beta=0.5, alpha=2),
    "addmm's gradients": lambda: gradients(addmm, normal(64), *LARGE),
    "linear": lambda: gradients(
        torch.nn.functional.linear, normal(4, 32, 256), normal(64, 256), normal(64)
    ),
    "bmm": lambda: bmm(*BATCH),
    "bmm, transposed": lambda: bmm(BATCH[0].mT, BATCH[1]),
    "bmm, one of all": lambda: bmm(normal(1, 128, 128).expand(3, -1, -1), BATCH[1]),
    "bmm of heads": lambda: bmm(
        normal(128, 3, 128).transpose(0, 1), normal(96, 3, 128).permute(1, 2, 0)
    ),
    "bmm of nothing": lambda: bmm(normal(0, 128, 128), normal(0, 128, 96)),
    "bmm, wrong shapes": lambda: bmm(BATCH[0], normal(2, 128, 96)),
    "bmm, wrong terms": lambda: bmm(BATCH[0], normal(3, 127, 96)),
    "bmm, float64": lambda: bmm(BATCH[0].double(), BATCH[1].double()),
    "bmm's gradients": lambda: gradients(bmm, *BATCH),
    "baddbmm": lambda: [
        baddbmm(normal(3, 128, 96), *BATCH, beta=b, alpha=a) for a, b in [(1, 1), (0.5, 2)]
    ],
    "baddbmm of a row": lambda: baddbmm(normal(96), *BATCH),
    "baddbmm without summand": lambda: baddbmm(torch.full((3, 128, 96), NAN), *BATCH, beta=0),
    "baddbmm without product": lambda: baddbmm(
        normal(96), torch.full((3, 128, 128), NAN), BATCH[1], alpha=0
    ),
    "baddbmm, wrong shape": lambda: baddbmm(normal(4, 128, 96), *BATCH),
    "LSTM": lambda: recurrent(torch.nn.LSTM),
    "LSTM, two ways": lambda: recurrent(torch.nn.LSTM, bidirectional=True, num_layers=2),
    "LSTM, projected": lambda: recurrent(torch.nn.LSTM, proj_size=32),
    "LSTM of packed texts": packed,
    "LSTM, wrong shape": lambda: torch.nn.LSTM(64, 96)(normal(20, 32, 63)),
    "GRU": lambda: recurrent(torch.nn.GRU),
    "attention": attention,
}


def told(made: object) -> object:
    """What came out, for JSON."""
    if isinstance(made, torch.Tensor):
        kind = str(made.dtype), [*made.shape], [*made.stride()]
        wide = torch.complex128 if made.is_complex() else torch.float64
        values = torch.view_as_real(made.resolve_conj().to(wide)) if made.is_complex() else made
        return {"kind": kind, "values": values.detach().to(torch.float64).flatten().tolist()}
    if isinstance(made, list | tuple):
        return [told(one) for one in made]
    return made


def outcome(case: Callable[[], object]) -> object:
    generator.manual_seed(1)
    try:
        return told(case())
    except Exception as error:  # torch's own words are compared
        return {"error": type(error).__name__, "text": str(error)}


def main() -> None:
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    if sys.argv[2] == "with":
        use_portable_kernels()
    outcomes = {name: outcome(case) for name, case in CASES.items()}
    print(json.dumps({"kernels": kernels_in_force(), "outcomes": outcomes}))


main()
