"""A step of a run that was done again, and the small file that it is written to.

Promises the same JSON whatever the machine, so that two people can each send a file and compare the
two with `repro diff`. Reading such a file needs no torch.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import TypeAdapter

from repro.core.bounded import DamagedFile, read_json_file, refuse_unreadable
from repro.core.errors import UserError
from repro.core.files import Json, JsonObject, write_file
from repro.runs.logs import TraceLine, is_line, trace_line

if TYPE_CHECKING:
    from torch import Tensor

REGION = "compiled region"  # how names begin of what torch has compiled: nobody sees inside
REPLACED = "replaced"  # a tensor that an operation writes to, whatever numbers it held


class TensorRecord(NamedTuple):
    """A tensor as an operation found it; its name is "" where the model has none for it."""

    fingerprint: str  # or "unwritten": memory that nobody has written; or REPLACED
    dtype: str
    shape: list[int]
    name: str

    def as_json(self) -> Json:
        """Return the list that the file holds."""
        return [self.fingerprint, self.dtype, [*self.shape], self.name]


@dataclass(frozen=True, slots=True)
class Operation:
    """An operation of torch: what came in, what came out, and whose it was."""

    name: str
    phase: str  # "start", "data", "forward", "backward" or "optimizer"
    module: str  # "" outside of a module's forward pass, as in the two fields below
    class_: str
    source: str  # file and line of the author's code
    arguments: str  # those that are no tensors
    inputs: list[TensorRecord]
    outputs: list[TensorRecord]
    random: int | None = None  # the seed of the generator that it drew from
    fresh: bool = False  # it hands out memory as it is
    unwritten: bool = False  # it read memory that nobody had written

    def as_json(self) -> JsonObject:
        """Return the object that the file holds."""
        told: JsonObject = {
            "name": self.name,
            "arguments": self.arguments,
            "inputs": [tensor.as_json() for tensor in self.inputs],
            "phase": self.phase,
            "module": self.module,
            "class": self.class_,
            "source": self.source,
            "outputs": [tensor.as_json() for tensor in self.outputs],
        }
        if self.random is not None:
            told["random"] = self.random
        if self.fresh:
            told["fresh"] = True
        if self.unwritten:
            told["unwritten"] = True
        return told

    @classmethod
    def from_json(cls, told: Any) -> "Operation":
        """Read what `as_json` returned; ValueError, KeyError, TypeError for another."""
        return TypeAdapter(cls).validate_python({**told, "class_": told["class"]})


@dataclass(frozen=True)
class StepRecord:
    """What a step did when it was done again, and what the run's trace tells of it."""

    run: str
    step: int
    header: JsonObject  # the trace's, under which the step was done
    changed: list[str]  # what of code, lock and packages is not as it was then, in words
    recorded: TraceLine | None  # the step's line in the run's trace
    samples: list[int] | None  # None before training
    parted: int | None  # the first step since the checkpoint whose line is another one now
    line: TraceLine  # the step's line now
    operations: list[Operation]
    kept: "list[Tensor]" = field(default_factory=list)  # one operation's outputs, if asked for

    @property
    def is_compiled(self) -> bool:
        """Whether torch had compiled the model, so that operations are whole regions."""
        return any(operation.name.startswith(REGION) for operation in self.operations)

    def as_json(self) -> JsonObject:
        """Return the object that the file holds."""
        told: JsonObject = {
            "run": self.run,
            "step": self.step,
            "header": self.header,
            "changed": [*self.changed],
            "recorded": _line_as_json(self.recorded) if self.recorded else None,
        }
        if self.samples is not None:
            told["samples"] = [*self.samples]
        told["parted"] = self.parted
        told["line"] = _line_as_json(self.line)
        told["operations"] = [operation.as_json() for operation in self.operations]
        return told

    @classmethod
    def from_json(cls, told: Any) -> "StepRecord":
        """Read what `as_json` returned; ValueError, KeyError, TypeError for another."""
        facts = TypeAdapter(_Facts).validate_python(told)
        recorded = told.get("recorded")
        return cls(
            run=facts.run,
            step=facts.step,
            header={**told["header"]},
            changed=facts.changed,
            recorded=_line_from_json(recorded) if recorded else None,
            samples=facts.samples,
            parted=facts.parted,
            line=_line_from_json(told["line"]),
            operations=[Operation.from_json(operation) for operation in told["operations"]],
        )


@dataclass(frozen=True)
class _Facts:
    """Those fields of a step that need no more than a look at their types."""

    run: str
    step: int
    changed: list[str]
    parted: int | None
    samples: list[int] | None = None


def _line_from_json(told: Any) -> TraceLine:
    if not is_line(told):
        raise ValueError("no line of a trace")
    return trace_line(told)


def _line_as_json(line: TraceLine) -> JsonObject:
    return {"step": line.step, **line.quantities}


def write_step(record: StepRecord, path: Path) -> None:
    """Write a step as JSON; the tensors that it kept go into a safetensors file beside it."""
    told = record.as_json()
    text = json.dumps(told) + "\n"
    refuse_unreadable(str(path), text, told)
    write_file(path, text.encode())
    if record.kept:
        from safetensors.torch import save_file

        tensors = {str(place): tensor.contiguous() for place, tensor in enumerate(record.kept)}
        save_file(tensors, path.with_suffix(".safetensors"))


def read_step(path: Path) -> StepRecord:
    """Read a file that `write_step` wrote; UserError if it was not."""
    try:
        return StepRecord.from_json(read_json_file(path))
    except (DamagedFile, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} was not written by repro trace-step") from error
