"""Measure what saving a checkpoint takes, beside a raw write of the same bytes to the same disk.

    python benchmarks/checkpoints.py PROJECT [ROUNDS] [FOLDER]

Both end when the bytes are on disk (fsync). They are measured in turn, for the digits CNN and for
ResNet-18, each with the moments of AdamW. Printed is a table in Markdown.
"""

import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

project = Path(sys.argv[1]).resolve()
rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 9
sys.path.insert(0, str(project))

from experiment.config import LOADER  # noqa: E402
from repro import environment  # noqa: E402

environment.enter("auto", 1)

import torch  # noqa: E402
from experiment.model import build_model  # noqa: E402
from repro.training import checkpoint  # noqa: E402
from spread import spread_of  # noqa: E402

CASES = {"digits CNN": ["model=small_cnn"], "ResNet-18": ["model=resnet18"]}


def state_of(settings: list[str]) -> dict[str, Any]:
    """Return the state of a training after its first step."""
    model = build_model(LOADER.load(settings), (1, 8, 8), 10)
    optimizer = torch.optim.AdamW(model.parameters())
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    return {"step": 1, "model": model.state_dict(), "optimizer": optimizer.state_dict()}


def save(folder: Path, state: dict[str, Any]) -> float:
    started = time.perf_counter()
    checkpoint.save(folder, state)
    return time.perf_counter() - started


def write(folder: Path, contents: list[bytes]) -> float:
    """Write the files' bytes one after the other, and wait until each is on disk."""
    folder.mkdir()
    started = time.perf_counter()
    for number, content in enumerate(contents):
        with (folder / str(number)).open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    return time.perf_counter() - started


def main() -> None:
    print("| checkpoint of | bytes | saving it, ms | a raw write, ms | ratio |")
    print("|---|---|---|---|---|")
    for name, settings in CASES.items():
        state = state_of(settings)
        folder = Path(tempfile.mkdtemp(dir=sys.argv[3] if len(sys.argv) > 3 else None))
        saved: list[float] = []
        raw: list[float] = []
        for number in range(rounds + 1):
            saving = save(folder / "step-000000001", state)
            contents = [path.read_bytes() for path in (folder / "step-000000001").iterdir()]
            shutil.rmtree(folder / "step-000000001")
            writing = write(folder / "raw", contents)
            shutil.rmtree(folder / "raw")
            if number:
                saved.append(1000 * saving)
                raw.append(1000 * writing)
        shutil.rmtree(folder)
        ratio = spread_of([one / other for one, other in zip(saved, raw, strict=True)])
        size = sum(map(len, contents))
        columns = (name, f"{size:,}", f"{spread_of(saved):.1f}", f"{spread_of(raw):.1f}")
        print(f"| {' | '.join(columns)} | {ratio:.2f} |", flush=True)


if __name__ == "__main__":
    main()
