"""Do one step of a run again, as it was, and tell every operation of it.

The state comes from the run's newest checkpoint before that step, or from the beginning; the steps
between are repeated and compared with the run's trace. Fresh memory is filled with NaN meanwhile,
so an operation that reads what nobody wrote betrays itself. Nothing of the run is changed.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from repro import environment
from repro.core import layout
from repro.core.errors import UserError
from repro.core.files import JsonObject
from repro.diagnosis.author import loader_of, train_function_of
from repro.diagnosis.step_file import StepRecord
from repro.runs.conditions import conditions_on_disk, differences
from repro.runs.configuration import read_config_used
from repro.runs.logs import header_at, read_trace

if TYPE_CHECKING:
    from repro.runs.session_settings import SessionSettings


def config_of_run(root: Path, run: Path) -> "SessionSettings":
    """Read the config of a run, validated by the author's own class."""
    if not (run / layout.CONFIG_USED).is_file():
        raise UserError(f"{run} is no run: it has no {layout.CONFIG_USED}")
    values = read_config_used(run)
    return loader_of(root).revive(values | {"run_dir": None, "resume": None})


def trace_step(root: Path, run: Path, step: int, keep: int | None = None) -> StepRecord:
    """Do step `step` of `run` again (1 is the first; 0: what comes before it) and record it.

    `keep`: the number of an operation whose output tensors the record shall keep. Starts the
    interpreter anew to put the run's profile in force. Where the bits depend on the number of
    processes, as many do it, each of which records what it does itself.
    """
    config = config_of_run(root, run)
    environment.enter(config.profile, config.threads)
    from repro.diagnosis.operations import Recorder
    from repro.diagnosis.replay_session import ReplaySession

    trace = read_trace(run)
    if step not in trace.lines:
        steps = f"steps {min(trace.lines)} to {max(trace.lines)}"
        raise UserError(f"--step {step}: the trace of {run} has {steps}")
    recorder = Recorder(root, layout.USER_CODE, keep)
    header = header_at(trace.headers, step)
    session = ReplaySession(root, config, run, step, recorder)
    changed = _changed_since(root, session.code, header)
    lines = session.replay(train_function_of(root))
    session.processes.close()
    parted = (line.step for line in lines if trace.lines.get(line.step, line) != line)
    return StepRecord(
        run=run.name,
        step=step,
        header=header,
        changed=changed,
        recorded=trace.lines[step],
        samples=session.samples,
        parted=next(parted, None),
        line=lines[-1],
        operations=recorder.operations,
        kept=recorder.kept,
    )


def _changed_since(root: Path, code: Mapping[str, str], header: JsonObject) -> list[str]:
    """Say in words what of code, lock and packages is not as it was under a trace's header."""
    recorded = header.get("conditions")
    conditions = recorded if isinstance(recorded, dict) else {}
    config = conditions.get("config")
    now = conditions_on_disk(root, code, config if isinstance(config, dict) else None).as_json()
    return differences({name: conditions.get(name) for name in now}, now)
