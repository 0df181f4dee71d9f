"""Write what was recorded: results/ (expected_metrics.json, figures/, trace/) and REPRODUCE.md.

Promises that what other hardware classes recorded under the same conditions stays as it is
(repro/results/classes.py), also if another machine that shares the folder ends in the same moment,
and that nothing outside the marked blocks of REPRODUCE.md changes.
"""

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

from repro.core import layout
from repro.core.files import holding_lock, write_file, write_json
from repro.results.claims import EXPECTED, RECORDED_RUNS, Claim, read_recording
from repro.results.classes import added_class, beside, comparable_recording
from repro.results.document import write_document
from repro.results.recording import Recording
from repro.runs.conditions import Situation
from repro.runs.figures import draw_seeds
from repro.runs.logs import each_line, read_lines

LARGEST_TRACE = 1 << 18  # bytes of a trace that go to results/: for `verify --prefix` in a clone
_DRAWN_BEFORE = ("learning_curves.png", "learning_curves_seeds.png")  # by a kit before SVG
_FIGURES = Path(layout.RESULTS, layout.FIGURES)
_TRACES = Path(layout.RESULTS, "trace")


def publish_beside(
    root: Path,
    claims: list[Claim],
    situations: Mapping[str, Situation],
    runs: Mapping[str, Path],
    now: Recording,
) -> None:
    """Write what is recorded `now`, with what other hardware classes have recorded.

    That is read only here: another machine may have recorded while this one trained. `runs`: the
    folders of each claim's runs. The figures stay those of the class that was recorded first.
    """
    with holding_lock(root / RECORDED_RUNS):
        earlier = comparable_recording(root, claims, situations)
        for claim in claims:
            before = earlier.claims[claim.name] if earlier else None
            added = added_class(before, situations[claim.name].hardware_class)
            if not added:
                _copy_figures(root, claim, runs[claim.name])
            _copy_trace(root, claim, runs[claim.name], added)
        recording = beside(earlier, now)
        _remove_old_traces(root, claims, recording)
        _name_old_figures(root, claims)
        publish(root, recording)


def _copy_figures(root: Path, claim: Claim, folder: Path) -> None:
    """Copy the figures of a claim's first seed to results/, and draw curves over all seeds."""
    first = layout.figures_folder(folder / f"seed-{claim.seeds[0]}", claim.checkpoint)
    figures = root / _FIGURES / claim.name
    for name in _DRAWN_BEFORE:
        (figures / name).unlink(missing_ok=True)
    if first.is_dir():  # the author's evaluation may draw none
        shutil.copytree(first, figures, dirs_exist_ok=True)
    runs = {str(seed): folder / f"seed-{seed}" / layout.METRICS for seed in claim.seeds}
    draw_seeds(figures, {seed: read_lines(path) for seed, path in runs.items()})


def _copy_trace(root: Path, claim: Claim, folder: Path, added: str) -> None:
    """Copy the beginning of the first seed's trace to results/, as much as LARGEST_TRACE holds."""
    first = claim.seeds[0]
    lines = []
    size = 0
    for entry in each_line(folder / f"seed-{first}" / layout.TRACE):
        if "header" in entry:
            continue
        line = json.dumps(entry) + "\n"
        size += len(line)
        if size <= LARGEST_TRACE:
            lines.append(line)
    write_file(trace_file(root, claim.name, first, added), "".join(lines).encode())


def trace_file(root: Path, claim: str, seed: int, added: str) -> Path:
    """Return where the published part of a trace lies: lines of steps, without headers.

    `added`: the hardware class if it is one that was added, else "".
    """
    of_class = re.sub("[^a-z0-9]+", "-", f" {added}".lower()).rstrip("-")
    return root / _TRACES / f"{claim}_seed-{seed}{of_class}.jsonl"


def _remove_old_traces(root: Path, claims: list[Claim], recording: Recording) -> None:
    """Remove the traces of an earlier recording."""
    current = {
        trace_file(root, claim.name, claim.seeds[0], added)
        for claim in claims
        for added in ("", *recording.claims[claim.name].added)
    }
    for path in {*(root / _TRACES).glob("*.jsonl")} - current:
        path.unlink()


def _name_old_figures(root: Path, claims: list[Claim]) -> None:
    """Print which figures are of no claim; the author may have put them there."""
    names = {claim.name for claim in claims}
    for path in (root / _FIGURES).glob("*/"):
        if path.name not in names:
            print(f"{path.relative_to(root)} is of no claim: delete it, or archives have it, too")


def publish(root: Path, recording: Recording) -> None:
    """Write results/expected_metrics.json and the marked blocks of REPRODUCE.md.

    The document is filled from the file as it is read again, so that both have the same order.
    """
    write_json(root / EXPECTED, recording.as_json())
    write_document(root, read_recording(root))
