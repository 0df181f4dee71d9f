"""Say what `model.attention=fused` is on the device at hand.

Fused kernels compute attention without writing its matrix down. On CUDA torch has flash and
memory-efficient ones, whose gradients repeat themselves with determinism=strict, and cuDNN's, whose
gradients do not. On the CPU it has one, a flash kernel that knows no dropout: attention with
dropout takes the mathematical path there (measured).
"""

import torch
from torch import nn


def fused_attention_here(config: object, model: nn.Module, device: torch.device) -> str:
    """Say in a line what a model's fused attention is on the CPU; "" for all else."""
    chosen = getattr(getattr(config, "model", None), "attention", "math")
    if chosen != "fused" or device.type != "cpu":
        return ""
    layers = [layer for layer in model.modules() if isinstance(layer, nn.MultiheadAttention)]
    dropout = max((layer.dropout for layer in layers), default=0.0)
    if dropout:
        return (
            "note: model.attention=fused trains by the mathematical attention on the CPU, whose "
            f"fused kernel knows no dropout (it is {dropout})"
        )
    return (
        "note: model.attention=fused is torch's flash kernel for the CPU here, for attention "
        "without dropout; a GPU has others"
    )
