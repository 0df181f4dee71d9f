"""Choose the CPU's kernels of the portable profile: fast ones, with the same bits on every CPU.

The profile's variables bind MKL to its slowest kernels (MKL_CBWR=COMPATIBLE), because MKL's faster
ones differ between CPU models. oneDNN's kernels for AVX2 add the terms of a product in their order,
whatever the CPU model, the number of threads and the strides (tests/system/test_cpus.py). So large
products of float32 matrices go to oneDNN, and all others stay with MKL. Which way a product goes
depends on its shapes, strides and dtypes alone. A product of many terms is computed in pieces that
are added, for one long sum would round more than MKL does. An LSTM goes the way that torch takes
without oneDNN: oneDNN's own is a kernel that an emulated CPU cannot even run.

`use_portable_kernels()` puts this in force once, for the rest of the process; nothing happens in
another profile. Autograd, autocast and the like stand above these kernels and see the operations
that they always see: a backward's products go the same way.
"""

import math
import os
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from repro.core.errors import UserError
from repro.core.profiles import MARKER, PORTABLE_KERNELS

# From these sizes on oneDNN was faster than MKL bound to COMPATIBLE, in multiplications a call: a
# call costs 9 to 40 us more. Each product of a batch is a call of its own, and so is each piece.
_LARGE = 1 << 19
_LARGE_AMONG_OTHERS = 1 << 20
# With so many terms in a sum the products err as little as those of MKL with all its kernels. With
# 112 they would err less than COMPATIBLE's, too, but a small GPT takes 1.13 times as long.
_TERMS_OF_A_PIECE = 128
_THIN = 4  # rows, columns or terms: below it a product only waits for memory, and MKL is as fast

_OPERATIONS = ("mm", "addmm", "bmm", "baddbmm")
_LSTM = "lstm.input"
_library: torch.library.Library | None = None  # the registrations end with it
_torchs: dict[str, Callable[..., torch.Tensor]] = {}  # torch's own kernels by operation
_registered: dict[str, str] = {}  # where torch says that ours come from, by operation
_linear: Callable[..., torch.Tensor]  # oneDNN's product with a transposed second matrix


def use_portable_kernels() -> None:
    """Put the kernels in force if the process is of the portable profile; else do nothing.

    UserError if this torch lacks an operation that they need.
    """
    if os.environ.get(MARKER) != "portable" or _library is not None:
        return
    _find_operations()
    _register()


def kernels_in_force() -> str:
    """Tell which kernels are in force: PORTABLE_KERNELS, or "torch's own", as torch knows them."""
    if _library is None:
        return "torch's own"
    changed = [name for name, place in _registered.items() if _place_of(name) != place]
    return f"another library's for {', '.join(changed)}" if changed else PORTABLE_KERNELS


def _find_operations() -> None:
    """Keep torch's own kernels, and oneDNN's product."""
    global _linear
    try:
        _linear = torch.ops.mkldnn._linear_pointwise.default
        for name in (*_OPERATIONS, _LSTM):
            kernel = torch.library.get_kernel(f"aten::{name}", _key_of(name))
            keys = torch._C.DispatchKeySet(getattr(torch._C.DispatchKey, _key_of(name)))
            _torchs[name] = partial(kernel.call_boxed, keys)
    except (AttributeError, RuntimeError) as error:
        raise UserError(
            f"torch {torch.__version__} lacks an operation that profile=portable computes large "
            f"matrix products with ({str(error).splitlines()[0]}): install the torch of "
            "requirements.lock, or take profile=native"
        ) from error


def _register() -> None:
    """Put our kernels in the places of torch's own."""
    global _library
    library = torch.library.Library("aten", "IMPL")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of each kernel that takes another's place
        for name, kernel in (("mm", _mm), ("addmm", _addmm), ("bmm", _bmm), ("baddbmm", _baddbmm)):
            library.impl(name, kernel, "CPU")
        library.impl(_LSTM, _lstm, "CompositeImplicitAutograd")
    _library = library
    for name in _torchs:
        _registered[name] = _place_of(name)


def _place_of(name: str) -> str:
    """Return torch's description of the kernel that an operation has now."""
    return repr(torch.library.get_kernel(f"aten::{name}", _key_of(name)))


def _key_of(name: str) -> str:
    """Return where an operation's kernel is looked for: the LSTM is made of other operations."""
    return "AutogradCPU" if name == _LSTM else "CPU"


# The kernels --------------------------------------------------------------------------------------


def _mm(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    if _is_large(a, b, 2):
        return _product(a, b)
    return _torchs["mm"](a, b)


def _addmm(summand: torch.Tensor, a: torch.Tensor, b: torch.Tensor, **factors: Any) -> torch.Tensor:
    # torch hands over beta and alpha only where they are not 1: small products pass nothing on.
    if not (_is_large(a, b, 2) and _can_be_added(summand, (a.shape[0], b.shape[1]), **factors)):
        return _torchs["addmm"](summand, a, b, **factors)
    if not factors and summand.shape == (b.shape[1],) and summand.is_contiguous():
        return _product(a, b, summand)
    return _sum(summand, _product(a, b), **factors)


def _bmm(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    if _is_large(a, b, 3):
        return _products(a, b)
    return _torchs["bmm"](a, b)


def _baddbmm(
    summand: torch.Tensor, a: torch.Tensor, b: torch.Tensor, **factors: Any
) -> torch.Tensor:
    if _is_large(a, b, 3):
        shape = (a.shape[0], a.shape[1], b.shape[2])
        if _can_be_added(summand, shape, **factors):
            return _sum(summand, _products(a, b), **factors)
    return _torchs["baddbmm"](summand, a, b, **factors)


def _lstm(*arguments: Any) -> Any:
    before = torch._C._get_mkldnn_enabled()
    torch._C._set_mkldnn_enabled(False)
    try:
        return _torchs[_LSTM](*arguments)
    finally:
        torch._C._set_mkldnn_enabled(before)


# The rule -----------------------------------------------------------------------------------------


def _is_large(a: torch.Tensor, b: torch.Tensor, dimensions: int) -> bool:
    """Tell whether a product goes to oneDNN; False for what torch would refuse.

    The product is one of two matrices (2 dimensions), or of each two matrices of two batches (3).
    """
    # First what decides for small ones, whose time counts: numel(a) * numel(b) is the product's
    # multiplications times its terms, of which a large one has at least _THIN.
    if a.numel() * b.numel() < _LARGE * _THIN or not a.dim() == b.dim() == dimensions:
        return False
    *batch, rows, terms = a.shape
    columns = b.shape[-1]
    if min(rows, terms, columns) < _THIN:
        return False
    alone = dimensions == 2 and terms <= _TERMS_OF_A_PIECE
    least = _LARGE if alone else _LARGE_AMONG_OTHERS
    if rows * min(terms, _TERMS_OF_A_PIECE) * columns < least:
        return False
    return b.shape[:-1] == (*batch, terms) and _is_plain(a) and _is_plain(b)


def _is_plain(tensor: torch.Tensor) -> bool:
    """Tell whether a tensor is float32 and its matrices lie row by row, or column by column."""
    if tensor.dtype != torch.float32:
        return False
    rows, columns = tensor.shape[-2:]
    down, along = tensor.stride()[-2:]
    return (along == 1 and down >= columns) or (down == 1 and along >= rows)


def _can_be_added(
    summand: torch.Tensor, shape: tuple[int, ...], beta: Any = 1, alpha: Any = 1
) -> bool:
    """Tell whether torch would take what is to be added to a product of that shape."""
    if summand.dtype != torch.float32 or summand.dim() > len(shape):
        return False
    if not (isinstance(beta, int | float) and isinstance(alpha, int | float)) or alpha == 0:
        return False  # a product that is multiplied by 0 is not computed: its NaN do not count
    own = tuple(summand.shape)
    return all(size in (1, wanted) for size, wanted in zip(own[::-1], shape[::-1], strict=False))


def _products(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Return the products of two batches of matrices."""
    return torch.stack([_product(x, y) for x, y in zip(a.unbind(), b.unbind(), strict=True)])


def _product(a: torch.Tensor, b: torch.Tensor, summand: torch.Tensor | None = None) -> torch.Tensor:
    """Return the product of two matrices, with a row added to each of its rows if one is given.

    The terms come in pieces of about the same size, and the pieces' products are added in order.
    """
    terms = a.shape[1]
    pieces = math.ceil(terms / _TERMS_OF_A_PIECE)
    size = 8 * math.ceil(terms / pieces / 8)  # as many numbers as a register of AVX2 holds
    lefts, rights = a.split(size, 1), b.t().split(size, 1)
    total = _linear(lefts[0], _without_gaps(rights[0]), summand, "none", [], "")
    for left, right in zip(lefts[1:], rights[1:], strict=True):
        total.add_(_linear(left, _without_gaps(right), None, "none", [], ""))
    return total


def _without_gaps(matrix: torch.Tensor) -> torch.Tensor:
    """Return the matrix, copied if there are gaps between its rows or columns.

    With gaps in its second matrix oneDNN takes a kernel that is a thousand times slower (measured).
    """
    rows, columns = matrix.shape
    gapless = matrix.stride() in ((columns, 1), (1, rows))
    return matrix if gapless else matrix.contiguous()


def _sum(
    summand: torch.Tensor, product: torch.Tensor, beta: float = 1, alpha: float = 1
) -> torch.Tensor:
    """Return alpha * product + beta * summand; the summand's NaN do not count where beta is 0."""
    if alpha != 1:
        product.mul_(float(alpha))
    if beta == 0:
        return product
    return product.add_(summand, alpha=float(beta))
