"""Do one step of a run again, as it was, and tell every operation of it.

The state comes from the run's newest checkpoint before that step, or from the beginning; the steps
between are repeated and compared with the run's trace. Fresh memory is filled with NaN meanwhile,
so an operation that reads what nobody wrote betrays itself. Nothing of the run is changed.

The author's classes are those that [tool.repro] in pyproject.toml names: `config`, the loader of
settings, and `trainer`, a class with `model`, `step`, `initialize()`, `load_state_dict(state)`,
`steps(range)`, `train_step(step, batch)` and `quantities(indices, batch, metrics)`.
"""

import json
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from repro import environment
from repro.core.errors import UserError
from repro.core.layout import USER_CODE
from repro.core.project import author_object
from repro.runs.conditions import conditions_on_disk, differences
from repro.runs.logs import header_at, read_trace


def config_of(root: Path, run: Path) -> Any:
    """The config of a run, validated by the author's own class."""
    used = run / "config_used.yaml"
    if not used.is_file():
        raise UserError(f"{run} is no run: it has no config_used.yaml")
    values: Any = OmegaConf.to_container(OmegaConf.load(used))
    return author_object(root, "config").revive(values | {"run_dir": None, "resume": None})


def trace_step(root: Path, run: Path, step: int, values: int | None = None) -> dict[str, Any]:
    """Step `step` of `run` (1 is the first; 0: what comes before it) as a JSON value.

    `operations` as repro/diagnosis/operations.py tells; `line`, the step's line of the trace now;
    `recorded`, the run's; `parted`, the first step since the checkpoint whose line is another one
    now, or None; `changed`, what of code, lock and packages is not as it was when the run was made,
    in words.
    With `values`, `kept` are that operation's output tensors.
    Starts the interpreter anew to put the run's profile in force.
    """
    config = config_of(root, run)
    environment.enter(config.profile, config.threads)
    import torch
    from torch.optim import optimizer as optimizers

    from repro.diagnosis.operations import Recorder
    from repro.runs.trace import state_quantities
    from repro.training import checkpoint

    trainer_class = author_object(root, "trainer")
    heads, recorded = read_trace(run)
    lines = {number: line.as_json() for number, line in recorded.items()}
    header = header_at(heads, step)
    if step not in lines:
        raise UserError(f"--step {step}: the trace of {run} has steps {min(lines)} to {max(lines)}")
    result: dict[str, Any] = {"run": run.name, "step": step, "header": header}
    now = conditions_on_disk(root).as_json()
    conditions: Any = header.get("conditions", {})
    then = {name: conditions.get(name) for name in now}
    result["changed"] = differences(then, now)
    result["recorded"] = lines.get(step)
    recorder = Recorder(root, USER_CODE, values)
    if step == 0:
        with recorder.recording():
            trainer = trainer_class(config)
            trainer.initialize()
        line = {"step": 0, **state_quantities(trainer.model, False)()}
        found = {"operations": recorder.operations, "kept": recorder.kept}
        return {**result, "line": line, "parted": None if line == lines[0] else 0, **found}
    trainer = trainer_class(config)
    start = _newest_before(run / "checkpoints", step)
    if start:
        trainer.load_state_dict(checkpoint.load(start))
    else:
        trainer.initialize()
    if trainer.step + 1 < step:
        _repeat(trainer, step - 1, lines, result)
    torch.utils.deterministic.fill_uninitialized_memory = True  # type: ignore[attr-defined]
    recorder.name(trainer.model)

    def optimizing(*_: Any) -> None:
        recorder.name(trainer.model, gradients=True)
        recorder.phase = "optimizer"

    hook = optimizers.register_optimizer_step_pre_hook(optimizing)  # of all the author's
    line = {"step": step}
    with recorder.recording():
        recorder.phase = "data"
        indices, batch = next(iter(trainer.steps(range(step - 1, step))))
        recorder.phase, result["samples"] = "forward", indices.tolist()
        try:
            metrics = trainer.train_step(step - 1, batch)
        except UserError:  # a loss that is not finite: what led to it is told all the same
            metrics = None
    hook.remove()
    trainer.step = step
    if metrics is not None:
        line.update(_quantities(trainer, indices, batch, metrics))
    result.setdefault("parted", step if lines.get(step) not in (None, line) else None)
    return {**result, "line": line, "operations": recorder.operations, "kept": recorder.kept}


def _repeat(trainer: Any, last: int, lines: dict[int, Any], result: dict[str, Any]) -> None:
    """Do the steps up to `last` again; note the first that is not as the trace tells."""
    from repro.core.progress import progress

    with progress("repeating steps", last, trainer.step, lines=False) as advance:
        for indices, batch in trainer.steps(range(trainer.step, last)):
            metrics = trainer.train_step(trainer.step, batch)
            trainer.step += 1
            line = {"step": trainer.step, **_quantities(trainer, indices, batch, metrics)}
            if lines.get(trainer.step) not in (None, line):
                result.setdefault("parted", trainer.step)
            advance(1)


def _quantities(trainer: Any, *step: Any) -> dict[str, str]:
    quantities, _ = trainer.quantities(*step)
    return quantities() if quantities else {}  # none with output.trace=false


def _newest_before(checkpoints: Path, step: int) -> Path | None:
    """The newest whole checkpoint of fewer than `step` steps."""
    from repro.core.layout import step_folder, steps_newest_first
    from repro.training.checkpoint import find_fault

    folders = [x for x in steps_newest_first(checkpoints) if x < step_folder(checkpoints, step)]
    return next((folder for folder in folders if find_fault(folder) is None), None)


def write(found: dict[str, Any], path: Path) -> None:
    """As JSON, the kept tensors beside it as safetensors."""
    kept = found.pop("kept", [])
    path.write_text(json.dumps(found) + "\n")
    if kept:
        from safetensors.torch import save_file

        tensors = {str(place): tensor.contiguous() for place, tensor in enumerate(kept)}
        save_file(tensors, path.with_suffix(".safetensors"))
