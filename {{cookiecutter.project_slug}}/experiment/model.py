"""Models. To add one: write the module, name it in `build_model`, add its settings in config.py.

The weights a model starts from are drawn from torch's global generator, which the trainer seeds
with `seeds.model_init` just before.
"""

from torch import Tensor, nn

from experiment.config import Config


class SmallCNN(nn.Module):
    """Three convolutions with BatchNorm, then dropout and a linear layer.

    Max pooling and not adaptive average pooling: the latter's gradient is nondeterministic on CUDA
    (torch.use_deterministic_algorithms).
    """

    def __init__(
        self, shape: tuple[int, int, int], classes: int, width: int, dropout: float
    ) -> None:
        super().__init__()
        channels, height, rows = shape
        self.features = nn.Sequential(
            *self._block(channels, width),
            *self._block(width, width),
            nn.MaxPool2d(2),
            *self._block(width, 2 * width),
            nn.MaxPool2d(2),
        )
        features = 2 * width * (height // 4) * (rows // 4)
        self.head = nn.Sequential(nn.Flatten(), nn.Dropout(dropout), nn.Linear(features, classes))

    @staticmethod
    def _block(inputs: int, outputs: int) -> list[nn.Module]:
        # No bias: BatchNorm subtracts it again.
        convolution = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        return [convolution, nn.BatchNorm2d(outputs), nn.ReLU()]

    def forward(self, images: Tensor) -> Tensor:
        """Logits (batch, classes) of images (batch, channels, height, width)."""
        logits: Tensor = self.head(self.features(images))
        return logits


def build_model(config: Config, shape: tuple[int, int, int], classes: int) -> nn.Module:
    """The model that `config.model` names, for images of `shape` (channels, height, width)."""
    settings = config.model
    return SmallCNN(shape, classes, settings.width, settings.dropout)
