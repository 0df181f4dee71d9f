"""The kit's functions where they stand: seeds, environment, scatter_add, shards, checkpoints."""

import os
import random
import re
import resource
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import PORTABLE, TEMPLATE, clean_environ
from experiment.metrics import class_accuracies, confusion_of
from hydra.core.override_parser.overrides_parser import OverridesParser
from repro import environment
from repro.core import layout
from repro.core.errors import UserError, reason_of
from repro.core.files import write_file
from repro.core.hashing import derive_seed
from repro.diagnosis import catalogue
from repro.results.document import fill_blocks
from repro.runs import fingerprints
from repro.runs.fingerprints import fingerprint, state_quantities
from repro.runs.sweep import combinations
from repro.training import checkpoint, sampling
from repro.training.batches import cut
from repro.training.checkpoint import find_fault, load, save
from repro.training.determinism import flags, refuse_changed_flags, set_determinism
from repro.training.loading import batches_of_steps
from repro.training.model_state import weights_digest
from repro.training.parallel import (
    Processes,
    TreeSum,
    backward_in_shards,
    shard_slices,
    slices_here,
)
from repro.training.sampling import Schedule, sample_seed, split_indices
from repro.training.scatter import (
    deterministic_bincount,
    deterministic_index_add,
    deterministic_scatter_add,
)
from repro.training.seeding import (
    ExperimentSeeds,
    get_seed_state,
    set_seed,
    set_seed_state,
    worker_init_fn,
)
from repro.training.weighted import Weighted
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import DataLoader, Dataset


@pytest.fixture(autouse=True)
def _leave_torch_as_it_was() -> Any:
    yield
    set_determinism("off")


def draws() -> tuple[float, float, float]:
    return random.random(), float(np.random.rand()), torch.rand(1).item()


# Seeds ---------------------------------------------------------------------------------------


def test_set_seed_seeds_every_generator_and_zero_is_a_seed() -> None:
    for seed in (0, 1, 2**63 - 1):
        set_seed(seed)
        first = draws()
        draws()
        set_seed(seed)
        assert draws() == first
    set_seed(0)
    zero = draws()
    set_seed(1)
    assert all(a != b for a, b in zip(zero, draws(), strict=True))


def test_set_seed_chooses_the_flags() -> None:
    set_seed(1, deterministic=True)
    assert flags()["deterministic_algorithms"] == 2
    assert not flags()["cudnn.benchmark"]
    set_seed(1, deterministic=False)
    assert flags()["deterministic_algorithms"] == 0
    assert flags()["cudnn.benchmark"]


def test_seed_state_comes_back_through_a_checkpoint(tmp_path: Path) -> None:
    set_seed(3)
    random.gauss(0, 1), np.random.randn(), torch.randn(3)  # half-used pairs of normals too
    save(tmp_path / "state", get_seed_state())
    expected = (random.gauss(0, 1), np.random.randn(), torch.randn(3).tolist(), *draws())
    set_seed(4)
    set_seed_state(load(tmp_path / "state"))
    assert (random.gauss(0, 1), np.random.randn(), torch.randn(3).tolist(), *draws()) == expected


def test_phases_do_not_disturb_each_other() -> None:
    seeds = ExperimentSeeds(data_split=1, model_init=2, training=3, evaluation=4)
    seeds.apply_for_phase("train")
    expected = draws()
    seeds.apply_for_phase("init")
    torch.rand(1000)
    seeds.apply_for_phase("train")
    assert draws() == expected
    same = ExperimentSeeds(5, 5, 5, 5)  # equal seeds still give each phase its own numbers
    values = set()
    for phase in ("split", "init", "train", "eval"):
        same.apply_for_phase(phase)
        values.add(draws())
    assert len(values) == 4
    with pytest.raises(ValueError, match="training"):
        seeds.apply_for_phase("training")


def test_derived_seeds_are_the_same_for_ever() -> None:
    assert derive_seed(42, "sample", 0, 7) == derive_seed(42, "sample", 0, 7)
    assert derive_seed(42, "sample", 0, 7) == 5693156994392566682
    parts = [(1, 23), (12, 3), (1, "23"), ("1", 23), (1, 2, 3), ("a", "b"), ("ab",)]
    assert len({derive_seed(*p) for p in parts}) == len(parts)
    assert all(0 <= derive_seed(k) < 2**63 for k in range(1000))


class Draws(Dataset[list[float]]):
    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> list[float]:
        return list(draws())


def test_worker_init_fn_gives_each_worker_its_own_numbers_again() -> None:
    def epoch() -> list[list[float]]:
        generator = torch.Generator().manual_seed(1)
        loader = DataLoader(
            Draws(), batch_size=2, num_workers=2, worker_init_fn=worker_init_fn, generator=generator
        )
        return [values.tolist() for batch in loader for values in batch]

    first = epoch()
    assert first == epoch()
    numbers = [number for values in first for number in values]
    assert len(set(numbers)) == len(numbers)


# Sampling ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "batch", "drop"), [(10, 4, False), (10, 4, True), (7, 7, False)])
def test_an_epoch_takes_every_sample_once(size: int, batch: int, drop: bool) -> None:
    schedule = Schedule(size, batch, 5, drop)
    epochs: list[list[tuple[int, int]]] = [[], []]
    for step in range(2 * schedule.steps_per_epoch):
        keys = schedule.keys(step)
        assert len(keys) == schedule.length(step)
        epochs[schedule.epoch_of(step)] += keys
    for number, keys in enumerate(epochs):
        assert {key.epoch for key in keys} == {number}
        indices = [key.sample for key in keys]
        assert len(set(indices)) == len(indices) == (size // batch * batch if drop else size)
    assert [key.sample for key in epochs[0]] != [key.sample for key in epochs[1]]


def test_without_workers_the_samples_of_one_step_are_in_memory() -> None:
    """Images may be large."""
    asked = []

    class Asked(Dataset[float]):
        def __len__(self) -> int:
            return 8

        def __getitem__(self, index: int) -> float:
            asked.append(index)
            return 0.0

    batches = batches_of_steps(Asked(), Schedule(8, 2, 0), range(3))
    for step in range(1, 4):
        indices, _ = next(batches)
        assert len(asked) == 2 * step
        assert indices.tolist() == asked[-2:]


def test_any_step_of_any_epoch_is_found_without_those_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """1.28 million samples: two permutations at most, and no sample but those of the steps."""
    permutations, touched = [], []
    randperm = torch.randperm

    def counted(*arguments: Any, **options: Any) -> torch.Tensor:
        permutations.append(arguments)
        return randperm(*arguments, **options)

    class Touched(Dataset[float]):
        def __getitem__(self, index: int) -> float:
            touched.append(index)
            return 0.0

    monkeypatch.setattr(torch, "randperm", counted)
    sampling.epoch_order.cache_clear()
    schedule = Schedule(1_281_167, 256, 42)
    last = 24_690 * schedule.steps_per_epoch - 1  # of an epoch: the next step is of another
    assert schedule.keys(last)[0].epoch == 24_689
    assert len(permutations) == 1
    batches = [*batches_of_steps(Touched(), schedule, range(last, last + 2))]
    assert len(permutations) == 2
    assert touched == [index for indices, _ in batches for index in indices.tolist()]
    assert len(touched) == schedule.length(last) + 256


def test_a_sample_that_draws_from_torch_alone_costs_one_seeding_a_batch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """To seed Python's and NumPy's generators for each would take as long as a small sample."""
    seeded: list[str] = []
    for module in (random, np.random):
        monkeypatch.setattr(module, "seed", counting(module.seed, module.__name__, seeded))

    class Torch(Dataset[float]):
        def __getitem__(self, index: int) -> float:
            return torch.rand(1).item()

    class Python(Dataset[float]):
        def __getitem__(self, index: int) -> float:
            return random.random()

    [*batches_of_steps(Torch(), Schedule(64, 32, 0), range(2))]
    assert sorted(seeded) == ["numpy.random"] * 2 + ["random"] * 2
    [*batches_of_steps(Python(), Schedule(64, 32, 0), range(1))]
    assert len(seeded) > 64


def counting(function: Any, name: str, calls: list[str]) -> Any:
    def counted(*arguments: Any) -> Any:
        calls.append(name)
        return function(*arguments)

    return counted


def test_a_split_is_disjoint_and_whole() -> None:
    parts = split_indices(1000, (0.2, 0.1, 1.0), 7)
    assert [len(part) for part in parts] == [200, 100, 700]
    assert sorted(index for part in parts for index in part) == list(range(1000))
    assert parts == split_indices(1000, (0.2, 0.1, 1.0), 7)
    assert parts != split_indices(1000, (0.2, 0.1, 1.0), 8)


# Environment ---------------------------------------------------------------------------------

SCRIPT = """
import os, sys
sys.path.insert(0, {path!r})
from repro import environment
from repro.core.command import run_command
def main():
    environment.enter({profile!r}, 3)
    import torch
    print(os.environ.get("MKL_CBWR"), os.environ["OMP_NUM_THREADS"], hash("repro"), sys.argv[1:],
          torch.backends.cpu.get_cpu_capability(), "REPRO_REEXEC" in os.environ,
          sys.flags.optimize)
    return 0
if __name__ == "__main__":
    sys.exit(run_command(main))
"""


def start(
    *arguments: str, profile: str = "portable", stdin: str | None = None, **variables: str
) -> subprocess.CompletedProcess[str]:
    script = SCRIPT.format(path=str(TEMPLATE), profile=profile)
    words = [script if word == "SCRIPT" else word for word in arguments]
    return subprocess.run(
        [sys.executable, *words],
        env=clean_environ(**variables),
        input=script if stdin == "SCRIPT" else stdin,
        capture_output=True,
        text=True,
    )


def test_a_command_puts_the_profile_in_force_before_torch_is_imported(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT.format(path=str(TEMPLATE), profile="portable"))
    outputs = set()
    for arguments in (
        ["-c", "SCRIPT", "a b"],
        ["-W", "ignore", str(tmp_path / "script.py"), "a b"],
    ):
        done = start(*arguments)
        assert done.returncode == 0, done.stderr
        outputs.add(done.stdout)
    (output,) = outputs  # the hash of a string too: PYTHONHASHSEED acts
    assert output.startswith("COMPATIBLE 3 ")
    assert output.endswith("['a b'] AVX2 False 0\n")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MKL_CBWR", "AVX2"),
        ("ATEN_CPU_CAPABILITY", "avx512"),
        ("ONEDNN_MAX_CPU_ISA", "AVX512_CORE"),
        ("CUBLAS_WORKSPACE_CONFIG", ":16:8"),
        ("OPENBLAS_CORETYPE", "SkylakeX"),
        ("NVIDIA_TF32_OVERRIDE", "1"),
        ("OMP_DYNAMIC", "true"),
        ("OMP_DYNAMIC", "1"),
        ("OMP_THREAD_LIMIT", "2"),  # the training has 3
        ("OMP_THREAD_LIMIT", "x"),
        ("OMP_MAX_ACTIVE_LEVELS", "0"),
        ("MKL_NUM_STRIPES", "3"),
        ("ONEDNN_DEFAULT_FPMATH_MODE", "ANY"),
    ],
)
def test_a_contradicting_variable_is_refused_with_both_values(name: str, value: str) -> None:
    for marker in ({}, {"REPRO_PROFILE": "portable"}):
        done = start("-c", "SCRIPT", **{name: value}, **marker)
        assert done.returncode == 2
        (line,) = done.stderr.splitlines()
        assert f"{name}={value}" in line
        assert f"unset {name}" in line
        assert environment.PROFILES["portable"].get(name, "") in line


def test_a_variable_that_changes_nothing_is_no_conflict() -> None:
    """A library's default, or a limit that is never reached; torch overrules MKL_DYNAMIC."""
    for harmless in (
        {"OMP_DYNAMIC": "FALSE", "MKL_DYNAMIC": "FALSE", "ONEDNN_DEFAULT_FPMATH_MODE": "STRICT"},
        {"OMP_DYNAMIC": "", "MKL_DYNAMIC": "TRUE", "OMP_THREAD_LIMIT": "3"},
        {"OMP_DYNAMIC": " false ", "OMP_THREAD_LIMIT": "64", "OMP_MAX_ACTIVE_LEVELS": "1"},
        {"OMP_SCHEDULE": "dynamic,1", "OMP_PROC_BIND": "true", "KMP_AFFINITY": "compact"},
    ):
        done = start("-c", "SCRIPT", **harmless)
        assert done.stdout.startswith("COMPATIBLE 3 "), done.stderr


@pytest.mark.parametrize("value", ["FALSE", "TRUE"])
def test_torch_overrules_mkl_dynamic(value: str) -> None:
    """Several threads' sums are the same bits with it and without; the table rests on that."""
    code = (
        "import torch; torch.set_num_threads(3); torch.manual_seed(0); "
        "x = torch.randn(513, 777); y = torch.randn(777, 391); "
        "print(torch.get_num_threads(), (x @ y).double().sum().item().hex())"
    )
    words = [sys.executable, "-c", code]
    found = {
        subprocess.run(words, env=environ, capture_output=True, text=True, check=True).stdout
        for environ in (clean_environ(**PORTABLE), clean_environ(**PORTABLE, MKL_DYNAMIC=value))
    }
    assert len(found) == 1


def test_asserts_belong_to_the_code_that_a_command_runs() -> None:
    """PYTHONOPTIMIZE, left in a shell, would drop them; who asks for -O is told."""
    done = start("-c", "SCRIPT", PYTHONOPTIMIZE="2")
    assert done.stdout.startswith("COMPATIBLE 3 "), done.stderr
    assert done.stdout.endswith(" False 0\n")
    for flag in ("-O", "-OO"):
        done = start(flag, "-c", "SCRIPT", PYTHONOPTIMIZE="1")
        assert done.returncode == 2
        assert done.stderr.startswith("error: python -O drops the asserts of your code")
        assert len(done.stderr.splitlines()) == 1


def test_thread_variables_are_never_a_conflict() -> None:
    done = start("-c", "SCRIPT", OMP_NUM_THREADS="1", MKL_NUM_THREADS="8")
    assert done.stdout.startswith("COMPATIBLE 3 ")


def test_native_takes_back_what_our_image_set_and_leaves_a_users_own() -> None:
    ours = environment.PROFILES["portable"]
    done = start("-c", "SCRIPT", profile="native", REPRO_PROFILE="portable", **ours)
    assert done.stdout.startswith("None 3 ")
    done = start("-c", "SCRIPT", profile="native", MKL_CBWR="AVX2")
    assert done.stdout.startswith("AVX2 3 ")


@pytest.mark.parametrize(
    ("arguments", "stdin"),
    [(["-I", "-B", "-c", "SCRIPT"], None), (["-"], "SCRIPT"), ([], "SCRIPT")],
)
def test_what_cannot_be_started_anew_is_told_how_to_start(
    arguments: list[str], stdin: str | None
) -> None:
    done = start(*arguments, stdin=stdin)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "MKL_CBWR=COMPATIBLE" in line


def test_importing_the_kit_changes_nothing() -> None:
    code = (
        f"import sys, os; sys.path.insert(0, {str(TEMPLATE)!r}); before = dict(os.environ); "
        "import repro.environment, repro.core.command, repro.core.hashing, repro.runs.context; "
        "assert dict(os.environ) == before; assert 'torch' not in sys.modules"
    )
    assert start("-c", code).returncode == 0


def test_require_refuses_where_nothing_can_be_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in environment.PROFILES["portable"]:
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(UserError, match="not in force"):
        environment.require("portable")


@pytest.mark.parametrize("asked", [environment.require, environment.enter])
def test_a_name_that_is_no_profile_is_one_line(asked: Callable[[str], None]) -> None:
    with pytest.raises(UserError) as refused:
        asked("nativ")
    assert refused.value.lines == ["found profile=nativ, expected auto, portable, native"]


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("one\n  two"), "one two"),
        (RuntimeError(), "RuntimeError"),  # an empty pair of brackets tells nobody anything
        (RuntimeError("\n"), "RuntimeError"),
        (KeyError("a"), "'a'"),
        (OSError("long " * 99), "long " * 8),
    ],
)
def test_the_reason_of_an_exception_is_one_line(error: Exception, line: str) -> None:
    assert reason_of(error, 40) == line


# Operations ----------------------------------------------------------------------------------


def scatter_loop(input: Any, dim: int, index: Any, src: Any) -> Any:
    output = input.clone()
    for place in np.ndindex(*index.shape):
        target = list(place)
        target[dim] = index[place].item()
        output[tuple(target)] += src[place]
    return output


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(
    ("shape", "index_shape", "dim"),
    [((50,), (400,), 0), ((9, 7), (40, 7), 0), ((9, 7), (9, 30), 1), ((3, 4, 5), (3, 4, 60), -1)],
)
def test_scatter_add_has_the_bits_of_a_loop(
    shape: tuple[int, ...], index_shape: tuple[int, ...], dim: int, threads: int
) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    generator = torch.Generator().manual_seed(0)
    input = torch.randn(shape, generator=generator)
    src = torch.randn([size + 1 for size in index_shape], generator=generator) * 1e3
    index = torch.randint(0, shape[dim], index_shape, generator=generator)
    for source in (src, src[tuple(slice(size) for size in index_shape)].contiguous()):
        expected = scatter_loop(input, dim, index, source)
        assert torch.equal(deterministic_scatter_add(input, dim, index, source), expected)
    torch.set_num_threads(before)


@pytest.mark.parametrize("threads", [1, 2])
def test_index_add_and_weighted_bincount_have_the_bits_of_a_loop(threads: int) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(5000, generator=generator) * 1e3
    index = torch.randint(0, 37, (5000,), generator=generator)
    bins, rows = torch.zeros(40), torch.randn(37, 9, generator=generator)
    table = torch.randn(5000, 9, generator=generator)
    expected = rows.clone()
    for place, weight, row in zip(index.tolist(), weights, table, strict=True):
        bins[place] += weight
        expected[place] += row
    assert torch.equal(deterministic_bincount(index, weights, 40), bins)
    assert torch.equal(deterministic_index_add(rows, 0, index, table), expected)
    assert deterministic_bincount(index[:0], weights[:0]).shape == (0,)
    torch.set_num_threads(before)


class Counted(TorchDispatchMode):
    """How many operations torch is asked for."""

    count = 0

    def __torch_dispatch__(
        self, function: Any, types: Any, arguments: Any = (), options: Any = None
    ) -> Any:
        self.count += 1
        return function(*arguments, **(options or {}))


def test_scatter_add_asks_for_as_many_operations_whatever_the_size() -> None:
    """It is no loop over values; `make bench` says how fast it is beside one."""
    counts = []
    for size in (8, 64, 512):
        index = torch.randint(0, size, (size, size))
        with Counted() as counted:
            deterministic_scatter_add(torch.zeros(size, size), 0, index, torch.ones(size, size))
        counts.append(counted.count)
    assert len({*counts}) == 1, counts
    assert counts[0] < 50


@pytest.mark.parametrize(
    "dtype",
    [torch.float32, torch.float64, torch.bfloat16, torch.uint8, torch.bool, torch.complex128],
)
@pytest.mark.parametrize("size", [1, 7, 64, 70_001])  # the last is read by itself
def test_a_fingerprint_changes_with_every_bit_and_every_order(
    dtype: torch.dtype, size: int
) -> None:
    generator = torch.Generator().manual_seed(size)
    raw = torch.randint(0, 2, (size * dtype.itemsize,), generator=generator, dtype=torch.uint8)
    other = torch.arange(5.0)
    known = fingerprint([raw.view(dtype), None, other])
    for place in torch.randperm(len(raw), generator=generator)[:200].tolist():
        changed = raw.clone()
        changed[place] ^= 1
        assert fingerprint([changed.view(dtype), None, other]) != known
    if size > 1 and dtype is not torch.bool:
        swapped = raw.view(dtype).clone()
        swapped[0], swapped[-1] = raw.view(dtype)[-1], raw.view(dtype)[0]
        same = bool((swapped == raw.view(dtype)).all())
        assert (fingerprint([swapped, None, other]) == known) == same
    tensor = raw.view(dtype)
    assert fingerprint([tensor, other]) != known
    assert fingerprint([tensor, torch.zeros(1), other]) != known
    assert fingerprint([tensor, None, other[:4], other[4:]]) != known
    # Where the bytes lie does not matter: a view into a larger tensor, or one not contiguous.
    inside = torch.cat([tensor[:1], tensor, tensor[:1]])[1:-1]
    spread = torch.stack([tensor, tensor], 1)[:, 0]
    for same_bytes in (inside, spread):
        assert fingerprint([same_bytes, None, other]) == known


def test_the_fingerprints_of_a_state_are_of_the_moment_when_they_are_taken() -> None:
    """Small tensors are copied and read later, in memory that is used again; large ones at once."""
    model = nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.Linear(5, 20_000).double())
    model.register_buffer("mask", torch.tensor([True, False, True]))
    model.register_buffer("none", None)
    taken = []
    for number in range(6):
        for parameter in model.parameters():
            parameter.grad = torch.full_like(parameter, number) if number % 2 else None
        model[0].weight.grad = torch.rand(3, 5).t()  # not contiguous
        for size in (7, 30_000):  # put there anew, of another type now and then
            kind = torch.float64 if number > 3 else torch.float32
            model.register_buffer(f"mean_of_{size}", torch.rand(size, dtype=kind))
        groups = [p.grad for p in model.parameters()], [*model.parameters()], [*model.buffers()]
        expected = [f"{fingerprint(group) % 2**64:016x}" for group in groups]
        taken.append((expected, state_quantities(model)))
        if number % 3 == 2:
            for now, read in taken:
                assert list(read().values()) == list(read().values()) == now
            taken.clear()
        with torch.no_grad():
            for tensor in (*model.parameters(), model[1].running_mean):
                tensor.add_(1)


def test_a_model_without_small_tensors_is_traced() -> None:
    model = nn.Linear(200, 200, bias=False)
    first = state_quantities(model, gradients=False)()
    assert first["weights"] == f"{fingerprint([model.weight]) % 2**64:016x}"


def test_layers_that_are_skipped_at_random_cost_no_memory() -> None:
    model = nn.ModuleList(nn.Linear(50, 50) for _ in range(8))
    for pattern in range(100):
        for number, parameter in enumerate(model.parameters()):
            parameter.grad = torch.ones_like(parameter) if pattern >> number & 1 else None
        expected = f"{fingerprint([p.grad for p in model.parameters()]) % 2**64:016x}"
        assert state_quantities(model)()["gradients"] == expected
    assert len(fingerprints._memories[model].free) <= fingerprints._KINDS


def test_trainings_that_start_together_all_set_the_link(tmp_path: Path) -> None:
    folders = [tmp_path / str(number) for number in range(8)]
    for folder in folders:
        folder.mkdir()
    with ThreadPoolExecutor(8) as pool:
        for _ in range(50):
            list(pool.map(partial(checkpoint.point, tmp_path / "latest"), folders))
    assert (tmp_path / "latest").resolve() in folders
    assert len(list(tmp_path.iterdir())) == 9  # nothing is left behind


def test_a_gpus_state_needs_a_gpu_but_not_as_many() -> None:
    state = {**get_seed_state(), "cuda": [torch.get_rng_state()]}
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="there is no GPU"):
            set_seed_state(state)


def test_the_catalogue_has_the_operations_that_pytorch_names() -> None:
    text = torch.use_deterministic_algorithms.__doc__ or ""
    refused = text.split("operations will throw a")[1].split("In addition")[0]
    named = set(re.findall(r"\* :\w+:`([\w.]+)`", refused))
    known = set(catalogue.NO_DETERMINISTIC_VERSION_ON_CUDA)
    # The documentation is older than the libraries: tests/unit/test_audit_operations.py.
    assert named - known == {"torch.nn.ReflectionPad2d"}
    assert known - named == {"torch.Tensor.index_reduce"}


def test_a_flag_that_was_changed_is_noticed() -> None:
    set_determinism("strict")
    expected = flags()
    refuse_changed_flags(expected)
    torch.backends.cudnn.benchmark = True
    with pytest.raises(UserError, match=r"cudnn\.benchmark is True, it was False"):
        refuse_changed_flags(expected)


def test_no_two_samples_of_an_epoch_share_a_seed() -> None:
    for epoch in range(3):
        seeds = [sample_seed(42, epoch, index) for index in range(100_000)]
        assert len({seed & 0xFFFFFFFF for seed in seeds}) == len(seeds)
        assert all(0 <= seed < 2**63 for seed in seeds)
    assert sample_seed(42, 0, 7) != sample_seed(42, 1, 7) != sample_seed(43, 1, 7)


def test_scatter_add_is_differentiable_and_leaves_the_flags() -> None:
    set_determinism("warn")
    index = torch.randint(0, 5, (4, 3))
    inputs = (torch.randn(5, 3).double().requires_grad_(), torch.randn(6, 3).double())
    inputs[1].requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: deterministic_scatter_add(a, 0, index, b), inputs)
    assert flags()["deterministic_algorithms"] == 1


# Shards --------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 4, 8, 16])
def test_the_tree_sum_is_the_fixed_binary_tree(count: int) -> None:
    values = [torch.randn(5) * 10.0**k for k in range(count)]

    def tree(part: list[torch.Tensor]) -> torch.Tensor:
        middle = len(part) // 2
        return part[0] if len(part) == 1 else tree(part[:middle]) + tree(part[middle:])

    sums = TreeSum()
    for value in values:
        sums.add([value.clone(), None])
    total, empty = sums.total()
    assert total is not None
    assert torch.equal(total, tree(values))
    assert empty is None


def test_a_number_of_summands_that_is_no_power_of_two_is_refused() -> None:
    sums = TreeSum()
    for _ in range(3):
        sums.add([torch.ones(1)])
    with pytest.raises(ValueError, match="power of two"):
        sums.total()


@pytest.mark.parametrize("size", [3, 8, 13])
def test_shards_give_the_gradient_of_the_batch(size: int) -> None:
    """Near in value (the bits differ by design), with unused parameters and empty shards."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 3), nn.LayerNorm(3))
    model.unused = nn.Parameter(torch.ones(2))
    images, labels = torch.randn(size, 4), torch.randint(0, 3, (size,))

    def loss(shard: int, batch: list[torch.Tensor]) -> Weighted:
        images, labels = batch
        losses = nn.functional.cross_entropy(model(images), labels, reduction="sum")
        return Weighted(losses, len(labels))

    gradients, losses = [], []
    for shards in (1, 4):
        model.zero_grad()
        processes = Processes(shards, torch.device("cpu"))
        batches = cut([images, labels], slices_here(size, processes))
        losses.append(backward_in_shards(model, batches, size, processes, loss).double())
        gradients.append([parameter.grad for parameter in model.parameters()])
    torch.testing.assert_close(losses[0], losses[1])
    for one, four in zip(*gradients, strict=True):
        assert (one is None) == (four is None)
        if one is not None:
            torch.testing.assert_close(one, four)
    assert [s.stop - s.start for s in shard_slices(13, 4)] == [3, 3, 3, 4]


@pytest.mark.parametrize("shards", [1, 4])
def test_gradients_that_are_there_are_added_to_as_backward_does(shards: int) -> None:
    model, batch = nn.Linear(2, 1), torch.randn(8, 2)
    processes = Processes(shards, torch.device("cpu"))
    batches = cut(batch, slices_here(8, processes))
    loss = lambda shard, images: Weighted(model(images).square().sum(), len(images))  # noqa: E731
    backward_in_shards(model, batches, 8, processes, loss)
    once = [parameter.grad.clone() for parameter in model.parameters()]
    model.weight.requires_grad_(False)  # frozen since: what it has stays
    backward_in_shards(model, batches, 8, processes, loss)
    assert torch.equal(model.weight.grad, once[0])
    assert torch.equal(model.bias.grad, 2 * once[1])


def test_batchnorm_in_shards_counts_the_step_once_and_averages() -> None:
    model = nn.BatchNorm1d(2, momentum=1.0)
    batch = torch.randn(8, 2)
    processes = Processes(4, torch.device("cpu"))
    batches = cut(batch, slices_here(8, processes))
    loss = lambda shard, images: Weighted(model(images).square().sum(), len(images))  # noqa: E731
    backward_in_shards(model, batches, 8, processes, loss)
    assert model.num_batches_tracked == 1
    expected = torch.stack([batch[k : k + 2].mean(0) for k in range(0, 8, 2)]).mean(0)
    torch.testing.assert_close(model.running_mean, expected)


# Checkpoints ---------------------------------------------------------------------------------


def state(order: int = 1) -> dict[str, Any]:
    weight = torch.arange(6.0).reshape(2, 3)
    items = {"tied": weight, "weight": weight, "view": weight.t(), "empty": torch.empty(0, 3)}
    return {
        "model": dict(list(items.items())[::order]),
        "optimizer": {"state": {0: {"step": torch.tensor(3.0)}}, "groups": [{"lr": 0.1}]},
        "scalar": torch.tensor(True),
        "half": torch.ones(3, dtype=torch.bfloat16),
        "none": None,
        "text": "é\n",
    }


def test_a_checkpoint_gives_back_what_was_saved(tmp_path: Path) -> None:
    save(tmp_path / "a", state())
    saved, loaded = state(), load(tmp_path / "a")
    for part in ("model", "optimizer", "scalar", "half"):
        torch.testing.assert_close(loaded.pop(part), saved.pop(part), rtol=0, atol=0)
    assert loaded == saved
    assert {path.name for path in (tmp_path / "a").iterdir()} == {
        "tensors.safetensors",
        "state.json",
        "SHA256SUMS",
    }


def test_equal_states_have_equal_bytes(tmp_path: Path) -> None:
    save(tmp_path / "a", state())
    save(tmp_path / "b", state())
    save(tmp_path / "b", state())  # over an older one
    for name in ("tensors.safetensors", "state.json", "SHA256SUMS"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_what_needs_pickle_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"a\.b: a set cannot be stored"):
        save(tmp_path / "a", {"a": {"b": {1, 2}}})
    assert not (tmp_path / "a").exists()


def test_a_file_that_could_not_be_written_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_file(path, b"old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, limits[1]))  # as on a full disk
    try:
        with pytest.raises(OSError, match="File too large"):
            write_file(path, bytes(2 << 20))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [*tmp_path.iterdir()] == [path]
    assert path.read_bytes() == b"old"


def test_every_damage_of_a_checkpoint_is_found(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    save(folder, {"x": torch.arange(20.0), "y": 1})
    for path in sorted(folder.iterdir()):
        whole = path.read_bytes()
        for position in range(0, len(whole), 7):
            damaged = bytearray(whole)
            damaged[position] ^= 0x10
            path.write_bytes(bytes(damaged))
            assert find_fault(folder), (path.name, position)
        for damaged_file in (b"", whole[:-1], whole + b"x"):
            path.write_bytes(damaged_file)
            assert find_fault(folder), path.name
        path.unlink()
        assert find_fault(folder)
        path.write_bytes(whole)
        assert find_fault(folder) is None
    with pytest.raises(UserError, match="no such folder"):
        load(tmp_path / "b")


def test_pruning_keeps_best_and_last(tmp_path: Path) -> None:
    for step in range(1, 7):
        folder = layout.step_folder(tmp_path, step)
        save(folder, {"step": step})
        checkpoint.point(tmp_path / "last", folder)
        if step == 2:
            checkpoint.point(tmp_path / "best", folder)
        checkpoint.prune(tmp_path, 2, step)
    assert [path.name for path in layout.steps_newest_first(tmp_path)] == [
        "step-000000006",
        "step-000000005",
        "step-000000002",
    ]
    assert os.readlink(tmp_path / "best") == "step-000000002"


def test_bits_see_names_types_shapes_and_every_bit() -> None:
    weights = {"a": torch.zeros(2, 3), "b": torch.ones(1)}
    digest = weights_digest(weights)
    assert digest == weights_digest(dict(reversed(weights.items())))
    flipped = weights["a"].clone()
    flipped.view(torch.int32)[1, 2] ^= 1
    others = [
        {**weights, "a": flipped},
        {**weights, "a": torch.zeros(3, 2)},
        {**weights, "a": torch.zeros(2, 3).double()},
        {**weights, "a": -torch.zeros(2, 3)},
        {"a": weights["a"], "c": weights["b"]},
    ]
    assert len({digest, *map(weights_digest, others)}) == 6


# Results -------------------------------------------------------------------------------------


def test_filling_changes_nothing_outside_the_marks() -> None:
    text = "mine\n<!-- repro:a -->\nold\n<!-- /repro:a -->\nmine \\1 too\n"
    filled = fill_blocks(text, {"a": r"new \g<1>", "b": "nowhere"})
    assert filled == text.replace("old", r"new \g<1>")
    assert fill_blocks(filled, {"a": r"new \g<1>"}) == filled


def test_a_class_without_samples_has_no_accuracy() -> None:
    confusion = confusion_of(torch.eye(3)[:2], torch.tensor([0, 2]))
    assert confusion.tolist() == [[1, 0, 0], [0, 0, 0], [0, 1, 0]]
    assert class_accuracies(confusion, ["a", "b", "c"]) == {"a": 1.0, "b": None, "c": 0.0}


# Sweeps --------------------------------------------------------------------------------------


def test_a_sweep_is_every_combination_and_the_last_setting_changes_first() -> None:
    parse = OverridesParser.create().parse_override
    typed = ["seed=7", "seed=1,2", "+x=range(1,3)", "name='a b'"]
    assert combinations([parse(text) for text in typed]) == [
        ["seed=1", "+x=1", "name='a b'"],
        ["seed=1", "+x=2", "name='a b'"],
        ["seed=2", "+x=1", "name='a b'"],
        ["seed=2", "+x=2", "name='a b'"],
    ]
    with pytest.raises(UserError, match=r"seed=interval\(0,1\): .* values that can be listed"):
        combinations([parse("seed=interval(0,1)")])
