"""Print a digest of each operation of training steps in bfloat16, for test_cpus.py.

    python bf16_bits.py PROJECT TASKS SIZE THREADS...

The models are those of the template's tasks, under autocast; SIZE is small or large. The profile's
variables have to be set before. A digest is of one model, or of one operation, by threads.
"""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

sys.path.insert(0, sys.argv[1])

import experiment
import torch
from bits_by_threads import print_digests
from torch import Tensor, nn
from torch.nn import functional

TASKS, SIZE = Path(sys.argv[2]), sys.argv[3]
LARGE = SIZE == "large"
OWN_PATH = [*experiment.__path__]
generator = torch.Generator()


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=generator)


def model(task: str, class_: str, settings: dict[str, Any], *arguments: Any) -> nn.Module:
    """A model as experiment/model.py of a task builds it."""
    for name in [name for name in sys.modules if name.startswith("experiment.")]:
        del sys.modules[name]
    experiment.__path__ = [*OWN_PATH, str(TASKS / task / "experiment")]
    import experiment.config as config
    import experiment.model as models

    torch.manual_seed(0)
    chosen = getattr(config, class_)(**settings)
    built: nn.Module = models.build_model(SimpleNamespace(model=chosen), *arguments)
    return built


def of_images(network: nn.Module, side: int, channels: int, batch: int) -> Callable[[], Tensor]:
    images = torch.rand(batch, channels, side, side, generator=generator)
    classes = torch.randint(10, (batch,), generator=generator)
    return lambda: functional.cross_entropy(network(images).float(), classes)


def of_text(network: nn.Module, batch: int) -> Callable[[], Tensor]:
    text = torch.randint(97, (batch, 65), generator=generator)
    targets = text[:, 1:].flatten()
    return lambda: functional.cross_entropy(network(text[:, :-1]).float().flatten(0, 1), targets)


def of_rows(network: nn.Module) -> Callable[[], Tensor]:
    rows, targets = normal(32, 10), normal(32)
    return lambda: (network(rows).float() - targets).square().mean()


def losses() -> Iterator[tuple[str, nn.Module, Callable[[], Tensor]]]:
    """The models, each with what computes its loss."""
    cnn = {"name": "small_cnn", "width": 48 if LARGE else 8, "dropout": 0.2}
    small_cnn = model("images", "SmallCNN", cnn, (1, 8, 8), 10)
    yield "CNN", small_cnn, of_images(small_cnn, 8, 1, 64 if LARGE else 16)
    for attention in ("math", "fused"):
        gpt = {"name": "gpt", "context": 64, "width": 64, "depth": 3 if LARGE else 1, "heads": 2}
        transformer = model("text", "GPT", {**gpt, "dropout": 0.0, "attention": attention}, 97)
        yield f"GPT, {attention}", transformer, of_text(transformer, 16 if LARGE else 4)
    perceptron = model("table", "MLP", {"name": "mlp", "width": 32, "depth": 2, "dropout": 0.2}, 10)
    yield "MLP", perceptron, of_rows(perceptron)
    if LARGE:
        resnet = {"name": "resnet18", "stem": "small", "weights_sha256": None}
        network = model("images", "ResNet18", resnet, (3, 32, 32), 10)
        yield "ResNet-18", network, of_images(network, 32, 3, 4)
        image = {"name": "image_transformer", "patch": 4, "width": 64, "depth": 2, "heads": 4}
        settings = {**image, "dropout": 0.1, "attention": "fused"}
        transformer = model("images", "ImageTransformer", settings, (1, 28, 28), 10)
        yield "image transformer", transformer, of_images(transformer, 28, 1, 16)


def trained(network: nn.Module, loss: Callable[[], Tensor]) -> list[Tensor]:
    """Losses, gradients and weights of two steps."""
    optimizer = torch.optim.AdamW(network.parameters(), fused=True)
    seen: list[Tensor] = []
    for step in range(2):
        torch.manual_seed(step)
        with torch.autocast("cpu", torch.bfloat16):
            found = loss()
        found.backward()  # type: ignore[no-untyped-call]
        seen += [found, *(p.grad.clone() for p in network.parameters() if p.grad is not None)]
        optimizer.step()
        optimizer.zero_grad()
    return [*seen, *network.state_dict().values()]


def operations() -> Iterator[tuple[str, list[Tensor]]]:
    """Operations of their own, in bfloat16, with their gradients."""

    def with_gradients(call: Callable[..., Tensor], *inputs: Tensor) -> list[Tensor]:
        leaves = [tensor.bfloat16().requires_grad_() for tensor in inputs]
        made = call(*leaves)
        made.float().square().sum().backward()  # type: ignore[no-untyped-call]
        return [made, *(leaf.grad for leaf in leaves if leaf.grad is not None)]

    shapes = [(32, 128, 128), (33, 129, 131), (1, 512, 64), (7, 4097, 129), (4, 16384, 16)]
    for rows, terms, columns in shapes:
        pair = normal(rows, terms), normal(terms, columns)
        yield f"{rows} x {terms} x {columns}", with_gradients(torch.mm, *pair)
        three = normal(columns), *pair
        yield f"sum, {rows} x {terms} x {columns}", with_gradients(torch.addmm, *three)
    yield "batch", with_gradients(torch.bmm, normal(6, 17, 64), normal(6, 64, 19))
    for inputs, outputs, side in [(1, 8, 8), (16, 32, 9), (64, 64, 8)]:
        pair = normal(4, inputs, side, side), normal(outputs, inputs, 3, 3)
        yield f"convolution {inputs} to {outputs}", with_gradients(functional.conv2d, *pair)
    attention = functional.scaled_dot_product_attention
    for batch, heads, length, width in [(2, 2, 33, 16), (1, 2, 200, 64)]:
        three = tuple(normal(batch, heads, length, width) for _ in range(3))
        yield f"attention of {length}", with_gradients(attention, *three)
    for name in ("gelu", "silu", "tanh", "softmax", "layer_norm"):
        options = {"softmax": {"dim": -1}, "layer_norm": {"normalized_shape": (65,)}}.get(name, {})
        one = getattr(functional, name)
        yield name, with_gradients(lambda x, f=one, o=options: f(x, **o), normal(9, 65))
    for kind in (nn.LSTM, nn.GRU):
        torch.manual_seed(0)
        layer = kind(32, 48).bfloat16()
        yield kind.__name__, with_gradients(lambda x, each=layer: each(x)[0], normal(5, 4, 32))


def trained_models() -> Iterator[tuple[str, list[Tensor]]]:
    for name, network, loss in losses():
        yield name, trained(network, loss)


print_digests(sys.argv[4:], generator, trained_models, operations)
