"""Read what a project claims (configs/claims.yaml) and what was recorded of it (results/).

Both are checked when they are read, and the recorded conditions are compared with today's. The
author's commands, which [tool.repro] in pyproject.toml names, are run as a user would run them.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from repro.core import layout
from repro.core.bounded import parse_json
from repro.core.errors import UserError, refuse
from repro.core.file_names import fault_of_name, taken_for_one
from repro.core.files import Json, JsonObject, parse_object, read_object
from repro.core.project import MAX_STEPS, command_module, run_author_command, tool_setting
from repro.core.read_once import reading_once
from repro.core.stand_ins import stand_in
from repro.core.text import refuse_unseen
from repro.results.recording import CLAIM_NAME, Choice, RecordedClaim, Recording, parse_recording
from repro.runs.conditions import Situation, conditions_on_disk, differences
from repro.runs.context import other_code, read_context
from repro.runs.evaluation import best_step
from repro.runs.plain_values import odd_numbers
from repro.runs.yaml_files import load_yaml

EXPECTED = Path(layout.RESULTS, "expected_metrics.json")
RECORDED_RUNS = Path(layout.RUNS, layout.RECORDED)  # <claim>/<digest of conditions>/seed-<seed>
_ON_DISK = ("code", "lock")  # the conditions that are known without starting the author's code
_LASTING = ("code", "config", "data", "lock")  # the conditions that are the project's own


class Claim(BaseModel):
    """One entry of configs/claims.yaml."""

    model_config = ConfigDict(extra="forbid", strict=True)
    name: Annotated[str, Field(pattern=CLAIM_NAME)]
    text: str
    shows: str = ""  # of the paper, e.g. "Table 2, row 3"
    arguments: list[str]  # of the training command
    metric: str
    seeds: Annotated[list[int], Field(min_length=1)]
    checkpoint: Choice = "last"  # the one that the metric is of


def read_claims(root: Path) -> list[Claim]:
    """Read and check the claims of configs/claims.yaml."""
    path = root / tool_setting(root, "claims")
    content = load_yaml(path)
    refuse(odd_numbers(path))
    refuse_unseen(content, str(path))
    try:
        claims = TypeAdapter(Annotated[list[Claim], Field(min_length=1)]).validate_python(content)
    except ValidationError as error:
        faults = [(".".join(map(str, fault["loc"])), fault["msg"]) for fault in error.errors()]
        refuse([f"{path}: {place}: {reason}" for place, reason in faults])
        raise  # there is a fault in any case
    _refuse_names(path, [claim.name for claim in claims])
    return claims


def _refuse_names(path: Path, names: list[str]) -> None:
    """Raise UserError for names of claims that cannot be those of their folders everywhere."""
    if len({*names}) < len(names):
        raise UserError(f"{path}: two claims have the same name")
    faults = [f"{path}: {name}: {fault}" for name in names if (fault := fault_of_name(name))]
    for first, second in taken_for_one(names):
        faults.append(f"{path}: {first} and {second} are one name on Windows or macOS")
    refuse([f"{fault}: rename the claim, whose folders have its name" for fault in faults])


def read_recording(root: Path) -> Recording:
    """Read what `record` wrote; UserError if nothing is recorded, or the file is damaged.

    The claims are in the order of configs/claims.yaml: the first one is the first everywhere.
    """
    path = root / EXPECTED
    if not path.exists():
        raise UserError(f"{EXPECTED}: nothing is recorded yet: make record")
    recording = parse_recording(parse_object(path))
    if recording is None:
        what = stand_in(path)
        fault = f"is {what}" if what else "is damaged: restore it, or delete it and make record"
        raise UserError(f"{EXPECTED} {fault}")
    return replace(recording, claims=_in_order(root, recording.claims))


def _in_order(root: Path, claims: Mapping[str, RecordedClaim]) -> dict[str, RecordedClaim]:
    """Return claims in the order of configs/claims.yaml, which a file sorted by name has not.

    Those that are no claims any more come last, and so do all where that file is damaged: whoever
    needs it says so.
    """
    try:
        names = [claim.name for claim in read_claims(root)]
    except (OSError, UserError):
        names = []
    known = [name for name in names if name in claims]
    return {name: claims[name] for name in [*known, *sorted(claims.keys() - {*known})]}


def recorded_run(
    root: Path, name: str, expected: RecordedClaim, seed: int, hardware: str | None = None
) -> Path | None:
    """Return the author's run of a seed, known by its conditions and bits; None if it is not here.

    It is looked for below runs/record/. `hardware`: the class that it has to be of; None for any.
    """
    for run in sorted((root / RECORDED_RUNS / name).glob(f"*/seed-{seed}")):
        context = read_context(run)
        evaluation = run / layout.EVALUATION
        if expected.checkpoint == layout.BEST:  # metrics.json is of that one
            evaluation = layout.evaluation_file(run, layout.LAST)
        bits = read_object(evaluation).get("bits")
        if not context or hardware not in (None, context.hardware_class):
            continue
        if bits is None or bits != expected.bits.get(context.hardware_class, {}).get(str(seed)):
            continue
        if context.conditions != expected.conditions_on(context.hardware_class):
            continue
        if not other_code(run, expected.conditions.on_disk):
            return run
    return None


@reading_once()
def stale(root: Path, quick: bool = False) -> list[str]:
    """Return one line for each change since the results were recorded; none if they are current.

    Code, config, lock and data count; this machine's packages and variables do not. `quick`
    compares code and lock alone, without starting the author's code. UserError if nothing is
    recorded.
    """
    recorded = read_recording(root).claims
    lines = changed_claims({claim.name: claim for claim in read_claims(root)}, recorded)
    kinds = _ON_DISK if quick else _LASTING
    for claim in recorded.values():
        if quick:
            now = conditions_on_disk(root, config=claim.conditions.config).as_json()
        else:
            now = conditions_now(root, claim.arguments).conditions.as_json()
        then = claim.conditions.as_json()
        lines += differences({kind: then[kind] for kind in kinds}, {k: now[k] for k in kinds})
    return list(dict.fromkeys(lines))


def changed_claims(claims: Mapping[str, Claim], recorded: Mapping[str, RecordedClaim]) -> list[str]:
    """Return one line for each way in which configs/claims.yaml is not what was recorded."""
    lines = []
    for name in sorted(claims.keys() ^ recorded.keys()):
        change = "is new" if name in claims else "is no claim any more"
        lines.append(f"claim: {name} {change}")
    for name in sorted(claims.keys() & recorded.keys()):
        claim = claims[name]
        then = recorded[name]
        agrees = {
            "text": claim.text == then.text,
            "shows": claim.shows == then.shows,
            "arguments": claim.arguments == then.arguments,
            "metric": claim.metric == then.metric,
            "checkpoint": claim.checkpoint == then.checkpoint,
            "seeds": {str(seed) for seed in claim.seeds} == then.values.keys(),
        }
        lines += [f"claim: {key} of {name} changed" for key, same in agrees.items() if not same]
    return lines


def conditions_now(root: Path, arguments: list[str]) -> Situation:
    """Ask the author's command what a training with these arguments would depend on here."""
    return TypeAdapter(Situation).validate_python(asked(root, [*arguments, "--conditions"]))


def asked(root: Path, arguments: list[str]) -> JsonObject:
    """Return the JSON object that the author's training command prints at its end."""
    output, _ = run_author_command(root, "train", arguments, capture=True)
    last_line = output.strip().rpartition("\n")[2]  # the author's code may print, too
    try:
        return dict(parse_json(last_line))
    except (ValueError, TypeError) as error:  # an author's code that prints at its end
        program = command_module(root, "train")
        raise UserError(
            f"{program} {arguments[-1]} ended with {last_line[:80]!a}: expected a JSON object in "
            "its last line"
        ) from error


def compare_with_recorded(
    root: Path, now: Situation, metrics: Mapping[str, Json], run: Path
) -> tuple[str, bool]:
    """Compare a checkpoint with the recorded ones; return a line a claim, and False if one differs.

    `metrics`: what the evaluation wrote. Compared are the last and the best checkpoint of trainings
    under the recorded conditions, on a recorded hardware class.
    """
    try:
        claims = read_recording(root).claims
    except UserError as error:
        return f"not compared: {error.lines[0]}", True
    found = [
        _comparison(name, claim, now.hardware_class, metrics, run)
        for name, claim in claims.items()
        if _trained_as_recorded(claim, now, run)
    ]
    compared = [comparison for comparison in found if comparison]
    if not compared:
        return "not compared: nothing is recorded for these conditions, seed and steps", True
    return "\n".join(line for line, _ in compared), all(equal for _, equal in compared)


def _comparison(
    name: str, claim: RecordedClaim, hardware: str, metrics: Mapping[str, Json], run: Path
) -> tuple[str, bool] | None:
    """Compare a checkpoint with a claim's of the same step; None if there is none of that step."""
    seed = str(metrics["seed"])
    step = metrics["step"]
    chosen = claim.chosen(hardware, seed)
    if chosen is None:
        return None
    differs = f"DIFFERENT from {name}:"
    steps = claim.steps_on(hardware, seed)
    if claim.checkpoint == layout.BEST and step == _best_of_whole(run, steps) != chosen.step:
        return f"{differs} the best checkpoint is of step {step}, recorded {chosen.step}", False
    if step == chosen.step:
        value = claim.values_on(hardware)[seed]
        if metrics["bits"] == chosen.bits and metrics.get(claim.metric) == value:
            return f"equal to the recorded {claim.metric} and bits of {name}", True
        return f"{differs} {claim.metric} {value:.4f}, bits {chosen.bits}", False
    if step == steps:  # the last one, and the claim is of the best one
        bits = claim.bits[hardware][seed]
        if metrics["bits"] == bits:
            return f"equal to the recorded bits of the last checkpoint of {name}", True
        return f"{differs} bits {bits} of the last checkpoint", False
    return None


def _best_of_whole(run: Path, steps: int) -> int | None:
    """Return the best step of a run that has done all its steps; None of another one."""
    for newest in layout.steps_newest_first(run / layout.CHECKPOINTS)[:1]:
        if layout.step_of(newest) == steps:
            return best_step(newest)
    return None


def _trained_as_recorded(claim: RecordedClaim, now: Situation, run: Path) -> bool:
    """Return whether the conditions now, and those of the run's training, are as recorded."""
    training = read_context(run) or now
    recorded = claim.conditions_on(now.hardware_class).as_json()
    lines = [
        *differences(recorded, now.conditions.as_json()),
        *differences(recorded, training.conditions.as_json()),
        *other_code(run, claim.conditions.on_disk),
    ]
    # Where the training was once stopped does not matter: the number of steps is compared.
    same = all(line.startswith(f"config: {MAX_STEPS} ") for line in lines)
    return same and training.hardware_class == now.hardware_class
