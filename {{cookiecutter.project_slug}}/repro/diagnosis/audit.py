"""What in the author's rooms may spoil the bits, found before it does.

One training step of the author's own model runs on the CPU, and every operation is looked up in
repro/diagnosis/catalogue.py: those that have no deterministic version on CUDA, that are slower
there when they have to be deterministic, or that lie outside the promise of the portable
profile. The source is searched as well, for randomness that nobody seeds
(repro/diagnosis/unseeded.py).
"""

import warnings
from contextlib import suppress
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from rich.console import Console

from repro import environment
from repro.core.errors import UserError
from repro.core.layout import USER_CODE
from repro.core.project import author_object
from repro.core.text import listed
from repro.diagnosis import catalogue

REFUSED, VARIES = "no deterministic version on CUDA", "varies on CUDA, and PyTorch says nothing"
SLOWER, NOT_PORTABLE = "slower on CUDA when deterministic", "other bits on another CPU model"
_TABLES = (
    (REFUSED, catalogue.NO_DETERMINISTIC_VERSION_ON_CUDA),
    (VARIES, catalogue.NOT_REFUSED_ON_CUDA),
    (NOT_PORTABLE, catalogue.NOT_PORTABLE_ON_CPU),
    (SLOWER, catalogue.SLOWER_ON_CUDA),
)


def audit(root: Path, overrides: list[str]) -> list[dict[str, Any]]:
    """The operations of one step that stand in the catalogue, the worst first.

    Each with `kind` (a constant above), `operation` (torch's public name), `instead`, `module` and
    `source` (both of the forward pass, "" for neither), `calls`. `overrides` are settings of the
    training. Starts the interpreter anew to put the profile in force.
    """
    config = author_object(root, "config").load([*overrides, "device=cpu"])
    environment.enter(config.profile, config.threads)
    from repro.diagnosis.operations import Recorder
    from repro.training.determinism import set_determinism

    trainer = author_object(root, "trainer")(config)
    set_determinism("warn")  # what strict refuses on the CPU as well is to be listed, too
    warnings.simplefilter("ignore")
    recorder = Recorder(root, USER_CODE)
    recorder.name(trainer.model)
    _, batch = next(iter(trainer.steps(range(1))))
    with recorder.recording(), suppress(UserError):  # a loss that is not finite has its operations
        trainer.train_step(0, batch)
    return findings(recorder.operations)


def findings(operations: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those of repro/diagnosis/operations.py's entries that stand in the catalogue; see `audit`."""
    found: dict[Any, dict[str, Any]] = {}
    for entry in operations:
        name, words = entry["name"].partition(".")[2], entry["arguments"].split()
        for pattern, operation, meant in catalogue.KERNELS:
            if not fnmatch(name, pattern) or not meant(words, entry["inputs"]):
                continue
            kind, instead = next((k, t[operation]) for k, t in _TABLES if operation in t)
            place = {key: entry[key] for key in ("module", "source")}
            key = (kind, operation, *place.values())
            known = {"kind": kind, "operation": operation, "instead": instead, **place}
            found.setdefault(key, {**known, "calls": 0})["calls"] += 1
    order = [kind for kind, _ in _TABLES]
    return sorted(found.values(), key=lambda entry: order.index(entry["kind"]))


def show(operations: list[dict[str, Any]], sources: list[dict[str, Any]]) -> None:
    """Print both lists in words."""
    say = Console(highlight=False, soft_wrap=True).print
    for kind, _ in _TABLES:
        of_kind = [entry for entry in operations if entry["kind"] == kind]
        if of_kind:
            say(f"\n[bold]{kind}[/]")
        for operation in dict.fromkeys(entry["operation"] for entry in of_kind):
            entries = [entry for entry in of_kind if entry["operation"] == operation]
            say(f"  {operation}: instead {entries[0]['instead']}", markup=False)
            places = [" ".join(filter(None, (e["module"], e["source"]))) for e in entries]
            say(f"    {listed(places, 4)}", markup=False)  # --json tells all
    if sources:
        say("\n[bold]Randomness or order that nothing seeds[/]")
    for entry in sources:
        say(f"  {entry['path']}:{entry['line']}: {entry['found']} ({entry['rule']})", markup=False)
        say(f"    {entry['remedy']}", markup=False)
    bad = [entry for entry in operations if entry["kind"] != SLOWER]
    say(f"\n{len(bad)} operations and {len(sources)} places in the source may change bits.")
