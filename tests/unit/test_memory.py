"""Too little memory: the line says where it was too small, and names what helps there."""

import ast
from collections.abc import Callable

import numpy as np
import pytest
import torch
from conftest import TEMPLATE
from repro.core import memory
from repro.core.memory import line_of_short_memory

TOO_LARGE = 10**15


def raised(work: Callable[[], object]) -> Exception:
    try:
        work()
    except Exception as error:
        return error
    raise AssertionError("nothing was raised")


def through(file: str, function: str, work: Callable[[], object]) -> Exception:
    """What `work` raises when a function of the kit's calls it."""
    names = {"work": work}
    source = f"def {function}():\n    return work()\n"
    exec(compile(source, f"/home/me/project/{file}", "exec"), names)
    return raised(names[function])


def from_torch() -> object:
    return torch.empty(TOO_LARGE)


def from_numpy() -> object:
    return np.empty(TOO_LARGE)


def from_a_worker() -> object:
    raise RuntimeError(
        "Caught RuntimeError in DataLoader worker process 0.\nOriginal Traceback (most recent call "
        "last):\n  ...\nRuntimeError: DefaultCPUAllocator: can't allocate memory: you tried to ..."
    )


def from_python() -> object:
    raise MemoryError


def from_the_system() -> object:
    raise OSError(12, "Cannot allocate memory")


def from_cuda() -> object:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


ALL = (from_torch, from_numpy, from_a_worker, from_python, from_the_system, from_cuda)


@pytest.mark.parametrize("work", ALL)
@pytest.mark.parametrize(
    ("file", "function", "remedy"),
    [
        ("repro/runs/step.py", "backward", "smaller training.batch_size, or more training.shards"),
        ("repro/tasks/task_in_session.py", "measured", "smaller evaluation.batch_size"),
        ("repro/tasks/task_in_session.py", "made_task", "in making the model: a smaller model"),
        ("repro/runs/step.py", "update", "an optimizer that keeps less for each weight"),
        ("repro/data/prepared.py", "_prepare", "in preparing the data: fewer samples"),
        ("experiment/train.py", "train", "a smaller model, batch or data set"),
    ],
)
def test_what_helps_depends_on_where_it_was(
    file: str, function: str, remedy: str, work: Callable[[], object]
) -> None:
    line = line_of_short_memory(through(file, function, work))
    assert line
    assert remedy in line
    assert "\n" not in line


def test_the_innermost_place_counts() -> None:
    error = through(
        "repro/tasks/loop.py",
        "train_task",
        lambda: (_ for _ in ()).throw(
            through("repro/tasks/task_in_session.py", "measured", from_torch)
        ),
    )
    assert "evaluation.batch_size" in (line_of_short_memory(error) or "")


def test_torch_that_cannot_be_loaded_is_a_line_too() -> None:
    error = ImportError("libtorch_cpu.so: failed to map segment from shared object")
    assert "too small for PyTorch itself" in (line_of_short_memory(error) or "")


@pytest.mark.parametrize(
    "error",
    [
        ValueError("out of memory is a band"),
        RuntimeError("shape mismatch\nout of memory"),
        ImportError("no module named x"),
        OSError(28, "No space left on device"),
        KeyError(),
    ],
)
def test_other_errors_are_none(error: Exception) -> None:
    assert line_of_short_memory(error) is None


@pytest.mark.parametrize(("file", "function"), memory._PLACES)
def test_each_place_is_one_of_the_kit(file: str, function: str) -> None:
    tree = ast.parse((TEMPLATE / file).read_text())
    names = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    assert not function or function in names
