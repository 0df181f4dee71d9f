"""What in the author's code may spoil the bits, found before it does.

One training step of the author's own model runs on the CPU, and every operation is looked up in
repro/diagnosis/catalogue.py: those that have no deterministic version on CUDA, that are slower
there when they have to be deterministic, or that lie outside the promise of the portable
profile. The source is searched as well, for randomness that nobody seeds
(repro/diagnosis/unseeded.py).
"""

import warnings
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from repro import environment
from repro.core.errors import UserError
from repro.core.layout import USER_CODE
from repro.core.text import listed
from repro.diagnosis import catalogue
from repro.diagnosis.author import loader_of, trainer_class_of
from repro.diagnosis.step_file import Operation
from repro.diagnosis.unseeded import Finding

REFUSED = "no deterministic version on CUDA"
VARIES = "varies on CUDA, and PyTorch says nothing"
SLOWER = "slower on CUDA when deterministic"
NOT_PORTABLE = "other bits on another CPU model"
_TABLES = {  # the worst first
    REFUSED: catalogue.NO_DETERMINISTIC_VERSION_ON_CUDA,
    VARIES: catalogue.NOT_REFUSED_ON_CUDA,
    NOT_PORTABLE: catalogue.NOT_PORTABLE_ON_CPU,
    SLOWER: catalogue.SLOWER_ON_CUDA,
}


@dataclass(frozen=True)
class RiskyOperation:
    """An operation that may spoil bits, and where it is called.

    `kind`: a constant above. `operation`: torch's public name. `instead`: the way round. `module`
    and `source` are of the forward pass, "" for neither.
    """

    kind: str
    operation: str
    instead: str
    module: str
    source: str
    calls: int


def audit(root: Path, overrides: list[str]) -> list[RiskyOperation]:
    """Do one training step and return its operations that stand in the catalogue, the worst first.

    `overrides` are settings of the training. Starts the interpreter anew to put the profile in
    force.
    """
    config = loader_of(root).load([*overrides, "device=cpu"])
    environment.enter(config.profile, config.threads)
    from repro.diagnosis.operations import Recorder
    from repro.training.determinism import set_determinism

    trainer = trainer_class_of(root)(config)
    set_determinism("warn")  # what strict refuses on the CPU as well is to be listed, too
    warnings.simplefilter("ignore")
    recorder = Recorder(root, USER_CODE)
    recorder.name(trainer.model)
    _, batch = next(iter(trainer.steps(range(1))))
    with recorder.recording(), suppress(UserError):  # a loss that is not finite has its operations
        trainer.train_step(0, batch)
    return findings(recorder.operations)


def findings(operations: list[Operation]) -> list[RiskyOperation]:
    """Return those operations that stand in the catalogue, the worst first, each place once."""
    calls: Counter[tuple[str, str, str, str]] = Counter()
    for operation in operations:
        for name in catalogue.known_as(operation):
            calls[_kind_of(name), name, operation.module, operation.source] += 1
    risky = [
        RiskyOperation(kind, name, _TABLES[kind][name], module, source, count)
        for (kind, name, module, source), count in calls.items()
    ]
    order = [*_TABLES]
    return sorted(risky, key=lambda operation: order.index(operation.kind))


def _kind_of(name: str) -> str:
    return next(kind for kind, table in _TABLES.items() if name in table)


def print_findings(operations: list[RiskyOperation], sources: list[Finding]) -> None:
    """Print both lists in words."""
    console = Console(highlight=False, soft_wrap=True)
    for kind in _TABLES:
        _print_kind(console, kind, [each for each in operations if each.kind == kind])
    if sources:
        console.print("\n[bold]Randomness or order that nothing seeds[/]")
    for source in sources:
        place = f"{source.path}:{source.line}"
        console.print(f"  {place}: {source.found} ({source.rule})", markup=False)
        console.print(f"    {source.remedy}", markup=False)
    bad = [operation for operation in operations if operation.kind != SLOWER]
    counts = f"{len(bad)} operations and {len(sources)} places in the source"
    console.print(f"\n{counts} may change bits.")


def _print_kind(console: Console, kind: str, operations: list[RiskyOperation]) -> None:
    """Print each operation of a kind with the way round it and its places."""
    if operations:
        console.print(f"\n[bold]{kind}[/]")
    for name in dict.fromkeys(operation.operation for operation in operations):
        same = [operation for operation in operations if operation.operation == name]
        console.print(f"  {name}: instead {same[0].instead}", markup=False)
        places = [" ".join(filter(None, (each.module, each.source))) for each in same]
        console.print(f"    {listed(places, 4)}", markup=False)  # --json tells all
