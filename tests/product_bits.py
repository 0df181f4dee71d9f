"""Print a digest of each of many matrix products and of what is made of them, for test_cpus.py.

    python product_bits.py PROJECT THREADS...

The profile's variables have to be set before. Each digest is of one case and one number of threads.
"""

import sys
from collections.abc import Iterator

sys.path.insert(0, sys.argv[1])

import torch
from bits_by_threads import print_digests
from torch import Tensor, nn

SHAPES = [
    *((32, 128, 128), (33, 129, 131), (64, 800, 16), (64, 16, 800), (8, 512, 512), (4, 1024, 256)),
    *((512, 1024, 4), (1000, 63, 65), (4096, 4, 64), (16, 16384, 16), (96, 257, 88)),
    *((256, 256, 256), (7, 4097, 129), (5, 65536, 5), (1, 2048, 2048), (2048, 2048, 1)),
    *((300, 137, 70), (3, 5, 7)),
]
generator = torch.Generator().manual_seed(0)


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=generator)


def unaligned(tensor: Tensor) -> Tensor:
    memory = torch.empty(tensor.numel() + 1)
    memory[1:] = tensor.flatten()
    return memory[1:].view(tensor.shape)


def products() -> Iterator[tuple[str, list[Tensor]]]:
    """Products of matrices that lie in memory in each way, and of batches."""
    for rows, terms, columns in SHAPES:
        a, b, c = normal(rows, terms), normal(terms, columns), normal(columns)
        across_a, across_b = (one.t().contiguous().t() for one in (a, b))
        made = [a @ b, a @ across_b, across_a @ b, across_a @ across_b, torch.addmm(c, a, b)]
        made += [unaligned(a) @ b, a @ unaligned(b), torch.addmm(c, a, b, beta=0.5, alpha=3)]
        made += [torch.cat([a, a], 1)[:, :terms] @ b, a @ torch.cat([b, b]).t()[:, :terms].t()]
        yield f"{rows} x {terms} x {columns}", made
    # Once, for an emulated CPU takes long.
    yield "92 x 4096 x 90", [normal(92, 4096) @ normal(4096, 90)]
    for batch, rows, terms, columns in [(3, 128, 96, 128), (64, 16, 32, 16), (2, 129, 130, 131)]:
        a, b = normal(batch, rows, terms), normal(batch, terms, columns)
        made = [a @ b, a @ b.mT.contiguous().mT, torch.baddbmm(normal(columns), a, b)]
        yield f"{batch} x ({rows} x {terms} x {columns})", made


def trained(network: nn.Module, inputs: Tensor, steps: int) -> list[Tensor]:
    """The weights after some steps."""
    optimizer = torch.optim.AdamW(network.parameters(), fused=True)
    for _ in range(steps):
        outputs = network(inputs)
        (outputs[0] if isinstance(outputs, tuple) else outputs).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    return [*network.state_dict().values()]


def networks() -> Iterator[tuple[str, list[Tensor]]]:
    torch.manual_seed(0)
    texts = normal(20, 16, 64)
    layer = nn.TransformerEncoderLayer(64, 1, 256)
    recurrent = {"LSTM": nn.LSTM(64, 96, 2), "projected LSTM": nn.LSTM(64, 96, proj_size=32)}
    for name, network in {**recurrent, "GRU": nn.GRU(64, 96), "transformer": layer}.items():
        yield name, trained(network, texts, 2)
    from torchvision.models import resnet18

    yield "ResNet-18", trained(resnet18(), normal(4, 3, 32, 32), 2)


print_digests(sys.argv[2:], generator, products, networks)
