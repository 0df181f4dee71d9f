"""The CPU kernels of the portable profile do what torch's own do, only faster."""

import json
import math
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, TEMPLATE, VENV
from repro.core.profiles import MARKER, PORTABLE_KERNELS
from repro.environment.profile import PROFILES

SCRIPT = ROOT / "tests" / "product_cases.py"
PYTHON = VENV / "bin" / "python"
PORTABLE = {**PROFILES["portable"], MARKER: "portable"}
# Cases that end in an error; all others must not.
ERRORS = {
    *("wrong shapes", "wrong dimensions", "vector", "number", "wrong dtypes"),
    *("addmm, complex factor", "addmm, wrong shape", "addmm, too many dimensions"),
    *("addmm, wrong dtype", "bmm, wrong shapes", "bmm, wrong terms", "baddbmm, wrong shape"),
    "LSTM, wrong shape",
}


def python(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environ = {name: text for name, text in os.environ.items() if name not in PORTABLE}
    command = [str(PYTHON), "-W", "error::UserWarning:torch.library", *arguments]
    return subprocess.run(
        command, env={**environ, **PORTABLE, **variables}, capture_output=True, text=True
    )


@pytest.fixture(scope="module")
def computed() -> dict[str, Any]:
    """What came out with the kernels, and without."""
    both = {}
    for way in ("with", "without"):
        done = python(str(SCRIPT), str(TEMPLATE), way)
        assert done.returncode == 0, done.stderr
        assert "Overriding" not in done.stderr
        both[way] = json.loads(done.stdout)
    return both


def tensors_in(outcome: object) -> Iterator[dict[str, Any]]:
    if isinstance(outcome, dict) and "values" in outcome:
        yield outcome
    elif isinstance(outcome, list):
        for one in outcome:
            yield from tensors_in(one)


def without_values(outcome: object) -> object:
    """What has to be equal: dtypes, shapes, strides, errors and texts."""
    if isinstance(outcome, dict):
        return {name: text for name, text in outcome.items() if name != "values"}
    return [without_values(one) for one in outcome] if isinstance(outcome, list) else outcome


def test_products_are_those_of_torch(computed: dict[str, Any]) -> None:
    """Each case with the kernels and without: errors, shapes, strides and, nearly, the values."""
    ours, torchs = (computed[way]["outcomes"] for way in ("with", "without"))
    assert computed["with"]["kernels"] == PORTABLE_KERNELS
    assert computed["without"]["kernels"] == "torch's own"
    assert {name for name, found in torchs.items() if "error" in found} == ERRORS
    for name, found in torchs.items():
        assert without_values(ours[name]) == without_values(found), name
        for a, b in zip(tensors_in(ours[name]), tensors_in(found), strict=True):
            largest = max((abs(value) for value in b["values"] if math.isfinite(value)), default=0)
            close = 1e-2 if "bfloat16" in b["kind"][0] else 1e-5
            for x, y in zip(a["values"], b["values"], strict=True):
                same = x == y or (math.isnan(x) and math.isnan(y))
                assert same or abs(x - y) <= close * largest, name


def test_large_products_take_another_way_and_small_ones_do_not(computed: dict[str, Any]) -> None:
    """Other bits show which way a product went: the rule is of shapes, strides and dtypes."""
    ours, torchs = (computed[way]["outcomes"] for way in ("with", "without"))
    changed = {name for name in ours if ours[name] != torchs[name]}
    assert {"large", "odd", "many terms", "transposed", "unaligned", "vmap"} <= changed
    assert {"part of a matrix", "part of a transposed matrix", "bmm of heads"} <= changed
    assert {"addmm", "addmm with factors", "linear", "bmm", "baddbmm", "GRU", "LSTM"} <= changed
    assert not changed & ERRORS
    kept = {
        "small",
        "thin",
        "one row",
        "few terms",
        "many terms of few",
        "empty",
        "odd strides",
        "strides of zero",
    }
    kept |= {"float64", "int", "bf16", "complex", "autocast", "into a transposed matrix", "meta"}
    assert not changed & {*kept, "addmm in place", "bmm, float64", "dispatch mode", "fake"}


ACCURACY = """
import sys, torch
sys.path.insert(0, sys.argv[1])
from repro.training.cpu_kernels import use_portable_kernels
torch.manual_seed(0)
terms = [16, 32, 64, 96, 128, 129, 160, 200, 256, 257, 384, 512, 1000, 1024, 4096, 16384]
pairs = [(torch.randn(256, k), torch.randn(k, 256)) for k in terms]
pairs += [(torch.randn(1024, 64), torch.randn(64, 16))]
pairs += [(torch.rand(96, 65536), torch.rand(65536, 96))]
exact = [(a.double() @ b.double()) for a, b in pairs]
def products():
    return [a @ b for a, b in pairs]
def errors(made):
    return [((m - e).norm() / e.norm()).item() for m, e in zip(made, exact)]
before = products()
use_portable_kernels()
now = products()
assert not any(torch.equal(ours, mkls) for ours, mkls in zip(now, before))
print(max(ours / mkls for ours, mkls in zip(errors(now), errors(before))))
"""


def test_products_err_as_little_as_mkls() -> None:
    """Relative to float64, from 16 to 65,536 terms: at most 1.1 times as much, at 128 of them."""
    done = python("-c", ACCURACY, str(TEMPLATE))
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) <= 1.1


def test_no_product_takes_a_slow_kernel_of_onednn() -> None:
    """For matrices with gaps between their rows oneDNN has none but its reference."""
    done = python(str(SCRIPT), str(TEMPLATE), "with", ONEDNN_VERBOSE="1")
    assert done.returncode == 0, done.stderr
    lines = [line.split(",") for line in done.stdout.splitlines() if ",inner_product," in line]
    kernels = {line[line.index("inner_product") + 1] for line in lines}
    assert kernels
    assert not {name for name in kernels if name.startswith("ref")}


IN_FORCE = """
import sys, torch
sys.path.insert(0, sys.argv[1])
from repro.core.errors import UserError
from repro.training.determinism import flags, refuse_changed_flags, set_determinism
{before}
try:
    set_determinism("strict")
    known = flags()
    {after}
    refuse_changed_flags(known)
except UserError as error:
    print(error)
else:
    print("nothing to say:", known["cpu_kernels"])
"""
REPLACED = """library = torch.library.Library("aten", "IMPL")
    library.impl("mm", lambda a, b: torch.zeros(1), "CPU")"""


@pytest.mark.parametrize(
    ("before", "after", "line"),
    [
        ("", "pass", f"nothing to say: {PORTABLE_KERNELS}"),
        ("", REPLACED, f"cpu_kernels is another library's for mm, it was {PORTABLE_KERNELS}"),
        ("del torch.library.get_kernel", "pass", "lacks an operation that profile=portable"),
    ],
    ids=["in force", "replaced", "missing"],
)
def test_kernels_that_are_gone_or_missing_are_told(before: str, after: str, line: str) -> None:
    script = IN_FORCE.format(before=before, after=after)
    done = python("-c", script, str(TEMPLATE))
    assert done.returncode == 0, done.stderr
    assert line in done.stdout.splitlines()[0]
    assert len(done.stdout.splitlines()) == 1


def test_another_profile_keeps_torchs_kernels() -> None:
    script = IN_FORCE.format(before="", after="pass")
    done = python("-c", script, str(TEMPLATE), **{MARKER: "native"})
    assert done.stdout == "nothing to say: torch's own\n"


WORKER = """
import sys, torch
sys.path.insert(0, sys.argv[1])
from repro.training.cpu_kernels import kernels_in_force
from repro.training.seeding import worker_init_fn

class Kernels(torch.utils.data.Dataset):
    def __len__(self): return 1
    def __getitem__(self, index): return kernels_in_force()

if __name__ == "__main__":
    loader = torch.utils.data.DataLoader(
        Kernels(), num_workers=1, multiprocessing_context="spawn", worker_init_fn=worker_init_fn
    )
    print(next(iter(loader))[0])
"""


def test_a_spawned_data_worker_has_the_kernels(tmp_path: Path) -> None:
    (tmp_path / "worker.py").write_text(WORKER)
    done = python(str(tmp_path / "worker.py"), str(TEMPLATE))
    assert done.stdout == f"{PORTABLE_KERNELS}\n", done.stderr
