"""The verdict: does a claim come out again, here and now?

IDENTICAL: what was compared has the recorded bits. EQUIVALENT: only the hardware class differs from
every recorded one, and the value lies inside the prediction interval of the recorded seeds.
DIFFERENT: all else. Conditions are compared first, before anything is trained: a tolerance alone
would pass a learning rate changed by a third (measured).

Compared are the weights and the value of a whole training, or the traces of a part of it: of its
first steps, or of stretches that start from the author's checkpoints at random places. A part is
evidence for a small share of the cost; it tells nothing about hardware that was not recorded.
"""

import json
import math
import random
import statistics
import sysconfig
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from scipy.stats import t as student

from repro.core import layout
from repro.core.errors import UserError
from repro.core.hashing import sha256_json
from repro.core.layout import TRACE
from repro.core.project import run_author_command
from repro.diagnosis.diff import first_difference
from repro.environment.import_paths import shadows
from repro.results import report
from repro.results.claims import RESULTS, conditions_now, read_claims, read_results, recorded_run
from repro.results.record import measure, trace_file
from repro.runs.conditions import differences
from repro.runs.folder import create_folder
from repro.runs.git import get_git_info
from repro.runs.logs import read_trace_lines
from repro.training import checkpoint, model_state

IDENTICAL, EQUIVALENT, DIFFERENT = "IDENTICAL", "EQUIVALENT", "DIFFERENT"
Lines = dict[int, dict[str, Any]]  # of a trace, by step


@dataclass
class Verdict:
    """What verdict.json holds; `steps`: the first and last of each stretch that was trained."""

    claim: str
    seed: int
    what: str = "whole"  # or "prefix", "segments"
    verdict: str = DIFFERENT
    why: str = ""
    differences: list[str] = field(default_factory=list)
    steps: list[list[int]] = field(default_factory=list)
    hardware_class: str = ""
    recorded_on: list[str] = field(default_factory=list)
    metric: str = ""
    value: float | None = None
    recorded: float | None = None
    bits: str | None = None
    recorded_bits: str | None = None
    interval: list[float] | None = None
    commit: str | None = None
    conditions_digest: str = ""


def verify(
    root: Path,
    name: str | None = None,
    seed: int | None = None,
    prefix: int | None = None,
    segments: int | None = None,
    steps: int = 20,
) -> Verdict:
    """Repeat a recorded seed of a claim (default: the first ones), or a part of it, and judge.

    Prints the evidence and writes it to verdict.json in a new folder of runs/verify/.
    """
    recorded = read_results(root)
    claims = {claim["name"]: claim for claim in read_claims(root)}
    name = name or next(iter(claims))
    if name not in recorded or name not in claims:
        raise UserError(f"claim {name!r}: recorded are {', '.join(recorded)}; make record")
    claim, expected = claims[name], recorded[name]
    if seed is None:  # the first one, of those that are recorded
        seed = next((k for k in claim["seeds"] if str(k) in expected["values"]), claim["seeds"][0])
    if str(seed) not in expected["values"]:
        raise UserError(f"seed {seed}: recorded for {name} are {', '.join(expected['values'])}")
    print(f"claim      {name}: {expected['text']}")
    now = conditions_now(root, {"arguments": expected["arguments"]})
    found = Verdict(name, seed, recorded_on=[*expected["bits"]], metric=expected["metric"])
    found.what = "prefix" if prefix else "segments" if segments else "whole"
    found.hardware_class, found.commit = now["hardware_class"], get_git_info(root).commit_hash
    found.conditions_digest = sha256_json(now["conditions"])
    leaks = shadows(root, Path(sysconfig.get_path("purelib")))
    found.differences = [*differences(expected["conditions"], now["conditions"]), *leaks]
    if claim["arguments"] != expected["arguments"] or claim["metric"] != expected["metric"]:
        found.differences.append("claim: configs/claims.yaml has other arguments or another metric")
    if found.differences:
        found.why = "conditions differ from the recorded ones, nothing was trained"
        folder = create_folder(root / "runs" / "verify" / f"{name}_seed{seed}")
        elsewhere = all(line.startswith("packages: ") for line in found.differences)
        remedy = "make setup" if elsewhere else "To publish results of these: make record"
        print(f"{found.why}:", *(f"  {line}" for line in found.differences), remedy, sep="\n")
    else:
        print(f"conditions {', '.join(expected['conditions'])}: as recorded", flush=True)
        trained = _Training(root, claim, expected, found)
        folder = trained.folder
        if prefix:
            trained.prefix(prefix)
        elif segments:
            trained.segments(segments, steps)
        else:
            trained.whole()
        print(f"\n{found.why}")
    (folder / "verdict.json").write_text(json.dumps(asdict(found), indent=1) + "\n")
    print(f"\nto look at: {report.write(root, folder / 'report.html').relative_to(root)}")
    return found


class _Training:
    """A recorded training that is repeated in `folder`, whole or in parts; fills a verdict."""

    def __init__(
        self, root: Path, claim: dict[str, Any], expected: dict[str, Any], found: Verdict
    ) -> None:
        self.root, self.claim, self.expected, self.found = root, claim, expected, found
        self.original = recorded_run(root, claim["name"], expected, found.seed)
        self.lines = _steps_of(trace_file(root, claim["name"], found.seed))
        if self.original:
            self.lines = _steps_of(self.original / TRACE) or self.lines
        if found.what != "whole":
            self._refuse_what_cannot_be_compared()
        self.folder = create_folder(root / "runs" / "verify" / f"{found.claim}_seed{found.seed}")

    def _refuse_what_cannot_be_compared(self) -> None:
        if self.found.hardware_class not in self.found.recorded_on:
            raise UserError(
                f"this is {self.found.hardware_class}, recorded was on "
                f"{'; '.join(self.found.recorded_on)}: a part of a training has other bits here "
                "and tells nothing; leave --prefix and --segments out"
            )
        if not self.lines:
            raise UserError(
                f"no trace of seed {self.found.seed} is here, neither in {RESULTS.parent}/trace/ "
                "nor in runs/record/: use the author's archive, or try the first seed"
            )

    def whole(self) -> None:
        """Train and evaluate; compare weights and value."""
        metrics = measure(self.root, self.claim, self.found.seed, self.folder)
        self.found.steps = [[1, metrics["steps"]]]
        judge(self.found, self.expected, metrics)
        if self.found.verdict == DIFFERENT and self.found.hardware_class in self.found.recorded_on:
            parting = self._parting(_steps_of(self.folder / TRACE), 1, metrics["steps"])
            self.found.differences = [parting] if parting else []
            self.found.why += f"; {parting}" if parting else ""
            if parting and self.original:
                both = f"{self.original} {self.folder}"
                print(f"which operation: python -m repro diff {both} --replay")

    def prefix(self, steps: int) -> None:
        """Train the first steps; compare the traces."""
        last = min(steps, max(self.lines))
        self._stretch(self.folder, 0, last)
        self._judge_parts()

    def segments(self, count: int, steps: int) -> None:
        """Train stretches from the author's checkpoints at random places; compare the traces."""
        run = self.original
        folders = layout.steps_newest_first(run / "checkpoints") if run else []
        if not folders:
            raise UserError("runs/record/ lacks the run: take the author's archive, or --prefix")
        end = max(self.lines)
        places = [step for step in (int(x.name.partition("-")[2]) for x in folders) if step < end]
        places = sorted(random.SystemRandom().sample([0, *places], min(count, len(places) + 1)))
        if len(places) < count:
            print(f"the run kept {len(places) - 1} earlier checkpoints: {len(places)} places")
        self.found.bits = model_state.weights_digest(checkpoint.load(folders[0])["model"])
        recorded = self.expected["bits"][self.found.hardware_class]
        self.found.recorded_bits = recorded[str(self.found.seed)]
        if self.found.bits != self.found.recorded_bits:
            self.found.differences.append("the last checkpoint has not the recorded bits")
        for place in places:
            self._stretch(self.folder / f"from-{place}", place, min(place + steps, end))
        self._judge_parts()

    def _stretch(self, folder: Path, start: int, last: int) -> None:
        """Train the steps after `start` up to `last` in `folder`, and compare them."""
        print(f"\nsteps {start + 1} to {last} of {self.expected['steps']}", flush=True)
        arguments = [*self.claim["arguments"], f"seed={self.found.seed}", f"run_dir={folder}"]
        arguments += ["tracker=none", "output.trace=true", f"training.max_steps={last}"]
        if start and self.original:
            place = layout.step_folder(self.original / "checkpoints", start)
            arguments.append(f"resume={place}")
        run_author_command(self.root, "train", arguments)
        self.found.steps.append([start + 1, last])
        if parting := self._parting(_steps_of(folder / TRACE), start + 1, last):
            self.found.differences.append(parting)

    def _parting(self, lines: Lines, first: int, last: int) -> str:
        """Where these lines leave the recorded ones, between two steps; empty if they do not."""
        for step in range(first - 1, last + 1):  # 0 is before the first
            if step not in self.lines and self.found.what == "whole":
                return ""  # a clone has the first steps only
            if step not in self.lines:
                raise UserError(f"the recorded trace lacks step {step}: nothing to compare with")
            if step not in lines:
                return f"step {step} was not done"
            parting = first_difference(self.lines[step], lines[step])
            if parting is not None:
                then, here = parting.values
                where = f"at step {step}" if step else "before the first step"
                return f"they part {where}: {parting.quantity} {here}, recorded {then}"
        return ""

    def _judge_parts(self) -> None:
        done = {n for first, last in self.found.steps for n in range(first, last + 1)}
        share = f"{len(done)} of {self.expected['steps']} steps"
        if self.found.differences:
            self.found.why = "; ".join(self.found.differences)
        else:
            self.found.verdict = IDENTICAL
            self.found.why = f"{share} have the recorded bits, loss to weights"


def _steps_of(path: Path) -> Lines:
    return {step: line.as_json() for step, line in read_trace_lines(path).items()}


def judge(found: Verdict, expected: dict[str, Any], metrics: dict[str, Any]) -> None:
    """Decide on a whole training under the recorded conditions; prints what was compared."""
    seed, values = str(found.seed), list(expected["values"].values())
    found.value, found.recorded = metrics[expected["metric"]], expected["values"][seed]
    found.bits = metrics["bits"]
    print(f"\n{found.metric:10} {found.value:.6f}  recorded {found.recorded:.6f} (seed {seed})")
    if len(values) > 1:
        apart = abs(found.value - found.recorded) / (statistics.stdev(values) or math.inf)
        print(f"{'':10} {apart:.2f} standard deviations of the recorded seeds apart")
    if found.hardware_class in expected["bits"]:
        found.recorded_bits = expected["bits"][found.hardware_class][seed]
        print(f"bits       {found.bits}\nrecorded   {found.recorded_bits} ({found.hardware_class})")
        if found.bits != found.recorded_bits:
            found.why = "the weights have other bits under the same conditions"
        elif found.value != found.recorded:
            found.why = "the same weights, another value: results/ or the evaluation was changed"
        else:
            found.verdict, found.why = IDENTICAL, "weights and value have the recorded bits"
        return
    here = f"but this is {found.hardware_class}"
    print(f"bits       recorded on {'; '.join(expected['bits'])}, {here}")
    if len(values) < 3:
        found.why = f"{len(values)} recorded seeds do not tell the spread: at least 3 are needed"
        return
    low, high = prediction_interval(values)
    low, high = min(low, *values), max(high, *values)  # if all are one, the mean rounds past it
    found.interval = [low, high]
    print(f"interval   {low:.6f} to {high:.6f} holds 95 % of further seeds")
    inside = low <= found.value <= high
    found.verdict, word = (EQUIVALENT, "inside") if inside else (DIFFERENT, "outside")
    where = f"{word} the interval of the recorded seeds"
    found.why = f"this hardware class was not recorded, so bits may differ; the value lies {where}"


def prediction_interval(values: list[float], level: float = 0.95) -> tuple[float, float]:
    """Where one further value of a normal sample lies with probability `level`."""
    count = len(values)
    half = float(student.ppf(0.5 + level / 2, count - 1)) * statistics.stdev(values)
    half *= math.sqrt(1 + 1 / count)
    return statistics.fmean(values) - half, statistics.fmean(values) + half
