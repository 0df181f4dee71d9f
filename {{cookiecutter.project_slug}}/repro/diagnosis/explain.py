"""What `repro diff` found, in the words of a person: sentences and a table."""

from collections.abc import Callable
from typing import Any

from rich.console import Console
from rich.table import Table

_HOW = {
    "outputs": "the same inputs, other outputs",
    "arguments": "the same inputs, other arguments",
    "random": "it draws random numbers with another seed",
    "inputs": "other inputs, which no operation before it made: other data or weights",
    "operations": "the runs call other operations here",
    "order": "the runs take the same tensors in another order",
    "unwritten": "it reads memory that nobody wrote",
}
_TITLES = {
    "Conditions that differ": "conditions",
    "Also different, but it should change no bits": "context",
}
_WORDS = {
    "config: threads": "B ran with {b} threads, A with {a}",
    "seed": "B has seed {b}, A has {a}",
    "data": "the data are not the same: another manifest",
    "lock": "requirements.lock is not the same",
    "hardware_class": "B ran on {b}, A on {a}",
    "flags: cpu_capability": "B ran with the instruction set {b}, A with {a}",
    "flags: threads": "torch used {b} threads in B, {a} in A",
}


def sentence(name: str, a: Any, b: Any) -> str:
    """One difference of two runs' headers in words."""
    kind, _, key = name.partition(": ")
    if kind == "code":
        state = "is only in B" if a is None else "is only in A" if b is None else "was changed"
        return f"{key} {state}"
    if name in _WORDS:
        return _WORDS[name].format(a=a, b=b)
    if kind in ("seeds", "config", "flags"):
        what = f"{kind}.{key}" if kind == "seeds" else key
        return f"B ran with {what}={_value(b)}, A with {_value(a)}"
    if kind == "environment":
        return f"the variable {key} is {_value(b)} in B, {_value(a)} in A"
    return f"{key or kind} is {_value(b)} in B, {_value(a)} in A"


def _value(value: Any) -> str:
    return "not set" if value is None else str(value)


def show(found: dict[str, Any], names: tuple[str, str]) -> None:
    """Print what `diff.compare` and `diff.replay` found."""
    console = Console(highlight=False, soft_wrap=True)
    say = console.print
    for side, name in zip("AB", names, strict=True):
        say(f"{side}  {name}", markup=False)
    for title, key in _TITLES.items():
        if found[key]:
            say(f"\n[bold]{title}[/]")
            reseeded = any(name == "seed" for name, _, _ in found[key])
            for entry in found[key]:
                if reseeded and entry[0].startswith("seeds: "):
                    continue  # they follow from it
                say(f"  {sentence(*entry)}", markup=False)
    if not found["conditions"]:
        say("\nThe conditions are the same.")
    if found["step"] is None:
        first, last = found["span"]
        words = f"all steps from {first} to {last} agree" if first < last else f"step {last} agrees"
        say(f"\n[bold]IDENTICAL[/]: {words}{'' if first else ' (0 is before training)'}.")
        if found["last"][0] != found["last"][1]:
            say(f"  A has done {found['last'][0]} steps, B {found['last'][1]}.")
        return
    where = f"at step {found['step']}" if found["step"] else "before the first step"
    say(f"\n[bold]They part {where}: {found['quantity'].replace('_', ' ')}[/]")
    table = Table("", "A", "B", box=None, padding=(0, 2))
    for name in found["agree"]:
        table.add_row(name.replace("_", " "), "agrees", "")
    table.add_row(found["quantity"].replace("_", " "), *map(_value, found["values"]))
    say(table)
    only_code = all(name.startswith("code: ") for name, _, _ in found["conditions"])
    if "operation" in found:
        _show_operation(found, say)
        if not only_code:
            say("\nLook at the conditions first: they differ, and this is where it shows.")
    elif only_code:  # other conditions name the cause themselves
        say("\nWhich operation it was: the same command with --replay")


def _show_operation(found: dict[str, Any], say: Any) -> None:
    for side, step, changed in zip("AB", found["parted"], found["changed"], strict=True):
        if changed:
            say(f"\n{side} was replayed with what is there today, which is not what it ran with:")
            for line in changed:
                say(f"  {line}", markup=False)
            say("For its own: check its commit out, trace-step there, then diff the two files.")
        elif step is not None:
            words = f"{side} does not repeat itself: step {step} came out otherwise in the replay,"
            say(f"\n{words} so something in it depends on more than its conditions.")
    if "samples" in found:
        one, two = found["samples"]
        pairs = enumerate(zip(one, two, strict=False))
        place = next((i for i, (a, b) in pairs if a != b), min(len(one), len(two)))
        say(f"\nA's batch has {len(one)} samples, B's {len(two)}; their indices from the first")
        say(f"that differs (number {place}): A {one[place:][:8]}, B {two[place:][:8]}")
        return
    operation = found["operation"]
    if operation is None:
        say("\nIn the replay all operations agree: what differed did not come again.")
        return
    say(f"\n[bold]First operation that differs[/]: {_HOW[operation['how']]}")
    table = Table("", "A", "B", box=None, padding=(0, 2))
    pair = operation["a"], operation["b"]
    for title, function in _ROWS.items():
        cells = [function(entry) if entry else "-" for entry in pair]
        if any(cells) and (title != "arguments" or operation["how"] == "arguments"):
            table.add_row(title, cells[0], "the same" if cells[0] == cells[1] else cells[1])
    say(table)
    for apart in operation.get("apart", []):
        ulps = "" if apart["ulps"] is None else f", at most {apart['ulps']} ulp"
        say(
            f"  {apart['differing']} of {apart['values']} values differ{ulps}, "
            f"{_short(apart['absolute'])} absolute, {_short(apart['relative'])} relative"
        )


def _short(value: float | None) -> str:
    return "not finite" if value is None else f"{value:.3g}"


def _names(entry: dict[str, Any]) -> str:
    for tensors in (entry["outputs"], entry["inputs"]):
        if names := dict.fromkeys(tensor[3] for tensor in tensors if tensor[3]):
            return ", ".join(names)
    return ""


_ROWS: dict[str, Callable[[dict[str, Any]], str]] = {
    "operation": lambda entry: entry["name"],
    "in": lambda entry: entry["phase"],
    "module": lambda entry: " ".join(filter(None, (entry["module"], entry["class"]))),
    "line": lambda entry: entry["source"],
    "of": _names,
    "shapes": lambda entry: " ".join(f"{t[1]}{t[2]}" for t in entry["outputs"][:4]),
    "arguments": lambda entry: entry["arguments"],
    "seed": lambda entry: str(entry.get("random", "")),
}
