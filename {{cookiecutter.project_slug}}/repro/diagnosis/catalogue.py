"""Operations that may differ from run to run or between CPU models, and the way round each.

The first table is that of PyTorch's documentation (torch.use_deterministic_algorithms, 2.14: a test
compares it with the installed version): with `determinism: strict` these raise an error on CUDA,
most of them in their gradient only. Where PyTorch has a deterministic version, it takes that one.
"""

from collections.abc import Callable
from typing import Any


def _every(words: list[str], inputs: list[Any]) -> bool:
    return True


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
    "torch.nn.functional.interpolate": "mode='nearest', or a transposed convolution",
    "torch.nn.ReflectionPad1d": "padding by zeros, or ReplicationPad1d",
    "torch.nn.ReflectionPad2d": "padding by zeros, or ReplicationPad2d",
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
}

# Not in that documentation, but in that of the function itself.
NOT_REFUSED_ON_CUDA = {
    "torch.nn.functional.scaled_dot_product_attention": (
        "with torch.nn.attention.sdpa_kernel(SDPBackend.MATH): the fused kernels' gradients vary"
    )
}

# Deterministic on CUDA with `determinism: strict`, but by a slower way, or perhaps by one: the same
# documentation's first list.
SLOWER_ON_CUDA = {
    "torch.nn.Conv, torch.nn.ConvTranspose": "nothing: cuDNN has deterministic kernels",
    "torch.nn.ReplicationPad": "padding by zeros",
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

# The operation that torch does (without "aten.", * for any text) -> the entry above, and which
# calls of it are meant, by arguments and inputs as repro/diagnosis/operations.py tells them.
Meant = Callable[[list[str], list[Any]], bool]
KERNELS: list[tuple[str, str, Meant]] = [
    ("avg_pool3d_backward", "torch.nn.AvgPool3d", _every),
    ("_adaptive_avg_pool2d_backward", "torch.nn.AdaptiveAvgPool2d", _every),
    ("_adaptive_avg_pool3d_backward", "torch.nn.AdaptiveAvgPool3d", _every),
    ("adaptive_max_pool2d_backward", "torch.nn.AdaptiveMaxPool2d", _every),
    ("fractional_max_pool2d_backward", "torch.nn.FractionalMaxPool2d", _every),
    ("fractional_max_pool3d_backward", "torch.nn.FractionalMaxPool3d", _every),
    ("max_unpool2d", "torch.nn.MaxUnpool2d", lambda words, _: words[-1] != "1"),
    ("max_unpool2d", "torch.nn.MaxUnpool1d", lambda words, _: words[-1] == "1"),
    ("max_unpool3d", "torch.nn.MaxUnpool3d", _every),
    ("*upsample_*linear*_backward", "torch.nn.functional.interpolate", _every),
    ("*upsample_bicubic2d*_backward", "torch.nn.functional.interpolate", _every),
    ("reflection_pad1d_backward", "torch.nn.ReflectionPad1d", _every),
    ("reflection_pad2d_backward", "torch.nn.ReflectionPad2d", _every),
    ("reflection_pad3d_backward", "torch.nn.ReflectionPad3d", _every),
    ("nll_loss2d_forward", "torch.nn.NLLLoss", _every),
    ("*ctc_loss_backward*", "torch.nn.CTCLoss", _every),
    ("_embedding_bag_backward", "torch.nn.EmbeddingBag", lambda words, _: words[2] == "2"),
    ("put*", "torch.Tensor.put_", _every),
    ("histc", "torch.histc", _every),
    ("bincount", "torch.bincount", lambda _, inputs: len(inputs) > 1),
    ("*median.dim", "torch.median", _every),
    ("grid_sampler_*_backward", "torch.nn.functional.grid_sample", _every),
    ("scatter_reduce*", "torch.Tensor.scatter_reduce", lambda words, _: "'prod'" in words),
    ("resize_", "torch.Tensor.resize_", lambda _, inputs: inputs[0][1].startswith("q")),
    ("_scaled_dot_product_*_backward*", "torch.nn.functional.scaled_dot_product_attention", _every),
    ("convolution", "torch.nn.Conv, torch.nn.ConvTranspose", _every),
    ("replication_pad*_backward", "torch.nn.ReplicationPad", _every),
    ("bmm*", "torch.bmm of a sparse tensor", lambda _, inputs: "sparse" in inputs[0][1]),
    ("cumsum", "torch.cumsum", lambda _, inputs: inputs[0][1].startswith(("float", "bfloat"))),
    ("index_put*", "torch.Tensor.index_put, x[i] with a tensor i", _every),
    ("scatter_add*", "torch.Tensor.scatter_add, torch.gather", _every),
    ("index_add*", "torch.index_add, torch.index_select", _every),
    ("index_copy*", "torch.Tensor.index_copy", _every),
    ("scatter*.src", "torch.Tensor.scatter", _every),
    (
        "scatter_reduce*",
        "torch.Tensor.scatter_reduce of a sum or mean",
        lambda words, _: "'sum'" in words or "'mean'" in words,
    ),
    ("max_pool3d_with_indices_backward", "torch.nn.MaxPool3d", _every),
    ("embedding_dense_backward", "torch.nn.Embedding", _every),
    ("repeat_interleave*", "torch.repeat_interleave", _every),
    ("sqrt*", "torch.sqrt, x ** 0.5", _every),
    ("_foreach_sqrt*", "torch.sqrt, x ** 0.5", _every),
    ("pow.Tensor_Scalar", "torch.sqrt, x ** 0.5", lambda words, _: words == ["0.5"]),
]
