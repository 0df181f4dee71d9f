"""What a project claims (configs/claims.yaml) and what was recorded of it (results/).

Both are read and checked here, and the recorded conditions are compared with today's. The author's
commands, which [tool.repro] in pyproject.toml names, are run as a user would run them.
"""

import json
from pathlib import Path
from typing import Annotated, Any

import yaml  # type: ignore[import-untyped]  # omegaconf brings it; for its errors only
from omegaconf import OmegaConf
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from repro.core.errors import UserError
from repro.core.files import read_object
from repro.core.project import run_author_command, tool_settings
from repro.runs.conditions import conditions_on_disk, differences

RESULTS = Path("results") / "expected_metrics.json"
RUNS = Path("runs") / "record"  # of claims: <claim>/<digest of the conditions>/seed-<seed>
LASTING = ("code", "config", "data", "lock")  # the conditions that are the project's own


class Claim(BaseModel):
    """One entry of configs/claims.yaml."""

    model_config = ConfigDict(extra="forbid", strict=True)
    name: Annotated[str, Field(pattern="^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    text: str
    shows: str = ""  # of the paper, e.g. "Table 2, row 3"
    arguments: list[str]  # of the training command
    metric: str
    seeds: Annotated[list[int], Field(min_length=1)]


def read_claims(root: Path) -> list[dict[str, Any]]:
    """The claims of configs/claims.yaml, checked."""
    path = root / str(tool_settings(root)["claims"])
    try:
        found: Any = OmegaConf.to_container(OmegaConf.load(path))
        claims = TypeAdapter(Annotated[list[Claim], Field(min_length=1)]).validate_python(found)
    except ValidationError as error:
        faults = [(".".join(map(str, fault["loc"])), fault["msg"]) for fault in error.errors()]
        raise UserError([f"{path}: {place}: {words}" for place, words in faults]) from error
    except (yaml.YAMLError, OSError) as error:
        raise UserError(f"{path}: {' '.join(str(error).split())}") from error
    if len({claim.name for claim in claims}) < len(claims):
        raise UserError(f"{path}: two claims have the same name")
    return [claim.model_dump() for claim in claims]


def read_results(root: Path) -> dict[str, Any]:
    """The recorded claims by name; UserError if nothing is recorded."""
    return dict(read_recording(root)["claims"])


def read_recording(root: Path) -> dict[str, Any]:
    """What record wrote: commit and claims; UserError if nothing is recorded."""
    needed = {"text", "arguments", "metric", "values", "bits", "steps", "conditions"}
    try:
        found: dict[str, Any] = json.loads((root / RESULTS).read_text())
        complete = all(needed <= claim.keys() for claim in found["claims"].values())
    except FileNotFoundError as error:
        raise UserError(f"{RESULTS}: nothing is recorded yet: make record") from error
    except (ValueError, KeyError, TypeError, AttributeError):
        complete = False
    if not complete:
        raise UserError(f"{RESULTS} is damaged: restore it, or make record")
    return found


def recorded_run(root: Path, name: str, expected: dict[str, Any], seed: int) -> Path | None:
    """The author's run of a seed below runs/record/, known by its conditions and bits, or None."""
    bits = [digests[str(seed)] for digests in expected["bits"].values() if str(seed) in digests]
    for run in sorted((root / RUNS / name).glob(f"*/seed-{seed}")):
        conditions = read_object(run / "experiment_context.json").get("conditions")
        found = read_object(run / "metrics.json").get("bits")
        if conditions == expected["conditions"] and found in bits:
            return run
    return None


def stale(root: Path, quick: bool = False) -> list[str]:
    """What changed since the results were recorded, a line each; empty if they are of this code.

    Code, config, lock and data count; this machine's packages and variables do not. `quick`: code
    and lock alone, without starting the author's code. UserError if nothing is recorded.
    """
    recorded, lines = read_results(root), []
    claims = {claim["name"]: claim for claim in read_claims(root)}
    for name in sorted(claims.keys() ^ recorded.keys()):
        lines.append(f"claim: {name} {'is no claim any more' if name in recorded else 'is new'}")
    for name in claims.keys() & recorded.keys():
        claim, then = claims[name], recorded[name]
        now = {**claim, "seeds": sorted(map(str, claim["seeds"]))}
        then = {"shows": "", **then, "seeds": sorted(then["values"])}
        keys = ("text", "shows", "arguments", "metric", "seeds")
        lines += [f"claim: {key} of {name} changed" for key in keys if now[key] != then[key]]
    for claim in recorded.values():
        on_disk = conditions_on_disk(root).as_json()
        now = on_disk if quick else conditions_now(root, claim)["conditions"]
        kinds = [kind for kind in LASTING if kind in now]
        then = {kind: claim["conditions"].get(kind) for kind in kinds}
        lines += differences(then, {kind: now[kind] for kind in kinds})
    return list(dict.fromkeys(lines))


def conditions_now(root: Path, claim: dict[str, Any]) -> dict[str, Any]:
    """Conditions and hardware class of a claim's training on this machine, before it starts."""
    arguments = [*claim["arguments"], "--conditions"]
    output, _ = run_author_command(root, "train", arguments, capture=True)
    # The last line: the author's code may print, too.
    return dict(json.loads(output.strip().rpartition("\n")[2]))


def compare_with_recorded(
    root: Path, now: dict[str, Any], metrics: dict[str, Any], run: Path
) -> tuple[str, bool]:
    """A line that compares a whole training with the recorded one; False if they differ.

    Compared are trainings under the recorded conditions, on a recorded hardware class.
    """
    then = read_object(run / "experiment_context.json") or now
    try:
        claims = read_results(root)
    except UserError as error:
        return f"not compared: {error.lines[0]}", True
    for name, claim in claims.items():
        known = claim["bits"].get(now["hardware_class"], {}).get(str(metrics["seed"]))
        lines = [x for c in (now, then) for x in differences(claim["conditions"], c["conditions"])]
        # Where it once stopped does not matter: the number of steps is compared below.
        same = all(line.startswith("config: training.max_steps ") for line in lines)
        same = same and then.get("hardware_class") == now["hardware_class"]  # that of the training
        if same and known and metrics["step"] == claim["steps"]:
            expected = claim["values"][str(metrics["seed"])]
            if (metrics["bits"], metrics[claim["metric"]]) == (known, expected):
                return f"equal to the recorded {claim['metric']} and bits of {name}", True
            return f"DIFFERENT from {name}: {claim['metric']} {expected:.4f}, bits {known}", False
    return "not compared: nothing is recorded for these conditions, seed and steps", True
