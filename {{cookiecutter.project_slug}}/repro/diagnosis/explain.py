"""Say in words what `repro diff` found: sentences, and a table of what differs first."""

from collections.abc import Callable

from rich.table import Table

from repro.core.files import Json
from repro.core.layout import METRICS
from repro.core.text import listed
from repro.diagnosis.diff import Change, Comparison, Parting
from repro.diagnosis.distances import Distance
from repro.diagnosis.metric_difference import MetricDifference
from repro.diagnosis.operation_difference import (
    ARGUMENTS,
    INPUTS,
    OPERATIONS,
    ORDER,
    OUTPUTS,
    RANDOM,
    UNWRITTEN,
    OperationDifference,
)
from repro.diagnosis.replay_pair import Replayed
from repro.diagnosis.step_file import Operation
from repro.runs.console import Console
from repro.runs.metric_values import shown_values

_HOW = {
    OUTPUTS: "the same inputs, other outputs",
    ARGUMENTS: "the same inputs, other arguments",
    RANDOM: "it draws random numbers with another seed",
    INPUTS: "other inputs, which no operation before it made: other data or weights",
    OPERATIONS: "the runs call other operations here",
    ORDER: "the runs take the same tensors in another order",
    UNWRITTEN: "it reads memory that nobody wrote",
}
_SENTENCES = {
    "config: threads": "B ran with {b} threads, A with {a}",
    "environment: profile": "B ran with profile={b}, A with {a}",
    "environment: cpu_kernels": "B computed with these CPU kernels: {b}; A: {a}",
    "flags: cpu_kernels": "torch computed with these CPU kernels in B: {b}; in A: {a}",
    "seed": "B has seed {b}, A has {a}",
    "data": "the data are not the same: another manifest",
    "lock": "requirements.lock is not the same",
    "hardware_class": "B ran on {b}, A on {a}",
    "hardware: gpu_driver": "B ran with the GPU driver {b}, A with {a}",
    "software: platform": "B ran on the platform {b}, A on {a}",
    "flags: cpu_capability": "B ran with the instruction set {b}, A with {a}",
    "flags: threads": "torch used {b} threads in B, {a} in A",
}
_OUTSIDE = (
    "torch compiled both models: a compiled region is compared by its inputs and outputs, and "
    "nobody sees inside."
)
_SAMPLES_SHOWN = 8


def sentence(change: Change) -> str:
    """Tell one difference of two runs in words."""
    kind, _, key = change.name.partition(": ")
    a = _value(change.a)
    b = _value(change.b)
    if kind == "code":
        if change.a is None:
            return f"{key} is only in B"
        if change.b is None:
            return f"{key} is only in A"
        return f"{key} was changed"
    if change.name in _SENTENCES:
        return _SENTENCES[change.name].format(a=a, b=b)
    if kind == "seeds":
        return f"B ran with seeds.{key}={b}, A with {a}"
    if kind in ("config", "flags"):
        return f"B ran with {key}={b}, A with {a}"
    if kind == "environment":
        return f"the variable {key} is {b} in B, {a} in A"
    return f"{key or kind} is {b} in B, {a} in A"


def print_difference(comparison: Comparison, names: tuple[str, str]) -> None:
    """Print what a comparison found; `names` are those that the user gave the two runs."""
    console = Console(soft_wrap=True)
    for side, name in zip("AB", names, strict=True):
        console.print(f"{side}  {name}", markup=False)
    _print_changes(console, "Conditions that differ", comparison.conditions)
    title = "Also different, but it should change no bits"
    _print_changes(console, title, comparison.context)
    if not comparison.conditions:
        console.print("\nThe conditions are the same.")
    if comparison.parting is None:
        _print_agreement(console, comparison)
        return
    _print_parting(console, comparison.parting)
    only_code = all(change.name.startswith("code: ") for change in comparison.conditions)
    if comparison.replayed:
        _print_replayed(console, comparison.replayed)
        if not only_code:
            console.print("\nLook at the conditions first: they differ, and here it shows.")
    elif only_code:  # other conditions name the cause themselves
        console.print("\nTo see which operation it was, add --replay to the command.")


def _print_changes(console: Console, title: str, changes: list[Change]) -> None:
    """Print a sentence for each change."""
    if not changes:
        return
    console.print(f"\n[bold]{title}[/]")
    reseeded = any(change.name == "seed" for change in changes)
    for change in changes:
        follows = reseeded and change.name.startswith("seeds: ")  # from the seed, which is told
        if not follows:
            console.print(f"  {sentence(change)}", markup=False)


def _print_agreement(console: Console, comparison: Comparison) -> None:
    """Print which steps agree, and the metric that differs all the same."""
    first, last = comparison.span
    agree = f"all steps from {first} to {last} agree" if first < last else f"step {last} agrees"
    before = "" if first else " (0 is before training)"
    if comparison.metrics:
        console.print(f"\n[bold]OTHER METRICS[/], although {agree}{before}.")
    else:
        console.print(f"\n[bold]IDENTICAL[/]: {agree}{before}.")
    last_a, last_b = comparison.last
    if last_a != last_b:
        console.print(f"  A has done {last_a} steps, B {last_b}.")
    if comparison.metrics:
        _print_metrics(console, comparison.metrics)
    elif comparison.metrics_not_compared:
        reason = comparison.metrics_not_compared
        console.print(f"  Their metrics were not compared, because {reason}.")


def _print_metrics(console: Console, difference: MetricDifference) -> None:
    """Print where the first metric differs, its values, and what that means."""
    a, b = shown_values(difference.a, difference.b)
    split = f" ({difference.split})" if difference.split else ""
    where = f"In {difference.file} at step {difference.step}{split}"
    console.print(f"{where} {difference.metric} is {a} in A, {b} in B.", markup=False)
    others = difference.differing[1:]
    if others:
        console.print(f"Other values there, too: {listed(others)}.", markup=False)
    console.print(
        "Something outside the weights and the trace decided this. It may be state that no\n"
        "checkpoint saves, so a resumed run has lost it (look at state_dict and load_state_dict\n"
        "of the trainer), or an evaluation that draws numbers which nothing seeds (python -m\n"
        "repro audit looks for them)."
    )
    if difference.file != METRICS:  # its lines were written under the conditions that were compared
        console.print(
            "Or the two evaluations ran on other hardware or with other code: evaluate both again\n"
            "here."
        )


def _print_parting(console: Console, parting: Parting) -> None:
    """Print the step's quantities up to the first that differs."""
    where = f"at step {parting.step}" if parting.step else "before the first step"
    quantity = parting.quantity.replace("_", " ")
    console.print(f"\n[bold]The runs part {where}: {quantity}[/]")
    table = _empty_table()
    for name in parting.agree:
        table.add_row(name.replace("_", " "), "agrees", "")
    # A number's exact digits stand below it, whether or not the terminal is wide enough.
    values = (_value(value).replace(" (0x", "\n(0x") for value in parting.values)
    table.add_row(quantity, *values)
    console.print(table)


def _print_replayed(console: Console, replayed: Replayed) -> None:
    """Print whether the runs repeat themselves, and the first operation that differs."""
    for side, step, changed in zip("AB", replayed.parted, replayed.changed, strict=True):
        if changed:
            _print_changed(console, side, changed)
        elif step is not None:
            told = f"{side} does not repeat itself: step {step} came out otherwise in the replay,"
            console.print(f"\n{told} so something in it depends on more than its conditions.")
    if replayed.samples:
        _print_samples(console, *replayed.samples)
    elif replayed.compiled[0] != replayed.compiled[1]:
        one, other = "AB" if replayed.compiled[0] else "BA"
        told = f"torch compiled the model of {one} (training.compile=true) and not that of {other}:"
        console.print(f"\n{told} their operations cannot be compared.")
    elif replayed.operation:
        _print_operation(console, replayed.operation)
    else:
        console.print("\nIn the replay all operations agree: the difference did not come again.")
    if all(replayed.compiled):
        console.print(f"\n{_OUTSIDE}")


def _print_changed(console: Console, side: str, changed: list[str]) -> None:
    console.print(f"\n{side} was replayed with what is there today, which is not what it ran with:")
    for line in changed:
        console.print(f"  {line}", markup=False)
    console.print(
        "To replay what it ran with, check out its commit and run trace-step there; "
        "then diff the two files."
    )


def _print_samples(console: Console, one: list[int], two: list[int]) -> None:
    """Print the samples' indices from the first that differs."""
    places = range(min(len(one), len(two)))
    first = next((place for place in places if one[place] != two[place]), len(places))
    until = first + _SAMPLES_SHOWN
    console.print(f"\nA's batch has {len(one)} samples, B's {len(two)}; their indices from the")
    console.print(
        f"first that differs (number {first}): A {one[first:until]}, B {two[first:until]}"
    )


def _print_operation(console: Console, difference: OperationDifference) -> None:
    """Print the two operations side by side, and how far their outputs lie apart."""
    console.print(f"\n[bold]First operation that differs[/]: {_HOW[difference.how]}")
    table = _empty_table()
    for title, describe in _ROWS.items():
        if title == "arguments" and difference.how != ARGUMENTS:
            continue
        a = describe(difference.a) if difference.a else "-"
        b = describe(difference.b) if difference.b else "-"
        if a or b:
            table.add_row(title, a, "the same" if a == b else b)
    console.print(table)
    for distance in difference.apart or []:
        console.print(f"  {_apart(distance)}")


def _empty_table() -> Table:
    return Table("", "A", "B", box=None, padding=(0, 2))


def _apart(distance: Distance) -> str:
    ulps = "" if distance.ulps is None else f", at most {distance.ulps} ulp"
    differing = f"{distance.differing} of {distance.values} values differ{ulps}"
    return (
        f"{differing}, {_short(distance.absolute)} absolute, {_short(distance.relative)} relative"
    )


def _short(value: float | None) -> str:
    return "not finite" if value is None else f"{value:.3g}"


def _value(value: Json) -> str:
    return "not set" if value is None else str(value)


def _module(operation: Operation) -> str:
    return " ".join(filter(None, (operation.module, operation.class_)))


def _tensor_names(operation: Operation) -> str:
    """Return the names of the outputs, or of the inputs if those have none."""
    for tensors in (operation.outputs, operation.inputs):
        if names := dict.fromkeys(tensor.name for tensor in tensors if tensor.name):
            return ", ".join(names)
    return ""


def _shapes(operation: Operation) -> str:
    return " ".join(f"{tensor.dtype}{tensor.shape}" for tensor in operation.outputs[:4])


def _seed(operation: Operation) -> str:
    return "" if operation.random is None else str(operation.random)


_ROWS: dict[str, Callable[[Operation], str]] = {
    "operation": lambda operation: operation.name,
    "in": lambda operation: operation.phase,
    "module": _module,
    "line": lambda operation: operation.source,
    "of": _tensor_names,
    "shapes": _shapes,
    "arguments": lambda operation: operation.arguments,
    "seed": _seed,
}
