"""What the promises about time cost here, each beside a baseline of the same minute.

    python benchmarks/costs.py PROJECT [ROUNDS]

No test asserts a time, for a slow or busy machine is no fault of the code. These are figures: the
median of ROUNDS (3) times, the lowest and the highest, and the ratio to a baseline measured in turn
with it: the import of torch, a plain loop, or a loop over the same bytes. The commands:
1. a default training, an evaluation and `make test` of the project, beside importing torch;
2. writing a new project, beside starting cookiecutter; `make setup` where nothing is to do, beside
   starting Python;
3. the doctor, quick and whole, beside hashing the same files.
The functions, in this process:
4. finding a step in the middle of an epoch of 1.28 million samples, beside drawing a permutation;
5. a deterministic scatter_add, beside a Python loop and beside torch's own;
6. seeding all generators, beside torch's alone.
And, where .build/trackers is there (make test): 7. how long a training whose tracker never answers
lasts beyond its last step, beside tracker.wait.
"""

import hashlib
import os
import shutil
import socket
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
project = Path(sys.argv[1]).resolve()
rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 3
sys.path.insert(0, str(project))

from repro import environment  # noqa: E402

environment.enter("portable", 1)

import torch  # noqa: E402
from repro.environment.machine import get_hardware  # noqa: E402
from repro.training.sampling import Schedule, epoch_order  # noqa: E402
from repro.training.scatter import deterministic_scatter_add  # noqa: E402
from repro.training.seeding import seed_generators  # noqa: E402

Act = Callable[[], object]
COOKIECUTTER = ROOT / ".build" / "tools" / "bin" / "cookiecutter"
TRACKERS = ROOT / ".build" / "trackers"
WAIT = 2  # seconds that a tracker may take after the last step


def seconds(act: Act) -> float:
    started = time.perf_counter()
    act()
    return time.perf_counter() - started


def compare(name: str, act: Act, beside: str, baseline: Act, times: int = rounds) -> None:
    """Print what `act` takes, and how often that is what `baseline` takes, in turn."""
    pairs = [(seconds(act), seconds(baseline)) for _ in range(times)]
    ours = [pair[0] for pair in pairs]
    ratio = statistics.median(one / other for one, other in pairs)
    low, high = shown(min(ours)), shown(max(ours))
    middle = shown(statistics.median(ours))
    print(f"{name}: {middle} ({low} to {high}), {ratio:.3g} times {beside}", flush=True)


def shown(value: float) -> str:
    """Seconds in the unit that a reader would choose."""
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value / 1e-6:.3g} us"


def run(*words: str | Path, folder: Path = project) -> None:
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def python(*words: str) -> Act:
    return lambda: run(sys.executable, *words)


def commands() -> None:
    torch_alone = python("-c", "import torch")
    compare("a default training", python("-m", "experiment.train"), "importing torch", torch_alone)
    evaluate = python("-m", "experiment.evaluate")
    compare("its evaluation", evaluate, "importing torch", torch_alone)
    make = ("make", f"VENV={sys.prefix}")
    compare("make test", lambda: run(*make, "test"), "importing torch", torch_alone, 1)
    setup = "make setup where nothing is to do"
    compare(setup, lambda: run(*make, "setup"), "starting Python", python("-c", "pass"))
    compare("a new project", generate, "starting cookiecutter", lambda: run(COOKIECUTTER, "-V"))


def generate(*answers: str, folder: Path | None = None) -> None:
    with tempfile.TemporaryDirectory() as other:
        options = ("--no-input", "--default-config", "-o", folder or other)
        run(COOKIECUTTER, *options, ROOT, *answers)


def doctor() -> None:
    site = Path(sysconfig.get_path("purelib"))
    files = [path for path in site.rglob("*") if path.is_file()]

    def hash_all() -> None:
        for path in files:
            with path.open("rb") as file:
                hashlib.file_digest(file, "sha256")

    def list_all() -> None:
        for path in files:
            path.stat()

    name = f"of {len(files)} files"
    quick = python("-m", "repro", "doctor", "--quick")
    compare(f"the quick doctor {name}", quick, "asking for their sizes", list_all)
    whole = python("-m", "repro", "doctor", "--environment")
    compare(f"the whole doctor {name}", whole, "hashing them one by one", hash_all)


def functions() -> None:
    size = 1_281_167
    schedule = Schedule(size, 256, 42)

    def find() -> None:
        epoch_order.cache_clear()
        schedule.keys(123_456_789)

    compare("a step of 1.28 million samples", find, "a permutation", lambda: torch.randperm(size))
    generator = torch.Generator().manual_seed(0)
    src = torch.randn(64, 512, generator=generator)
    index = torch.randint(0, 512, (64, 512), generator=generator)
    zeros = torch.zeros(512, 512)

    def ours() -> None:
        deterministic_scatter_add(zeros, 0, index, src)

    def loop() -> None:
        output = zeros.clone()
        for row in range(len(src)):
            for column in range(512):
                output[index[row, column], column] += src[row, column]

    compare("scatter_add of 64 x 512", ours, "a Python loop", loop)
    compare(
        "scatter_add of 64 x 512", ours, "torch's", lambda: zeros.scatter_add(0, index, src), 99
    )

    def seed_all() -> None:
        for seed in range(1000):
            seed_generators(seed)

    def seed_torch() -> None:
        for seed in range(1000):
            torch.manual_seed(seed)

    compare("seeding all generators 1000 times", seed_all, "torch.manual_seed", seed_torch)


def silent_trackers() -> None:
    """Train with a server that takes every connection and never answers."""
    for tracker in ("mlflow", "wandb") if TRACKERS.is_dir() else ():
        folder = Path(tempfile.mkdtemp())
        generate(f"tracker={tracker}", folder=folder)
        (own,) = folder.iterdir()
        with socket.socket() as server:
            server.bind(("127.0.0.1", 0))
            server.listen(100)
            uri = f"http://127.0.0.1:{server.getsockname()[1]}"
            settings = ["training.max_steps=65", "output.log_every=1", "run_dir=runs/silent"]
            settings += [f"tracker.wait={WAIT}", f"tracker.uri={uri}"]
            process = subprocess.Popen(
                [TRACKERS / "bin" / "python", "-m", "experiment.train", *settings],
                cwd=own,
                env={**os.environ, "WANDB_API_KEY": "0" * 40},
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            metrics = own / "runs" / "silent" / "metrics.jsonl"
            while not metrics.is_file() or metrics.read_text().count("learning_rate") < 65:
                assert process.poll() is None, "the training failed"
                time.sleep(0.01)
            late = seconds(process.wait)
        shutil.rmtree(folder)
        print(f"{tracker}, a server that never answers: {late:.1f} s, tracker.wait is {WAIT} s")


def main() -> None:
    hardware = get_hardware()
    print(f"{hardware.cpu_model}, {hardware.logical_cores} cores, load {os.getloadavg()[0]:.1f}")
    functions()
    commands()
    doctor()
    silent_trackers()


if __name__ == "__main__":
    main()
