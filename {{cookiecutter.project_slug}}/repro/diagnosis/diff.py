"""Where two runs part: the condition, the step, the quantity, the operation.

Compared are two traces, line by line: conditions in the headers first, then the quantities of each
step in causal order. With a replay both runs' first differing step is done again
(repro/diagnosis/replay.py), each with its own project's code, and the operations are compared in
the order in which they ran: the first whose inputs agree and whose outputs differ is where the runs
part.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from repro.core.errors import UserError
from repro.core.files import read_object
from repro.core.text import flatten
from repro.environment.profile import PROFILES
from repro.runs.logs import header_at, read_trace


def compare(a: Path, b: Path) -> dict[str, Any]:
    """What differs between two runs, as a JSON value; UserError if they cannot be compared.

    `conditions`: each `[name, value of A, value of B]`. `context`: likewise, of what should not
    matter. `step` and `quantity`: the first that differ, None if none does; `agree`, the quantities
    of that step before it; `values`, the two. `compared`: how many steps both have; `span`, the
    first and the last of them (0: before training).
    """
    (heads_a, steps_a), (heads_b, steps_b) = read_trace(a), read_trace(b)
    common = sorted(steps_a.keys() & steps_b.keys())
    if not common:
        raise UserError(f"{a} and {b} have no step in common: nothing to compare")
    found: dict[str, Any] = {
        "context": _changes(_context(a), _context(b)),
        "compared": len(common),
        "span": [common[0], common[-1]],
        "last": [max(steps_a), max(steps_b)],
        "step": None,
    }
    parting = next((step for step in common if steps_a[step] != steps_b[step]), None)
    last = common[-1] if parting is None else parting
    found["conditions"] = _changes(*(_conditions(header_at(h, last)) for h in (heads_a, heads_b)))
    if parting is None:
        return found
    return found | first_difference(steps_a[parting].as_json(), steps_b[parting].as_json())


def first_difference(one: dict[str, Any], two: dict[str, Any]) -> dict[str, Any]:
    """Of two lines of a step: the first quantity that differs, as `compare` tells it."""
    names = [*one, *(name for name in two if name not in one)]
    differing = [name for name in names if one.get(name) != two.get(name)]
    if not differing:
        return {"step": None}
    first = differing[0]
    return {
        "step": one["step"],
        "quantity": first,
        "agree": names[1 : names.index(first)],
        "differing": differing,
        "values": [_shown(line.get(first)) for line in (one, two)],
    }


def _conditions(header: dict[str, Any]) -> dict[str, Any]:
    """The header's conditions and what else it holds, by kind."""
    rest = {name: value for name, value in header.items() if name != "conditions"}
    return {**header.get("conditions", {}), **rest}


def _context(run: Path) -> dict[str, Any]:
    """Of the run's environment what a person would ask about: versions and the machine."""
    context = read_object(run / "experiment_context.json")  # the comparison does without
    hardware = context.get("hardware", {})
    kept = {name: hardware.get(name) for name in ("cpu_model", "gpus", "driver", "platform")}
    commit = {"commit": context.get("git", {}).get("commit_hash")}
    return {"software": context.get("software", {}), "hardware": kept, "git": commit}


def _changes(one: dict[str, Any], two: dict[str, Any]) -> list[list[Any]]:
    then, now = flatten(one), flatten(two)
    names = sorted(then.keys() | now.keys())
    return [[n, then.get(n), now.get(n)] for n in names if then.get(n) != now.get(n)]


def _shown(value: Any) -> Any:
    """A float in exact form with its decimal value; else as it is."""
    if isinstance(value, str) and "0x" in value:
        return f"{float.fromhex(value):.9g} ({value})"
    return value


def find_operation(one: dict[str, Any], two: dict[str, Any]) -> dict[str, Any] | None:
    """The first operation in which two replays of a step differ; None if they are the same.

    `how`: "outputs" (inputs and arguments agree), "arguments", "random" (it draws with another
    seed), "order" (it works on another one of the model's tensors), "inputs" (of something that no
    operation made), "operations" (another one is called). `index`: of both; `a` and `b`: the two.
    """
    first, second = one["operations"], two["operations"]
    for index, (a, b) in enumerate(zip(first, second, strict=False)):
        if a["name"] != b["name"]:
            return _other_operations(first, second, index)
        if _input_names(a) != _input_names(b):
            return {"how": "order", "index": [index, index], "a": a, "b": b}
        for how in ("inputs", "arguments", "random", "outputs"):
            if how == "outputs" and a.get("fresh"):
                continue
            if _plain(a.get(how)) != _plain(b.get(how)):
                return {"how": how, "index": [index, index], "a": a, "b": b}
    if len(first) != len(second):
        return _other_operations(first, second, min(len(first), len(second)))
    return None


def find_unwritten(replay: dict[str, Any]) -> dict[str, Any] | None:
    """The first operation that read memory that nobody had written; None if none did."""
    for index, entry in enumerate(replay["operations"]):
        if entry.get("unwritten"):
            return {"how": "unwritten", "index": [index, index], "a": entry, "b": entry}
    return None


def _input_names(entry: dict[str, Any]) -> list[str]:
    return [tensor[3] for tensor in entry["inputs"]]


def _plain(value: Any) -> Any:
    """Tensors without their names: an address that is used again may carry an old one."""
    return [tensor[:3] for tensor in value] if isinstance(value, list) else value


def _other_operations(
    first: list[dict[str, Any]], second: list[dict[str, Any]], index: int
) -> dict[str, Any] | None:
    """From `index` on the runs call other operations: the first result that the other lacks.

    Other ways to the same values are no difference.
    """
    results = [{t[0] for e in operations for t in e["outputs"]} for operations in (first, second)]

    def stray(operations: list[dict[str, Any]], known: set[str]) -> int | None:
        for place in range(index, len(operations)):
            entry = operations[place]
            if not entry.get("fresh") and any(t[0] not in known for t in entry["outputs"]):
                return place
        return None

    places = [stray(first, results[1]), stray(second, results[0])]
    if places == [None, None]:
        return None
    entries = [
        None if place is None else operations[place]
        for place, operations in zip(places, (first, second), strict=True)
    ]
    return {"how": "operations", "index": places, "a": entries[0], "b": entries[1]}


def compare_steps(a: Path, b: Path) -> dict[str, Any]:
    """The same of two files that `python -m repro trace-step` wrote, on two machines perhaps."""
    try:
        one, two = (json.loads(path.read_text()) for path in (a, b))
        step, lines = one["step"], (one["line"], two["line"])
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{a} or {b} was not written by repro trace-step") from error
    if step != two["step"]:
        raise UserError(f"{a} is of step {step}, {b} of step {two['step']}: not comparable")
    heads = (_conditions(found["header"]) for found in (one, two))
    found: dict[str, Any] = {"conditions": _changes(*heads), "context": [], "compared": 1}
    # What the runs did, if both wrote it down; else what the replays did.
    recorded = one.get("recorded"), two.get("recorded")
    found |= {"last": [step, step], "span": [step, step], **judge(one, two)}
    found |= first_difference(*(recorded if all(recorded) else lines))
    if found["step"] is None and (found["operation"] or "samples" in found):
        found |= {"step": step, "quantity": "operations", "agree": [], "values": ["", ""]}
    return found


def replay(runs: tuple[Path, Path], step: int) -> dict[str, Any]:
    """Do a step of both runs again and find the operation; `UserError` if that is not possible.

    `operation` as `find_operation` has it, with `apart` (see `distances`) where values exist;
    `samples`, both runs' indices, where they are not the same.
    `parted`: for both runs, the first step whose replay is not as the run's trace tells, or None:
    that run does not repeat itself.
    """
    with tempfile.TemporaryDirectory() as scratch:
        files = [Path(scratch) / f"{side}.json" for side in "ab"]
        found = judge(*_trace_steps(runs, files, step))
        operation = found["operation"]
        if operation and operation["how"] == "outputs":
            _trace_steps(runs, files, step, operation["index"][0])
            operation["apart"] = distances(*(file.with_suffix(".safetensors") for file in files))
    return found


def judge(one: dict[str, Any], two: dict[str, Any]) -> dict[str, Any]:
    """What two replays of a step tell: `operation`, `parted`, and `samples` if those differ."""
    found: dict[str, Any] = {"operation": None, "parted": [one["parted"], two["parted"]]}
    found["changed"] = [one["changed"], two["changed"]]
    if one.get("samples") != two.get("samples"):  # no operation chooses the samples
        return {**found, "samples": [one["samples"], two["samples"]]}
    operation = find_operation(one, two) or find_unwritten(two) or find_unwritten(one)
    return {**found, "operation": operation}


def _trace_steps(
    runs: tuple[Path, Path], files: list[Path], step: int, values: int | None = None
) -> list[dict[str, Any]]:
    """`python -m repro trace-step` for both at once, each in its run's project; what they wrote."""
    processes = []
    for run, file in zip(runs, files, strict=True):
        command = [sys.executable, "-m", "repro", "trace-step", str(run), "--step", str(step)]
        command += ["--output", str(file)] + ([] if values is None else ["--values", str(values)])
        processes.append(
            subprocess.Popen(
                command,
                cwd=project_of(run),
                env=_environment_of(run, step),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    faults = []
    for run, process in zip(runs, processes, strict=True):
        lines = process.communicate()[1].strip().splitlines()
        if process.returncode:
            told = [line for line in lines if line.startswith("error: ")] or lines[-1:]
            faults.append(f"replaying step {step} of {run} failed: {' '.join(told[:1])}")
    if faults:
        raise UserError(faults)
    return [json.loads(file.read_text()) for file in files]


def _environment_of(run: Path, step: int) -> dict[str, str]:
    """Of this process, but with the profile's variables, and no others, as the run had them."""
    conditions: Any = header_at(read_trace(run).headers, step).get("conditions", {})
    then = conditions.get("environment", {})
    names = PROFILES["portable"]
    rest = {name: value for name, value in os.environ.items() if name not in names}
    return {**rest, **{name: str(value) for name, value in then.items() if name in names}}


def project_of(run: Path) -> Path:
    """The project that a run lies in; the current one for a run that lies elsewhere.

    Its code is going to run, so it has to be the user's own.
    """
    for folder in run.parents:
        marks = (folder / "pyproject.toml", folder / "repro" / "diagnosis" / "diff.py")
        if all(mark.is_file() and mark.stat().st_uid == os.getuid() for mark in marks):
            return folder
    return Path(__file__).resolve().parents[2]


def distances(a: Path, b: Path) -> list[dict[str, Any]]:
    """How far an operation's outputs lie apart, one entry for each tensor that differs.

    Nothing where the two cannot be compared: it was another operation when it was done again.

    `differing` of `values`; the largest distance in `ulps` (None for integers), `absolute` and
    `relative`.
    """
    import torch
    from safetensors.torch import load_file

    found: list[dict[str, Any]] = []
    if not (a.is_file() and b.is_file()):
        return found
    one, two = load_file(a), load_file(b)
    kinds = [{key: (t.dtype, t.shape) for key, t in side.items()} for side in (one, two)]
    if kinds[0] != kinds[1]:
        return found
    for key in sorted(one, key=int):
        x, y = one[key].flatten(), two[key].flatten()
        unequal = (x != y) & ~(x.isnan() & y.isnan())
        if not bool(unequal.any()):
            continue
        entry: dict[str, Any] = {"output": int(key), "values": len(x), "ulps": None}
        entry["differing"] = int(unequal.sum())
        p, q = x[unequal].double(), y[unequal].double()
        apart = (p - q).abs()
        finite = apart.isfinite()  # NaN is no distance, and no JSON
        largest = torch.maximum(p.abs(), q.abs())[finite]
        entry["absolute"] = float(apart[finite].max()) if finite.any() else None
        entry["relative"] = float((apart[finite] / largest).max()) if finite.any() else None
        if x.is_floating_point() and x.element_size() in (2, 4, 8):
            entry["ulps"] = int((_ordered(x[unequal]) - _ordered(y[unequal])).abs().max())
        found.append(entry)
    return found


def _ordered(values: Any) -> Any:
    """Floats as integers in the same order: neighbours differ by one."""
    import torch

    kinds = {8: torch.int64, 4: torch.int32, 2: torch.int16}
    bits = values.view(kinds[values.element_size()]).long()
    low = -(2 ** (8 * values.element_size() - 1))
    return torch.where(bits < 0, low - bits, bits)
