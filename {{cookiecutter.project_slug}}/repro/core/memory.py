"""Say what helps where memory is too small: it depends on what was being done.

Known by the innermost call of the kit's that the error came through. What the system's own killer
ends says nothing: the exit code is 137 then.
"""

from __future__ import annotations  # `make image-digest` runs with older Pythons, too

import errno
import re
import traceback

_BATCH = "smaller training.batch_size, or more training.shards; with small ones, a smaller model"
_EVALUATION = "smaller evaluation.batch_size"
_MODEL = "a smaller model"
_OPTIMIZER = "a smaller model, or an optimizer that keeps less for each weight"
_DATA = "fewer samples, or a data set that reads each sample when it is asked for"
_ROWS = "rows are kept for all samples: let evaluate(batch) return counts or sums instead"
_ELSEWHERE = "end other programs, or a smaller model, batch or data set"

# By the end of a file's path and by a function in it; "" stands for all of its functions.
_PLACES = {
    ("repro/runs/step.py", "backward"): ("in a training step", _BATCH),
    ("repro/runs/step.py", "update"): ("in the update of the weights", _OPTIMIZER),
    ("repro/runs/session_base.py", "_loop"): ("in making a batch", _BATCH),
    ("repro/tasks/outputs.py", ""): ("in joining the outputs of an evaluation", _ROWS),
    ("repro/training/rows.py", ""): ("in an evaluation", _EVALUATION),
    ("repro/runs/session.py", "predict"): ("in an evaluation", "a smaller batch_size of predict"),
    ("repro/tasks/task_in_session.py", "measured"): ("in an evaluation", _EVALUATION),
    ("repro/tasks/task_in_session.py", "optimizers"): ("in making the optimizer", _OPTIMIZER),
    ("repro/tasks/task_in_session.py", "made_task"): ("in making the model", _MODEL),
    ("repro/tasks/task_in_session.py", "__init__"): ("in making the model", _MODEL),
    ("repro/data/prepared.py", ""): ("in preparing the data", _DATA),
    ("repro/tasks/author.py", "datasets_of"): ("in reading the data", _DATA),
    ("repro/training/checkpoint.py", ""): ("with a checkpoint", _MODEL),
    ("repro/tasks/loop.py", "train_task"): ("in a training step", _BATCH),
}
_SHORT = re.compile(
    "out of memory|t allocate memory|Unable to allocate|bad_alloc|_ALLOC_FAILED"
    "|failed to map segment"
)
_OF_A_WORKER = "Caught "  # torch's word before an error of a data worker


def line_of_short_memory(error: BaseException) -> str | None:
    """Say in a line that memory was too small, where, and what helps; None for another error."""
    found = _told(error)
    if found is None:
        return None
    if isinstance(error, ImportError):
        return f"{found}: memory is too small for PyTorch itself: raise its limit (ulimit -v)"
    place, remedy = _place_of(error)
    return f"{found}: memory is too small {place}: {remedy}"


def _told(error: BaseException) -> str | None:
    """Return the line in which an error says that memory is too small; None if none does."""
    lines = [line.strip() for line in str(error).splitlines()] or [""]
    if isinstance(error, OSError) and error.errno == errno.ENOMEM:
        return error.strerror or "no memory"
    if not isinstance(error, (RuntimeError, MemoryError, ImportError)):
        return None
    is_of_worker = lines[0].startswith(_OF_A_WORKER)
    telling = [line for line in (lines if is_of_worker else lines[:1]) if _SHORT.search(line)]
    if telling:
        return telling[-1]
    return lines[0] or "no memory" if isinstance(error, MemoryError) else None


def _place_of(error: BaseException) -> tuple[str, str]:
    """Return where memory was too small, and what helps there."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        path = frame.filename.replace("\\", "/")
        for (file, function), found in _PLACES.items():
            if path.endswith(file) and function in ("", frame.name):
                return found
    return "here", _ELSEWHERE
