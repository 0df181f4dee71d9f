"""Models. To add one: write the module, name it in `build_model`, add its settings in config.py.

The weights a model starts from are drawn from torch's global generator, which the trainer seeds
with `seeds.model_init` just before. Weights that were trained before come from a file of the
author's, known by its SHA-256: nothing is downloaded.
"""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from experiment.config import ROOT, Config, ImageTransformer, ResNet18, SmallCNN
from repro.core.errors import UserError
from repro.training.model_state import load_fitting

Shape = tuple[int, int, int]  # channels, height, width


def build_model(config: Config, shape: Shape, classes: int) -> nn.Module:
    """Return the model that `config.model` names, for images of `shape`, with random weights."""
    settings = config.model
    if isinstance(settings, SmallCNN):
        return small_cnn(settings, shape, classes)
    if isinstance(settings, ResNet18):
        return resnet(settings, shape, classes)
    if isinstance(settings, ImageTransformer):
        return Transformer(settings, shape, classes)
    raise UserError(f"model={settings.name}: expected it in build_model of experiment/model.py")


def small_cnn(settings: SmallCNN, shape: Shape, classes: int) -> nn.Module:
    """Build three convolutions with BatchNorm, then dropout and a linear layer.

    Max pooling and not adaptive average pooling: the latter's gradient is nondeterministic on CUDA
    (torch.use_deterministic_algorithms).
    """
    channels, height, rows = shape
    width = settings.width
    if min(height, rows) < 4:
        raise UserError(f"small_cnn: images of {height} x {rows} pixels, expected at least 4 x 4")

    def block(inputs: int, outputs: int) -> list[nn.Module]:
        # No bias: BatchNorm subtracts it again.
        convolution = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        return [convolution, nn.BatchNorm2d(outputs), nn.ReLU()]

    features = [
        *block(channels, width),
        *block(width, width),
        nn.MaxPool2d(2),
        *block(width, 2 * width),
        nn.MaxPool2d(2),
    ]
    size = 2 * width * (height // 4) * (rows // 4)
    head = [nn.Flatten(), nn.Dropout(settings.dropout), nn.Linear(size, classes)]
    return nn.Sequential(*features, *head)


class Normalize(nn.Module):
    """Images in 0 to 1 as torchvision's weights expect them: the mean and spread of ImageNet."""

    mean: Tensor
    spread: Tensor

    def __init__(self) -> None:
        super().__init__()
        # Buffers, which go to the GPU once: to put a list there in each step waits for it.
        mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
        spread = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
        self.register_buffer("mean", mean, persistent=False)
        self.register_buffer("spread", spread, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        return (images - self.mean) / self.spread


def resnet(settings: ResNet18, shape: Shape, classes: int) -> nn.Module:
    """Build torchvision's ResNet-18 (https://arxiv.org/abs/1512.03385).

    `stem: small` is for images of about 32 pixels: a first convolution of 3 x 3 that keeps the
    size, and no pooling after it.
    """
    from torchvision.models import resnet18  # only here: no other model needs it

    network = resnet18(num_classes=classes)
    channels = shape[0]
    if settings.stem == "small":
        network.conv1 = nn.Conv2d(channels, 64, 3, padding=1, bias=False)
        network.maxpool = nn.Identity()
    elif channels != 3:
        raise UserError(f"model.stem=imagenet: the images have {channels} channels, expected 3")
    return nn.Sequential(Normalize() if channels == 3 else nn.Identity(), network)


# The kernels that attention may take, by model.attention. The fused ones repeat themselves on CUDA
# with determinism=strict only (repro/diagnosis/catalogue.py), and cuDNN's have no such way. Shapes
# that no fused kernel takes are left to plain matrix products; dropout on the CPU is one of them.
ATTENTION = {
    "math": [SDPBackend.MATH],
    "fused": [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH],
}


class Transformer(nn.Module):
    """A small transformer for images (https://arxiv.org/abs/2010.11929), with mean pooling."""

    def __init__(self, settings: ImageTransformer, shape: Shape, classes: int) -> None:
        super().__init__()
        channels, height, rows = shape
        patch = settings.patch
        width = settings.width
        if height % patch or rows % patch:
            raise UserError(f"model.patch={patch}: expected a divisor of {height} x {rows} pixels")
        self.kernels = ATTENTION[settings.attention]
        self.patches = nn.Conv2d(channels, width, patch, stride=patch)
        tokens = (height // patch) * (rows // patch)
        self.positions = nn.Parameter(torch.randn(1, tokens, width) * 0.02)
        options: Any = {"activation": "gelu", "batch_first": True, "norm_first": True}
        sizes = (width, settings.heads, 4 * width, settings.dropout)
        layer = partial(nn.TransformerEncoderLayer, *sizes, **options)
        self.layers = nn.ModuleList([layer() for _ in range(settings.depth)])
        self.head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, classes))

    def forward(self, images: Tensor) -> Tensor:
        """Logits (batch, classes) of images (batch, channels, height, width)."""
        tokens = self.patches(images).flatten(2).transpose(1, 2) + self.positions
        with sdpa_kernel(self.kernels):
            for layer in self.layers:
                tokens = layer(tokens)
        logits: Tensor = self.head(tokens.mean(1))
        return logits


def load_pretrained(config: Config, model: nn.Module) -> None:
    """Start from the safetensors file `weights`, if `model.weights_sha256` asks for it."""
    if expected := getattr(config.model, "weights_sha256", None):
        if not config.weights:
            raise UserError("model.weights_sha256 is set: expected weights=PATH, the file it is of")
        network = model[1] if isinstance(model, nn.Sequential) else model
        load_fitting(network, ROOT / str(config.weights), expected)
