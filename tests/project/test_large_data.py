"""Large data in a generated project: memory, start and faults of trainings, the check of all of it.

The project is that of docs/adapting.md's step "Large data".
"""

import os
import re
import resource
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import CLAIMS, Project, faults, last_line, record_claims
from repro.data.tar_index import TarIndex
from test_adapting import STEPS, answer

# Each process writes down its largest memory, and as many samples are told as a variable says.
TOLD = """

import atexit
import os


def _tell() -> None:
    lines = Path("/proc/self/status").read_text().splitlines()
    told = next(line for line in lines if line.startswith("VmHWM"))
    Path(os.environ["TOLD"], f"{os.getpid()}").write_text(told.split()[1])


class Many(Images):
    def __len__(self) -> int:
        return int(os.environ["SAMPLES"]) or super().__len__()

    def __getitem__(self, number: int) -> tuple[Tensor]:
        _tell()
        return super().__getitem__(number % super().__len__())


if "TOLD" in os.environ:
    atexit.register(_tell)
    _found = datasets

    def datasets(config: Config, folder: Path, facts: Any) -> dict[str, Images]:
        return {**_found(config, folder, facts), "train": Many(folder / "train.tarindex")}
"""
STEPS_OF_IT = ("training.max_steps=20", "training.shards=2", "training.epochs=1")
MEGABYTES = 200


@pytest.fixture
def large(own_project: Project) -> Project:
    """A project whose samples lie in tar files."""
    STEPS["Large data"].apply(own_project)
    answer(own_project.module("experiment.prepare"))
    return own_project


def index_of(project: Project, part: str = "train") -> Path:
    (path,) = project.path.glob(f"data/*/prepared/{part}.tarindex")
    return path


def flip(project: Project, number: int, part: str = "train") -> str:
    """Change a byte of a sample; return what its fault begins with."""
    index = TarIndex(index_of(project, part))
    entry = index.entry(number)
    path = index.part_path(entry.part)
    with path.open("r+b") as file:
        file.seek(entry.offset)
        file.write(b"\xff")
    return f"{path}: sample {number}, '{entry.name}': its SHA-256 is "


@pytest.mark.parametrize("workers", [0, 2])
def test_a_training_ends_at_a_sample_that_changed(large: Project, workers: int) -> None:
    told = [flip(large, number) for number in (3, 500)]
    done = large.train(f"num_workers={workers}", "training.epochs=1")
    assert done.returncode == 2
    assert any(line in last_line(done.stderr) for line in told), done.stderr
    assert "Traceback" not in done.stderr


def test_the_check_of_all_samples_names_what_no_training_reads(large: Project) -> None:
    record_claims(large, CLAIMS.replace("accuracy", "error"))
    done = large.module("repro", "verify", "--check", "full")
    assert "samples    of tar files: each one read, as it was written" in answer(done)
    assert last_line(done.stdout) == "IDENTICAL"
    told = flip(large, 7, "validation")  # three steps validate on nothing
    assert last_line(large.module("repro", "verify").stdout) == "IDENTICAL"
    done = large.module("repro", "verify", "--check", "full")
    assert done.returncode == 2
    assert told in done.stderr
    done = large.processes(2, "experiment.train", "--check=full", "training.shards=2")
    assert done.returncode == 2
    assert told in done.stderr
    assert "Traceback" not in done.stderr


def test_a_check_of_nothing_is_refused(project: Project) -> None:
    (line,) = faults(project.module("experiment.train", "--check=full"))
    assert "this training names no tar files with an index" in line


def memory(project: Project, samples: int, *settings: str) -> int:
    """Train, and return the largest memory of any process, in MB."""
    told = project.path / f"told-{samples}"
    told.mkdir()
    command = ("python", "-m", "experiment.train", *STEPS_OF_IT, *settings)
    done = project.run(*command, TOLD=str(told), SAMPLES=str(samples))
    assert done.returncode == 0, done.stderr
    found = [int(path.read_text()) // 1024 for path in told.iterdir()]
    assert len(found) == 3  # the training, and two data workers
    return max(found)


def test_a_billion_samples_take_the_memory_of_a_thousand(large: Project) -> None:
    with (large.path / "experiment" / "data.py").open("a") as file:
        file.write(TOLD)
    few = memory(large, 1000)
    many = memory(large, 10**9)
    print(f"{few} MB with 1,000 samples, {many} MB with 10^9")
    assert many - few <= MEGABYTES


@pytest.fixture
def sources(large: Project) -> Iterator[Project]:
    """The project with as many samples of as many bytes as variables say; they are deleted."""
    path = large.path / "experiment" / "data.py"
    text = path.read_text()
    start = text.index("    images = load_digits()")
    end = text.index("def part_of")
    body = """    import os

    samples = int(os.environ["WRITTEN"])
    size = int(os.environ["BYTES"])
    noise = np.random.default_rng(1).bytes(size + 64)
    with ExitStack() as stack:
        writers = {
            part: stack.enter_context(TarWriter(folders.out / f"{part}.tarindex")) for part in PARTS
        }
        for number in range(samples):
            name = f"{number:09d}.bin"
            writers[part_of(name, settings)].add(name, noise[number % 64 :][:size])
    return {"samples": samples}


"""
    text = text[:start] + body + text[end:]
    text = text.replace(
        "np.frombuffer(sample.data, np.uint8)", "np.frombuffer(sample.data[:64], np.uint8)"
    )
    path.write_text(text + TOLD)
    shutil.rmtree(large.path / "data")
    try:
        yield large
    finally:
        shutil.rmtree(large.path / "data", ignore_errors=True)


def prepare(project: Project, samples: int, size: int) -> None:
    shutil.rmtree(project.path / "data", ignore_errors=True)
    command = ("python", "-m", "experiment.prepare")
    answer(project.run(*command, WRITTEN=str(samples), BYTES=str(size)))


def of_processor() -> float:
    """The seconds that the processor has worked for commands that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


@pytest.mark.long
def test_a_million_samples_start_a_second_later_at_most(sources: Project) -> None:
    """By the clock, or by the processor's time: other programs do not lengthen that."""
    took = {}
    for samples in (1000, 1_000_000):
        prepare(sources, samples, 64)
        by_clock, by_processor = [], []
        for _ in range(3):
            before, started = of_processor(), time.monotonic()
            answer(sources.run("python", "-m", "experiment.train", "training.max_steps=1"))
            by_clock.append(time.monotonic() - started)
            by_processor.append(of_processor() - before)
        took[samples] = min(by_clock), min(by_processor)
    print(took)
    assert min(many - few for few, many in zip(took[1000], took[1_000_000], strict=True)) <= 1


@pytest.mark.long
def test_twenty_gigabytes_take_the_memory_of_a_few_megabytes(sources: Project) -> None:
    """REPRO_TEST_GIGABYTES takes another size."""
    gigabytes = int(os.environ.get("REPRO_TEST_GIGABYTES", "20"))
    free = shutil.disk_usage(sources.path).free
    if free < (gigabytes + 5) * 10**9:
        pytest.skip(f"{free / 1e9:.0f} GB are free, and the files take {gigabytes}")
    prepare(sources, 1000, 4096)
    few = memory(sources, 0)
    prepare(sources, gigabytes * 10**9 // 200_000, 200_000)
    written = sum(path.stat().st_size for path in sources.path.glob("data/*/prepared/*.tar"))
    assert written >= gigabytes * 10**9
    shutil.rmtree(sources.path / "told-0")
    many = memory(sources, 0)
    print(f"{few} MB with 4 MB, {many} MB with {written / 1e9:.1f} GB")
    assert many - few <= MEGABYTES
    checked = sources.run("python", "-m", "experiment.train", "--check=full")
    assert re.search(r'"conditions"', answer(checked))
