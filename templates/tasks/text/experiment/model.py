"""Models. To add one: write the module, name it in `build_model`, add its settings in config.py.

The weights a model starts from are drawn from torch's global generator, which the kit seeds with
`seeds.model_init` just before.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from experiment.config import GPT, Config

# The kernels that attention may take, by model.attention. The fused ones repeat themselves on CUDA
# with determinism=strict only (repro/diagnosis/catalogue.py), and cuDNN's have no such way. Shapes
# that no fused kernel takes are left to plain matrix products; dropout on the CPU is one of them.
ATTENTION = {
    "math": [SDPBackend.MATH],
    "fused": [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH],
}


def build_model(config: Config, characters: int) -> "Transformer":
    """Return the model that `config.model` names, for a vocabulary of so many characters."""
    return Transformer(config.model, characters)


class Transformer(nn.Module):
    """A small GPT (https://openai.com/research/better-language-models), over characters.

    Beside it, in a buffer, a bigram table of the training text: the baseline. bigram (characters,
    characters) holds the logarithm of the probability of a character (column) after another (row).
    """

    bigram: Tensor

    def __init__(self, settings: GPT, characters: int) -> None:
        super().__init__()
        width = settings.width
        self.context = settings.context
        self.embedding = nn.Embedding(characters, width)
        self.positions = nn.Parameter(torch.randn(settings.context, width) * 0.02)
        self.dropout = nn.Dropout(settings.dropout)
        self.blocks = nn.Sequential(*(Block(settings) for _ in range(settings.depth)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, characters)
        nn.init.normal_(self.embedding.weight, std=0.02)
        self.register_buffer("bigram", torch.zeros(characters, characters))

    def forward(self, text: Tensor) -> Tensor:
        """Return logits (batch, length, characters) of what follows each of (batch, length).

        `text`: int64; its length is at most `context`.
        """
        tokens = self.embedding(text) + self.positions[: text.shape[1]]
        logits: Tensor = self.head(self.norm(self.blocks(self.dropout(tokens))))
        return logits

    def count_bigrams(self, text: Tensor) -> None:
        """Fill the bigram table from the TRAINING text; every pair counts once more than it is."""
        characters = len(self.bigram)
        pairs = text[:-1].long() * characters + text[1:].long()
        counts = torch.bincount(pairs, minlength=characters**2).view(characters, characters) + 1
        self.bigram.copy_((counts.double() / counts.sum(1, keepdim=True)).log())


class Block(nn.Module):
    """A layer: attention to what came before, then a perceptron, each after a LayerNorm."""

    def __init__(self, settings: GPT) -> None:
        super().__init__()
        width = settings.width
        self.heads = settings.heads
        self.kernels = ATTENTION[settings.attention]
        self.norm = nn.LayerNorm(width)
        self.attention = nn.Linear(width, 3 * width)
        self.projection = nn.Linear(width, width)
        self.dropout = nn.Dropout(settings.dropout)
        self.perceptron = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, 4 * width),
            nn.GELU(),
            nn.Linear(4 * width, width),
            nn.Dropout(settings.dropout),
        )

    def forward(self, tokens: Tensor) -> Tensor:
        """Return tokens of the same shape (batch, length, width)."""
        tokens = tokens + self.dropout(self.projection(self.attend(self.norm(tokens))))
        changed: Tensor = tokens + self.perceptron(tokens)
        return changed

    def attend(self, tokens: Tensor) -> Tensor:
        """Mix each token (batch, length, width) with those before it."""
        batch, length, width = tokens.shape
        parts = self.attention(tokens).view(batch, length, 3, self.heads, width // self.heads)
        queries, keys, values = parts.permute(2, 0, 3, 1, 4)
        with sdpa_kernel(self.kernels):
            mixed = functional.scaled_dot_product_attention(queries, keys, values, is_causal=True)
        return mixed.transpose(1, 2).reshape(batch, length, width)
