"""Keep a step that was computed twice and came out otherwise, as two files for `repro diff`.

They hold the operations of forward and backward of one process. The step is computed twice more for
them, since recording costs too much to be done in each step that is looked at.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from torch import nn

from repro.core.files import JsonObject
from repro.core.layout import TRACE, USER_CODE
from repro.diagnosis.operations import Recorder
from repro.diagnosis.step_file import Operation, StepRecord, write_step
from repro.runs.logs import TraceLine, header_at, read_trace


class RecheckFiles:
    """Keeps steps of a run as files in its folder. `run`: gives the folder, in process 0."""

    def __init__(self, root: Path, run: Callable[[], Path | None]) -> None:
        self._root = root
        self._run = run

    def operations(self, model: nn.Module, compute: Callable[[], object]) -> str:
        """Compute, and return the operations as JSON."""
        recorder = Recorder(self._root, USER_CODE)
        recorder.name(model)
        recorder.phase = "forward"
        with recorder.recording():
            compute()
        return json.dumps([operation.as_json() for operation in recorder.operations])

    def write(self, step: int, computed: Sequence[str]) -> str:
        """Write the two computations of a step; return how to compare them."""
        run = self._run()
        if run is None:
            return ""
        header: JsonObject = {}
        if (run / TRACE).is_file():
            header = header_at(read_trace(run).headers, step)
        paths = [run / f"step-{step}-{name}.json" for name in ("first", "second")]
        for path, text in zip(paths, computed, strict=True):
            record = StepRecord(
                run=run.name,
                step=step,
                header=header,
                changed=[],
                recorded=None,
                samples=None,
                parted=None,
                line=TraceLine(step, {}),
                operations=[Operation.from_json(told) for told in json.loads(text)],
            )
            write_step(record, path)
        return f"; two more computations are kept: python -m repro diff {paths[0]} {paths[1]}"
