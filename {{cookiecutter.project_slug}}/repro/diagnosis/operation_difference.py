"""The first operation in which two replays of a step differ.

The operations are compared in the order in which they ran. The first whose inputs agree and whose
outputs differ is where the runs part; where the runs call other operations, it is the first result
that the other run never had.
"""

from dataclasses import asdict, dataclass

from repro.core.files import JsonObject
from repro.diagnosis.distances import Distance
from repro.diagnosis.step_file import Operation, StepRecord, TensorRecord

OUTPUTS = "outputs"  # the inputs and the arguments agree
ARGUMENTS = "arguments"
RANDOM = "random"  # it draws with another seed
ORDER = "order"  # it works on another one of the model's tensors
INPUTS = "inputs"  # of something that no operation made
OPERATIONS = "operations"  # another operation is called
UNWRITTEN = "unwritten"  # it read memory that nobody had written


@dataclass(frozen=True)
class OperationDifference:
    """An operation of A and one of B, their places in the two replays, and how they differ.

    A side is None where the run has no such operation. `apart` is None where nobody measured it.
    """

    how: str
    index: tuple[int | None, int | None]
    a: Operation | None
    b: Operation | None
    apart: list[Distance] | None = None

    def as_json(self) -> JsonObject:
        """Return what `diff --json` prints of it."""
        told: JsonObject = {
            "how": self.how,
            "index": [*self.index],
            "a": self.a.as_json() if self.a else None,
            "b": self.b.as_json() if self.b else None,
        }
        if self.apart is not None:
            told["apart"] = [asdict(distance) for distance in self.apart]
        return told


def find_operation(one: StepRecord, two: StepRecord) -> OperationDifference | None:
    """Find the first operation in which two replays of a step differ; None if they are the same."""
    first = one.operations
    second = two.operations
    for index, (a, b) in enumerate(zip(first, second, strict=False)):
        if a.name != b.name:
            return _other_operations(first, second, index)
        if how := _how_they_differ(a, b):
            return OperationDifference(how, (index, index), a, b)
    if len(first) != len(second):
        return _other_operations(first, second, min(len(first), len(second)))
    return None


def find_unwritten(record: StepRecord) -> OperationDifference | None:
    """Find the first operation that read memory that nobody had written; None if none did."""
    for index, operation in enumerate(record.operations):
        if operation.unwritten:
            return OperationDifference(UNWRITTEN, (index, index), operation, operation)
    return None


def _how_they_differ(a: Operation, b: Operation) -> str:
    """Compare two operations of the same name; "" if they are the same."""
    if [tensor.name for tensor in a.inputs] != [tensor.name for tensor in b.inputs]:
        return ORDER
    if _values(a.inputs) != _values(b.inputs):
        return INPUTS
    if a.arguments != b.arguments:
        return ARGUMENTS
    if a.random != b.random:
        return RANDOM
    if not a.fresh and _values(a.outputs) != _values(b.outputs):
        return OUTPUTS
    return ""


def _values(tensors: list[TensorRecord]) -> list[tuple[str, str, list[int]]]:
    """Return tensors without their names: an address that is used again may carry an old one."""
    return [(tensor.fingerprint, tensor.dtype, tensor.shape) for tensor in tensors]


def _other_operations(
    first: list[Operation], second: list[Operation], start: int
) -> OperationDifference | None:
    """Compare runs that call other operations from `start` on: which results does one alone have?

    Other ways to the same values are no difference.
    """
    place_a = _first_stray(first, start, _results(second))
    place_b = _first_stray(second, start, _results(first))
    if place_a is None and place_b is None:
        return None
    a = None if place_a is None else first[place_a]
    b = None if place_b is None else second[place_b]
    return OperationDifference(OPERATIONS, (place_a, place_b), a, b)


def _results(operations: list[Operation]) -> set[str]:
    return {tensor.fingerprint for operation in operations for tensor in operation.outputs}


def _first_stray(operations: list[Operation], start: int, known: set[str]) -> int | None:
    """Find the first operation from `start` on with a result that is not known."""
    for place in range(start, len(operations)):
        operation = operations[place]
        stray = any(tensor.fingerprint not in known for tensor in operation.outputs)
        if stray and not operation.fresh:
            return place
    return None
