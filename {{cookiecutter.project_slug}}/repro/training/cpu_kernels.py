"""Choose the CPU's kernels of the portable profile: fast ones, with the same bits on every CPU.

The profile's variables bind MKL to its slowest kernels (MKL_CBWR=COMPATIBLE), because MKL's faster
ones differ between CPU models. oneDNN's kernels for AVX2 add the terms of a product in their order,
whatever the CPU model, the number of threads and the strides (tests/system/test_cpus.py). So large
products of float32 matrices go to oneDNN, and all others stay with MKL. Which way a product goes
depends on its shapes, strides and dtypes alone. An LSTM goes the way that torch takes without
oneDNN: oneDNN's own is a kernel that an emulated CPU cannot even run.

`use_portable_kernels()` puts this in force once, for the rest of the process; nothing happens in
another profile. Autograd, autocast and the like stand above these kernels and see the operations
that they always see: a backward's products go the same way.
"""

import os
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from repro.core.errors import UserError
from repro.core.profiles import MARKER, PORTABLE_KERNELS

# From these sizes on oneDNN was faster than MKL bound to COMPATIBLE, in multiplications
# (benchmarks/products.py): a call costs 9 us more. Each product of a batch is a call of its own.
_LARGE = 1 << 19
_LARGE_IN_BATCH = 1 << 20
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
    if _is_large(a, b):
        return _linear(a, b.t(), None, "none", [], "")
    return _torchs["mm"](a, b)


def _addmm(
    summand: torch.Tensor, a: torch.Tensor, b: torch.Tensor, *, beta: Any = 1, alpha: Any = 1
) -> torch.Tensor:
    if not (_is_large(a, b) and _can_be_added(summand, (a.shape[0], b.shape[1]), beta, alpha)):
        return _torchs["addmm"](summand, a, b, beta=beta, alpha=alpha)
    if beta == 1 and alpha == 1 and summand.shape == (b.shape[1],) and summand.is_contiguous():
        return _linear(a, b.t(), summand, "none", [], "")
    return _sum(summand, _linear(a, b.t(), None, "none", [], ""), beta, alpha)


def _bmm(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    if _is_large_batch(a, b):
        return _products(a, b)
    return _torchs["bmm"](a, b)


def _baddbmm(
    summand: torch.Tensor, a: torch.Tensor, b: torch.Tensor, *, beta: Any = 1, alpha: Any = 1
) -> torch.Tensor:
    if _is_large_batch(a, b):
        shape = (a.shape[0], a.shape[1], b.shape[2])
        if _can_be_added(summand, shape, beta, alpha):
            return _sum(summand, _products(a, b), beta, alpha)
    return _torchs["baddbmm"](summand, a, b, beta=beta, alpha=alpha)


def _lstm(*arguments: Any) -> Any:
    before = torch._C._get_mkldnn_enabled()
    torch._C._set_mkldnn_enabled(False)
    try:
        return _torchs[_LSTM](*arguments)
    finally:
        torch._C._set_mkldnn_enabled(before)


# The rule -----------------------------------------------------------------------------------------


def _is_large(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Tell whether a product of two matrices goes to oneDNN; False for what torch would refuse."""
    # First what decides for small ones, whose time counts: numel(a) * numel(b) is the product's
    # multiplications times its terms, of which a large one has at least _THIN.
    if a.numel() * b.numel() < _LARGE * _THIN or a.dim() != 2 or b.dim() != 2:
        return False
    rows, terms = a.shape
    columns = b.shape[1]
    if rows * terms * columns < _LARGE or min(rows, terms, columns) < _THIN:
        return False
    return b.shape[0] == terms and _is_plain(a) and _is_plain(b)


def _is_large_batch(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Tell whether the products of two batches go to oneDNN, each by itself."""
    if a.numel() * b.numel() < _LARGE_IN_BATCH * _THIN or a.dim() != 3 or b.dim() != 3:
        return False
    batch, rows, terms = a.shape
    columns = b.shape[2]
    if rows * terms * columns < _LARGE_IN_BATCH or min(rows, terms, columns) < _THIN:
        return False
    fits = batch > 0 and b.shape[:2] == (batch, terms)
    return fits and _is_plain(a) and _is_plain(b)


def _is_plain(tensor: torch.Tensor) -> bool:
    """Tell whether a tensor is float32 and its matrices lie row by row, or column by column."""
    if tensor.dtype != torch.float32:
        return False
    rows, columns = tensor.shape[-2:]
    down, along = tensor.stride()[-2:]
    return (along == 1 and down >= columns) or (down == 1 and along >= rows)


def _can_be_added(summand: torch.Tensor, shape: tuple[int, ...], beta: Any, alpha: Any) -> bool:
    """Tell whether torch would take what is to be added to a product of that shape."""
    if summand.dtype != torch.float32 or summand.dim() > len(shape):
        return False
    if not (isinstance(beta, int | float) and isinstance(alpha, int | float)) or alpha == 0:
        return False  # a product that is multiplied by 0 is not computed: its NaN do not count
    own = tuple(summand.shape)
    return all(size in (1, wanted) for size, wanted in zip(own[::-1], shape[::-1], strict=False))


def _products(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Return the products of two batches of matrices."""
    pairs = zip(a.unbind(), b.unbind(), strict=True)
    return torch.stack([_linear(x, y.t(), None, "none", [], "") for x, y in pairs])


def _sum(summand: torch.Tensor, product: torch.Tensor, beta: float, alpha: float) -> torch.Tensor:
    """Return alpha * product + beta * summand; the summand's NaN do not count where beta is 0."""
    if alpha != 1:
        product.mul_(float(alpha))
    if beta == 0:
        return product
    return product.add_(summand, alpha=float(beta))
