"""Operations that may differ from run to run or between CPU models, and the way round each.

The first table is that of PyTorch's documentation (torch.use_deterministic_algorithms), mended by
what PyTorch 2.14 does: with `determinism: strict` these raise an error on CUDA, most of them in
their gradient only. Where PyTorch has a deterministic version, it takes that one. Tests compare the
tables with the documentation and with the names in the installed libraries.
"""

from collections.abc import Callable, Iterator
from fnmatch import fnmatch
from typing import NamedTuple

from repro.diagnosis.step_file import Operation

NO_DETERMINISTIC_VERSION_ON_CUDA = {
    "torch.nn.AvgPool3d": "a strided convolution, or AvgPool2d over slices",
    "torch.nn.AdaptiveAvgPool2d": "x.mean((-2, -1)) for one value per channel, else AvgPool2d",
    "torch.nn.AdaptiveAvgPool3d": "x.mean((-3, -2, -1)) for one value per channel",
    "torch.nn.AdaptiveMaxPool2d": "x.amax((-2, -1)) for one value per channel, else MaxPool2d",
    "torch.nn.FractionalMaxPool2d": "MaxPool2d",
    "torch.nn.FractionalMaxPool3d": "MaxPool3d",
    "torch.nn.MaxUnpool1d": "interpolate(mode='nearest') or a transposed convolution",
    "torch.nn.MaxUnpool2d": "interpolate(mode='nearest') or a transposed convolution",
    "torch.nn.MaxUnpool3d": "interpolate(mode='nearest') or a transposed convolution",
    "torch.nn.functional.interpolate": (
        "mode='bilinear' or 'trilinear' without antialias, which has a deterministic way"
    ),
    "torch.nn.ReflectionPad1d": "padding by zeros, or ReflectionPad2d of an image of one line",
    "torch.nn.ReflectionPad3d": "padding by zeros, or ReplicationPad3d",
    "torch.nn.NLLLoss": "cross_entropy of logits (batch, classes); of images: by pixel",
    "torch.nn.CTCLoss": "the loss on the CPU: loss(logits.cpu(), ...)",
    "torch.nn.EmbeddingBag": "mode='sum' or 'mean', or Embedding and amax",
    "torch.Tensor.put_": "scatter or index_put_",
    "torch.histc": "bucketize, then bincount without weights",
    "torch.bincount": "deterministic_bincount (repro/training/determinism.py)",
    "torch.median": "sort, then take the middle one",
    "torch.nn.functional.grid_sample": "gather with indices of your own",
    "torch.Tensor.scatter_reduce": "reduce='sum' of logarithms, or amax/amin",
    "torch.Tensor.resize_": "a new tensor",
    "torch.Tensor.index_reduce": "index_add, or scatter_reduce with amax or amin",
}

# Not in that documentation. With `determinism: strict` the gradients of PyTorch 2.14's fused
# attention kernels (flash and memory-efficient) are deterministic, and cuDNN's kernels are not
# taken. With `warn` PyTorch warns once, and the gradients vary as they do with `off`. The forward
# pass never varies. Sources: attention_backward.cu and sdp_utils.cpp in
# aten/src/ATen/native/transformers/cuda; measured in github.com/pytorch/pytorch/pull/182551.
NOT_REFUSED_ON_CUDA = {
    "torch.nn.functional.scaled_dot_product_attention": (
        "determinism: strict, or with torch.nn.attention.sdpa_kernel(SDPBackend.MATH): the "
        "gradients of the fused kernels vary with determinism: warn or off"
    )
}

# Deterministic on CUDA with `determinism: strict`, but by a slower way, or perhaps by one: the same
# documentation's first list, and what it still says to be refused. Images and volumes are
# interpolated by a decomposition there (torch/nn/functional.py: not in a module that torch.jit has
# compiled), and the padding has a kernel of its own (github.com/pytorch/pytorch/pull/136241).
SLOWER_ON_CUDA = {
    "torch.nn.Conv, torch.nn.ConvTranspose": "nothing: cuDNN has deterministic kernels",
    "torch.nn.ReplicationPad": "padding by zeros",
    "torch.nn.ReflectionPad2d": "padding by zeros",
    "torch.nn.functional.interpolate, bilinear or trilinear": "mode='nearest'",
    "torch.bmm of a sparse tensor": "a dense one",
    "torch.cumsum": "integers, or a product with a triangular matrix",
    "torch.Tensor.index_put, x[i] with a tensor i": "index_select, or a mask and torch.where",
    "torch.Tensor.scatter_add, torch.gather": "a product with a one-hot matrix where it is small",
    "torch.index_add, torch.index_select": "a product with a one-hot matrix where it is small",
    "torch.Tensor.index_copy": "torch.where",
    "torch.Tensor.scatter": "torch.where with a mask",
    "torch.Tensor.scatter_reduce of a sum or mean": "sort, then segment sums",
    "torch.nn.MaxPool3d": "MaxPool2d over slices",
    "torch.nn.Embedding": "a product with a one-hot matrix where the table is small",
    "torch.repeat_interleave": "expand and reshape where all counts are equal",
}

# Outside the promise of the portable profile: other bits on another CPU model (measured).
NOT_PORTABLE_ON_CPU = {
    "torch.sqrt, x ** 0.5": "rsqrt, norm, std or hypot; optimizers with fused=True"
}


def _every(operation: Operation) -> bool:
    return True


def _has_argument(place: int, text: str) -> Callable[[Operation], bool]:
    """Select the calls whose argument at `place` has this text."""
    return lambda operation: operation.arguments.split()[place] == text


def _has_one_of(*texts: str) -> Callable[[Operation], bool]:
    """Select the calls that have an argument with one of these texts."""
    return lambda operation: not set(texts).isdisjoint(operation.arguments.split())


def _first_input(*prefixes: str) -> Callable[[Operation], bool]:
    """Select the calls whose first input is of a type that begins like this."""
    return lambda operation: operation.inputs[0].dtype.startswith(prefixes)


def _of_one_dimension(operation: Operation) -> bool:
    """Select the pooling of a vector, which torch does as that of an image of one line."""
    return operation.arguments.split()[-1] == "1"


class Kernel(NamedTuple):
    """An operation that torch does, and the entry above that it belongs to.

    `pattern`: its name without "aten.", where * stands for any text. `meant`: which calls of it.
    """

    pattern: str
    entry: str
    meant: Callable[[Operation], bool] = _every


KERNELS = [
    Kernel("avg_pool3d_backward", "torch.nn.AvgPool3d"),
    Kernel("_adaptive_avg_pool2d_backward", "torch.nn.AdaptiveAvgPool2d"),
    Kernel("_adaptive_avg_pool3d_backward", "torch.nn.AdaptiveAvgPool3d"),
    Kernel("adaptive_max_pool2d_backward", "torch.nn.AdaptiveMaxPool2d"),
    Kernel("fractional_max_pool2d_backward", "torch.nn.FractionalMaxPool2d"),
    Kernel("fractional_max_pool3d_backward", "torch.nn.FractionalMaxPool3d"),
    Kernel(
        "max_unpool2d", "torch.nn.MaxUnpool2d", lambda operation: not _of_one_dimension(operation)
    ),
    Kernel("max_unpool2d", "torch.nn.MaxUnpool1d", _of_one_dimension),
    Kernel("max_unpool3d", "torch.nn.MaxUnpool3d"),
    Kernel("upsample_linear1d_backward", "torch.nn.functional.interpolate"),
    Kernel("upsample_bicubic2d_backward", "torch.nn.functional.interpolate"),
    Kernel("_upsample_*_aa_backward", "torch.nn.functional.interpolate"),
    Kernel("reflection_pad1d_backward", "torch.nn.ReflectionPad1d"),
    Kernel("reflection_pad3d_backward", "torch.nn.ReflectionPad3d"),
    Kernel("nll_loss2d_forward", "torch.nn.NLLLoss"),
    Kernel("*ctc_loss_backward*", "torch.nn.CTCLoss"),
    Kernel("_embedding_bag_backward", "torch.nn.EmbeddingBag", _has_argument(2, "2")),
    Kernel("put*", "torch.Tensor.put_"),
    Kernel("histc", "torch.histc"),
    Kernel("bincount", "torch.bincount", lambda operation: len(operation.inputs) > 1),
    Kernel("*median.dim", "torch.median"),
    Kernel("grid_sampler_*_backward", "torch.nn.functional.grid_sample"),
    Kernel("scatter_reduce*", "torch.Tensor.scatter_reduce", _has_one_of("'prod'")),
    Kernel("scatter*.reduce", "torch.Tensor.scatter_reduce", _has_one_of("'multiply'")),
    Kernel("resize_", "torch.Tensor.resize_", _first_input("q")),
    Kernel("index_reduce*", "torch.Tensor.index_reduce"),
    Kernel("scaled_dot_product_attention", "torch.nn.functional.scaled_dot_product_attention"),
    Kernel("convolution", "torch.nn.Conv, torch.nn.ConvTranspose"),
    Kernel("replication_pad*_backward", "torch.nn.ReplicationPad"),
    Kernel("reflection_pad2d_backward", "torch.nn.ReflectionPad2d"),
    *(
        Kernel(
            f"upsample_{kind}_backward", "torch.nn.functional.interpolate, bilinear or trilinear"
        )
        for kind in ("bilinear2d", "trilinear3d")
    ),
    Kernel("bmm*", "torch.bmm of a sparse tensor", _first_input("sparse")),
    Kernel("cumsum", "torch.cumsum", _first_input("float", "bfloat")),
    Kernel("index_put*", "torch.Tensor.index_put, x[i] with a tensor i"),
    Kernel("scatter_add*", "torch.Tensor.scatter_add, torch.gather"),
    Kernel("index_add*", "torch.index_add, torch.index_select"),
    Kernel("index_copy*", "torch.Tensor.index_copy"),
    Kernel("scatter*.src", "torch.Tensor.scatter"),
    Kernel("scatter*.reduce", "torch.Tensor.scatter", _has_one_of("'add'")),
    Kernel(
        "scatter_reduce*",
        "torch.Tensor.scatter_reduce of a sum or mean",
        _has_one_of("'sum'", "'mean'"),
    ),
    Kernel("max_pool3d_with_indices_backward", "torch.nn.MaxPool3d"),
    Kernel("embedding_dense_backward", "torch.nn.Embedding"),
    Kernel("repeat_interleave*", "torch.repeat_interleave"),
    Kernel("sqrt*", "torch.sqrt, x ** 0.5"),
    Kernel("_foreach_sqrt*", "torch.sqrt, x ** 0.5"),
    Kernel(
        "pow.Tensor_Scalar", "torch.sqrt, x ** 0.5", lambda operation: operation.arguments == "0.5"
    ),
]


def _fused_attention_is_allowed() -> bool:
    """Tell whether attention may take a fused kernel on CUDA; with SDPBackend.MATH it may not."""
    from torch.backends import cuda  # torch waits until the profile is in force

    fused = (cuda.flash_sdp_enabled(), cuda.mem_efficient_sdp_enabled(), cuda.cudnn_sdp_enabled())
    return any(fused)


# Operators that the CPU does by means of others, while CUDA has kernels of its own whose gradients
# may vary; and which calls of them count, asked during the call. The others, which are all that a
# dispatch mode sees, say nothing about CUDA, so audit notes the calls (`Recorder.noting`). There is
# one such operator: a test of the template goes through all that only CUDA has kernels for.
NOTED_CALLS: dict[str, Callable[[], bool]] = {
    "scaled_dot_product_attention": _fused_attention_is_allowed
}


def may_not_be_portable(name: str) -> bool:
    """Tell whether an operation of this name, without "aten.", may stand in NOT_PORTABLE_ON_CPU."""
    kernels = (kernel for kernel in KERNELS if kernel.entry in NOT_PORTABLE_ON_CPU)
    return any(fnmatch(name, kernel.pattern) for kernel in kernels)


def known_as(operation: Operation) -> Iterator[str]:
    """Yield the entries of the tables above that an operation belongs to."""
    name = operation.name.partition(".")[2]
    for kernel in KERNELS:
        if fnmatch(name, kernel.pattern) and kernel.meant(operation):
            yield kernel.entry
