"""Measure what the portable profile costs: a step's processor time beside that of the native one.

    python benchmarks/portable.py PROJECT [ROUNDS]

Above 1 is slower. Each ratio is the median over rounds (7) in which both are measured in turn, each
in a process of its own, with one thread:
1. A GPT of 4 layers, width 128, over 64 characters, 16 texts a step; the same without the products
   of its attention; and the projections, without attention, by MKL alone (what it was before).
2. The digits CNN of the images task at its own batch size; a ResNet-18 on 16 images of 32 x 32.
3. A linear layer of 10 units on 32 samples, forward, in microseconds a call more.
4. The error of products of 256 x TERMS x 256, beside float64.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

project = Path(sys.argv[1]).resolve()
sys.path.insert(0, str(project))
DEPTH, WIDTH, HEADS, LENGTH, BATCH, CHARACTERS = 4, 128, 4, 64, 16, 96
TERMS = (64, 128, 256, 512, 1024, 4096, 16384)
WITHOUT = "--without-kernels"  # the portable variables alone, MKL for every product


def main() -> None:
    if len(sys.argv) > 3:
        print(json.dumps(measure(sys.argv[2], WITHOUT in sys.argv)))
        return
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 7
    kinds = {"native": [], "portable": [], "before": []}  # type: ignore[var-annotated]
    for number in range(rounds):
        order = [*kinds] if number % 2 else [*kinds][::-1]
        for kind in order:
            kinds[kind].append(of_process(kind))
    for name in kinds["native"][0]:
        native, portable, before = ([found[name] for found in kinds[kind]] for kind in kinds)
        if "us" in name:
            more = statistics.median(a - b for a, b in zip(portable, native, strict=True))
            print(f"{name:40} {more:+.1f} more than native")
            continue
        now = statistics.median(a / b for a, b in zip(portable, native, strict=True))
        then = statistics.median(a / b for a, b in zip(before, native, strict=True))
        middle = statistics.median(native)
        of = f"{middle:.2e}" if "error" in name else f"{middle * 1000:.1f} ms"
        print(f"{name:40} {now:.2f} of native ({of}); MKL alone {then:.2f}")


def of_process(kind: str) -> dict[str, float]:
    """Measure in a process of its own: the profile acts before torch is imported."""
    profile = "native" if kind == "native" else "portable"
    command = [
        sys.executable,
        __file__,
        str(project),
        profile,
        WITHOUT if kind == "before" else "-",
    ]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, env=os.environ)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def measure(profile: str, without_kernels: bool) -> dict[str, float]:
    """Return seconds a step by name, with the profile in force."""
    from repro import environment

    environment.enter(profile, 1)
    import torch
    from repro.training import cpu_kernels, determinism

    if without_kernels:
        cpu_kernels._register = lambda: None
    determinism.set_determinism("strict")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    text = torch.randint(CHARACTERS, (BATCH, LENGTH))
    found = {}
    for name, with_attention in (("GPT", True), ("GPT without attention's products", False)):
        found[name] = seconds(training_of(gpt(with_attention), text, text.flatten()), 12)
    network, images, classes = digits()
    found["digits CNN"] = seconds(training_of(network, images, classes), 60)
    from torchvision.models import resnet18

    images = torch.rand(16, 3, 32, 32)
    found["ResNet-18"] = seconds(training_of(resnet18(), images, torch.arange(16)), 4)
    layer = torch.nn.Linear(10, 10)
    samples = torch.rand(32, 10)
    found["linear layer of 10 units, us a call"] = seconds(lambda: layer(samples), 20_000) * 1e6
    for terms in TERMS:
        found[f"error with {terms:,} terms"] = error(terms)
    return found


def error(terms: int) -> float:
    """Return the error of a product of random matrices, in proportion to what float64 gives."""
    import torch

    torch.manual_seed(terms)
    left, right = torch.randn(256, terms), torch.randn(terms, 256)
    true = left.double() @ right.double()
    return ((left @ right - true).norm() / true.norm()).item()


def digits():  # type: ignore[no-untyped-def]
    """Return the network of the images task, and a batch for it."""
    import torch
    from experiment.config import LOADER
    from experiment.model import build_model

    config = LOADER.load([])
    size = config.training.batch_size
    return build_model(config, (1, 8, 8), 10), torch.rand(size, 1, 8, 8), torch.arange(size) % 10


def training_of(network, inputs, targets) -> Callable[[], object]:  # type: ignore[no-untyped-def]
    """Return a function that does a step."""
    import torch

    optimizer = torch.optim.AdamW(network.parameters(), fused=True)

    def step() -> None:
        optimizer.zero_grad()
        outputs = network(inputs)
        torch.nn.functional.cross_entropy(outputs.flatten(0, -2), targets).backward()
        optimizer.step()

    return step


def gpt(with_attention: bool):  # type: ignore[no-untyped-def]
    """Return a GPT; without attention each token keeps its own value."""
    import torch
    from torch import nn

    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.all = nn.Linear(WIDTH, 3 * WIDTH)
            self.out = nn.Linear(WIDTH, WIDTH)
            self.register_buffer("mask", torch.ones(LENGTH, LENGTH).tril().bool())

        def forward(self, tokens):  # type: ignore[no-untyped-def]
            q, k, v = (
                part.view(BATCH, LENGTH, HEADS, -1).transpose(1, 2)
                for part in self.all(tokens).chunk(3, dim=-1)
            )
            if with_attention:
                weights = q @ k.transpose(-2, -1) * (WIDTH // HEADS) ** -0.5
                v = weights.masked_fill(~self.mask, -torch.inf).softmax(-1) @ v
            else:
                v = v + 0 * (q + k)
            return self.out(v.transpose(1, 2).reshape(BATCH, LENGTH, WIDTH))

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.Sequential(nn.LayerNorm(WIDTH), Attention())
            layers = (nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Linear(4 * WIDTH, WIDTH))
            self.perceptron = nn.Sequential(nn.LayerNorm(WIDTH), *layers)

        def forward(self, tokens):  # type: ignore[no-untyped-def]
            tokens = tokens + self.attention(tokens)
            return tokens + self.perceptron(tokens)

    blocks = (Block() for _ in range(DEPTH))
    head = (nn.LayerNorm(WIDTH), nn.Linear(WIDTH, CHARACTERS))
    return nn.Sequential(nn.Embedding(CHARACTERS, WIDTH), *blocks, *head)


def seconds(function: Callable[[], object], count: int) -> float:
    """Return the processor time of a call, after some to warm up."""
    for _ in range(3):
        function()
    started = time.process_time()
    for _ in range(count):
        function()
    return (time.process_time() - started) / count


main()
