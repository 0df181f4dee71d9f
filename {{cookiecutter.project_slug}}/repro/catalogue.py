"""Operations that may differ from run to run or between CPU models, and the way round each.

The first table is that of PyTorch's documentation (torch.use_deterministic_algorithms, 2.14: a test
compares it with the installed version): with `determinism: strict` these raise an error on CUDA,
most of them in their gradient only. Where PyTorch has a deterministic version, it takes that one.
"""

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
    "torch.bincount": "deterministic_bincount (repro/determinism.py)",
    "torch.median": "sort, then take the middle one",
    "torch.nn.functional.grid_sample": "gather with indices of your own",
    "torch.Tensor.scatter_reduce": "reduce='sum' of logarithms, or amax/amin",
    "torch.Tensor.resize_": "a new tensor",
}

# Outside the promise of the portable profile: other bits on another CPU model (measured).
NOT_PORTABLE_ON_CPU = {
    "torch.sqrt, x ** 0.5": "rsqrt, norm, std or hypot; optimizers with fused=True",
}
