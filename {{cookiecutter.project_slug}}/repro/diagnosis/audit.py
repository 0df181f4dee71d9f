"""What in the author's code may spoil the bits, found before it does.

One training step of the author's own model runs on the CPU and one chunk of its evaluation, and
every operation is looked up in repro/diagnosis/catalogue.py: those that have no deterministic
version on CUDA, that are slower there when they have to be deterministic, or that lie outside the
promise of the portable profile. The latter are also looked for in what comes before the first step
(repro/diagnosis/before_step.py). The source is searched as well, for randomness that nobody seeds
(repro/diagnosis/unseeded.py).
"""

import warnings
from collections import Counter
from collections.abc import Collection, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from repro import environment
from repro.core.layout import USER_CODE
from repro.core.project import IN_FP32, uses_low_precision
from repro.core.text import listed
from repro.diagnosis import catalogue
from repro.diagnosis.author import loader_of, train_function_of
from repro.diagnosis.step_file import Operation
from repro.diagnosis.unseeded import Finding
from repro.runs.console import Console

if TYPE_CHECKING:  # torch waits until the profile is in force
    from torch import nn

    from repro.training.halves import Difference

REFUSED = "no deterministic version on CUDA"
VARIES = "varies on CUDA unless determinism is strict"
SLOWER = "slower on CUDA when deterministic"
NOT_PORTABLE = "other bits on another CPU model"
_TABLES = {  # the worst first
    REFUSED: catalogue.NO_DETERMINISTIC_VERSION_ON_CUDA,
    VARIES: catalogue.NOT_REFUSED_ON_CUDA,
    NOT_PORTABLE: catalogue.NOT_PORTABLE_ON_CPU,
    SLOWER: catalogue.SLOWER_ON_CUDA,
}
BEFORE = "before the first step"
TRAINING = "training"
EVALUATION = "evaluation"


@dataclass(frozen=True)
class RiskyOperation:
    """An operation that may spoil bits, and where it is called.

    `kind`: a constant above. `operation`: torch's public name. `instead`: the way round. `module`
    and `source` are of the forward pass, "" for neither. `phase`: TRAINING, or where the module
    does not do the operation in training, EVALUATION or BEFORE. `calls`: how many in that phase.
    """

    kind: str
    operation: str
    instead: str
    module: str
    source: str
    phase: str
    calls: int


@dataclass(frozen=True)
class Audit:
    """What an audit found: `operations`, the worst first, and `sums`, losses that do not add up.

    `evaluated`: whether evaluation was looked at; `reason`: why not. `compiled`: whether torch
    compiles the model; the operations are then those of the model as it is written. `strict`: the
    determinism of the config that was looked at.
    """

    operations: list[RiskyOperation]
    sums: "list[Difference]"
    evaluated: bool
    reason: str = ""
    compiled: bool = False
    strict: bool = False

    def may_change_bits(self) -> list[RiskyOperation]:
        """Return the operations that are not only slow, or named for other settings alone."""
        harmless = (SLOWER, VARIES) if self.strict else (SLOWER,)
        return [operation for operation in self.operations if operation.kind not in harmless]


class _Place(NamedTuple):
    """An entry of the catalogue and where it is called, as in RiskyOperation."""

    name: str
    module: str
    source: str

    @property
    def owner(self) -> tuple[str, str]:
        """The entry and its module; the line where it has none.

        A module of torch's has the line that calls the model, which is another one in evaluation.
        """
        return self.name, self.module or self.source


def audit(root: Path, overrides: list[str]) -> Audit:
    """Do one training step and one chunk of evaluation, and find what stands in the catalogue.

    `overrides` are settings of the training. Starts the interpreter anew to put the profile in
    force.
    """
    settings = [*overrides, "device=cpu"]
    config = loader_of(root).load(settings)
    environment.enter(config.profile, config.threads)
    from repro.diagnosis.audit_session import AuditSession
    from repro.diagnosis.before_step import EarlyRecorder
    from repro.diagnosis.operations import Recorder
    from repro.runs.noticed import has_compiled
    from repro.training.determinism import set_determinism
    from repro.training.halves import checking_sums

    warnings.simplefilter("ignore")
    early, recorder = EarlyRecorder(root, USER_CODE), Recorder(root, USER_CODE)
    counts: list[int] = []
    compiled: list[bool] = []
    with ExitStack() as recording:
        recording.enter_context(early.recording())

        def began(model: "nn.Module") -> None:
            recording.close()
            recorder.name(model)
            compiled.append(has_compiled(model))
            recording.enter_context(recorder.recording())
            recording.enter_context(recorder.noting(catalogue.NOTED_CALLS))

        session = AuditSession(root, config, began, lambda: counts.append(len(recorder.operations)))
        set_determinism("warn")  # what strict refuses on the CPU as well is to be listed, too
        session.look(train_function_of(root))
    (in_training,) = counts or [len(recorder.operations)]
    trained, evaluated = recorder.operations[:in_training], recorder.operations[in_training:]
    operations = findings(trained, evaluated, early.operations)
    if uses_low_precision(config):
        config = loader_of(root).load([*settings, IN_FP32])
    again = AuditSession(root, config)
    set_determinism("warn")  # which the session has set to the config's
    with checking_sums() as differences:
        again.look(train_function_of(root))
    strict = config.determinism == "strict"
    why = session.reason
    return Audit(operations, differences, not why, why, any(compiled), strict)


def findings(
    training: Sequence[Operation],
    evaluation: Sequence[Operation] = (),
    before: Sequence[Operation] = (),
) -> list[RiskyOperation]:
    """Return the operations that stand in the catalogue, the worst first, each place once.

    Of those `before` the first step, which the CPU does, only those that are not portable.
    """
    phases = {
        TRAINING: _calls(training),
        EVALUATION: _calls(evaluation),
        BEFORE: _calls(before, catalogue.NOT_PORTABLE_ON_CPU),
    }
    owners = {place.owner for place in phases[TRAINING]}
    risky = [
        RiskyOperation(
            kind=_kind_of(place.name),
            operation=place.name,
            instead=_TABLES[_kind_of(place.name)][place.name],
            module=place.module,
            source=place.source,
            phase=phase,
            calls=calls,
        )
        for phase, places in phases.items()
        for place, calls in places.items()
        if phase == TRAINING or place.owner not in owners
    ]
    order = [*_TABLES]
    return sorted(risky, key=lambda operation: order.index(operation.kind))


def _calls(operations: Sequence[Operation], entries: Collection[str] = ()) -> Counter[_Place]:
    """Count the calls of what stands in the catalogue, by place; of these `entries` if given."""
    return Counter(
        _Place(name, operation.module, operation.source)
        for operation in operations
        for name in catalogue.known_as(operation)
        if not entries or name in entries
    )


def _kind_of(name: str) -> str:
    return next(kind for kind, table in _TABLES.items() if name in table)


def print_findings(audited: Audit, sources: list[Finding]) -> None:
    """Print what an audit and the search of the source found, in words."""
    console = Console(soft_wrap=True)
    for kind in _TABLES:
        _print_kind(console, kind, [each for each in audited.operations if each.kind == kind])
    if sources:
        console.print("\n[bold]Randomness or order that nothing seeds[/]")
    for source in sources:
        place = f"{source.path}:{source.line}"
        console.print(f"  {place}: {source.found} ({source.rule})", markup=False)
        console.print(f"    {source.remedy}", markup=False)
    for difference in audited.sums:
        one, two = difference.halves
        console.print(
            f"\n[bold]The loss's {difference.of}[/] is {difference.whole:.6g} for a batch, and "
            f"{one:.6g} and {two:.6g} for its halves, which do not add up to it: is a mean passed "
            "as a sum? Weighted.of_mean(mean, weight) takes a mean; a loss that compares samples "
            "with each other says Weighted(..., coupled=True)."
        )
    if audited.compiled:
        console.print(
            "\ntorch compiles this model (training.compile=true): these are the operations of the "
            "model as it is written, and the audit does not see inside what torch makes of them."
        )
    if not audited.evaluated:
        console.print(f"\nEvaluation was not looked at: {audited.reason}.", markup=False)
    bad = audited.may_change_bits()
    counts = f"{len(bad)} operations and {len(sources)} places in the source"
    sums = f" {len(audited.sums)} sums of the loss are wrong." if audited.sums else ""
    console.print(f"\n{counts} may change bits.{sums}")


def _print_kind(console: Console, kind: str, operations: list[RiskyOperation]) -> None:
    """Print each operation of a kind with the way round it and its places."""
    if operations:
        console.print(f"\n[bold]{kind}[/]")
    for name in dict.fromkeys(operation.operation for operation in operations):
        same = [operation for operation in operations if operation.operation == name]
        console.print(f"  {name}: instead {same[0].instead}", markup=False)
        places = [_where(each) for each in same]
        console.print(f"    {listed(places, 4)}", markup=False)  # --json tells all


def _where(operation: RiskyOperation) -> str:
    """Return the module and the line of an operation, and the phase if it is not training."""
    phase = {TRAINING: "", EVALUATION: "(evaluation only)", BEFORE: f"({BEFORE})"}[operation.phase]
    return " ".join(filter(None, (operation.module, operation.source, phase)))
